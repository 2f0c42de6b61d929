//! Presence with a clock that stands still unless it is told.

use std::time::{Duration, Instant};

use hashbrown::HashSet;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SHOWN: PresenceSettings = PresenceSettings {
    is_invisible: false,
    tells_last_seen: true,
};
/// Who watches: user and device.
const BOB: (UserId, DeviceId) = (UserId(2), DeviceId(20));
const CAROL: (UserId, DeviceId) = (UserId(3), DeviceId(30));
/// Who is watched.
const ALICE: UserId = UserId(1);
const PHONE: DeviceId = DeviceId(10);
const TABLET: DeviceId = DeviceId(11);

fn rules() -> Rules {
    Rules {
        active_ttl: SECOND * 600,
        watch_ttl: SECOND * 3600,
        offline_delay: SECOND * 10,
        interval: SECOND * 2,
        watchers_max: 2,
        watches_max: 4,
    }
}

fn target(user: UserId) -> Target {
    Target {
        user,
        name: Subject::new(&format!("user {}", user.0)).unwrap(),
        settings: SHOWN,
        last_seen_millis: None,
    }
}

fn offline(millis: i64) -> Presence {
    Presence::Offline {
        last_seen_millis: Some(millis),
    }
}

/// A board on which the way to a device is its number.
struct Stage {
    board: Board<i64>,
    start: Instant,
    now: Instant,
    settings: PresenceSettings,
    blind: HashSet<UserId>,
}

impl Stage {
    fn new(rules: Rules) -> Self {
        let now = now();
        let mut stage = Self {
            board: Board::new(rules),
            start: now,
            now,
            settings: SHOWN,
            blind: HashSet::new(),
        };
        stage.connect(BOB.0, BOB.1);
        stage.connect(CAROL.0, CAROL.1);
        stage
    }

    /// With Bob watching Alice.
    fn watching() -> Self {
        let mut stage = Self::new(rules());
        assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::HIDDEN, true)]);
        stage
    }

    fn connect(&mut self, user: UserId, device: DeviceId) {
        self.board.connected(user, device, device.0, self.now);
    }

    fn say(&mut self, device: DeviceId, activity: Activity) {
        self.board.state((ALICE, device), activity, None, self.now);
    }

    fn hide(&mut self, device: DeviceId, is_invisible: bool) {
        let hidden = Some(is_invisible);
        let activity = Activity::Background;
        self.board
            .state((ALICE, device), activity, hidden, self.now);
    }

    /// The time since the start is the time since 1970.
    fn leave(&mut self, user: UserId, device: DeviceId) {
        let millis = self.now.duration_since(self.start).as_millis();
        let millis = i64::try_from(millis).unwrap();
        self.board.disconnected(user, device, millis, self.now);
    }

    fn watch(&mut self, who: (UserId, DeviceId), users: &[UserId]) -> Vec<(Presence, bool)> {
        let targets: Vec<_> = users.iter().map(|user| target(*user)).collect();
        self.board.watch(who, &targets, self.now)
    }

    /// What is told now, and to which device.
    fn told(&mut self) -> Vec<(i64, Presence)> {
        let mut told = Vec::new();
        loop {
            let due = self.board.due(1, self.now);
            if due.is_empty() {
                told.sort_unstable_by_key(|(device, _)| *device);
                return told;
            }
            for due in due {
                let may_see = due.watchers.difference(&self.blind).copied().collect();
                let more = self.board.tell(&due, self.settings, &may_see, self.now);
                told.extend(more.into_iter().map(|told| (told.way, told.presence)));
            }
        }
    }

    /// Lets time pass, from one moment to look to the next, and says what is told when.
    fn pass(&mut self, time: Duration) -> Vec<(u64, Presence)> {
        let end = self.now + time;
        let mut told = Vec::new();
        loop {
            let since = self.now.duration_since(self.start).as_secs();
            told.extend(
                self.told()
                    .into_iter()
                    .map(|(_, presence)| (since, presence)),
            );
            match self.board.next_due().filter(|due| *due <= end) {
                Some(due) => self.now = due,
                None => break,
            }
        }
        self.now = end;
        told
    }
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn the_most_active_device_counts() {
    use Activity::{Active, Away, Background};
    for (phone, tablet, shown) in [
        (None, None, Presence::HIDDEN),
        (Some(None), None, Presence::Background),
        (Some(Some(Active)), None, Presence::Active),
        (Some(Some(Background)), None, Presence::Background),
        (Some(Some(Away)), None, Presence::Background),
        (Some(Some(Away)), Some(Some(Active)), Presence::Active),
        (Some(Some(Active)), Some(None), Presence::Active),
        (Some(None), Some(Some(Background)), Presence::Background),
    ] {
        let mut stage = Stage::new(rules());
        for (device, says) in [(PHONE, phone), (TABLET, tablet)] {
            if let Some(says) = says {
                stage.connect(ALICE, device);
                if let Some(says) = says {
                    stage.say(device, says);
                }
            }
        }
        let look = stage.board.look(&target(ALICE), stage.now);
        assert_eq!(look, shown, "{phone:?} {tablet:?}");
    }
}

#[test]
fn changes_are_told_as_they_happen() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    assert!(stage.told().is_empty());
    stage.pass(SECOND * 2);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(20, Presence::Active)]);
    stage.connect(ALICE, TABLET);
    stage.leave(ALICE, TABLET);
    assert!(stage.pass(SECOND * 100).is_empty());
}

#[test]
fn being_active_is_a_lease() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 300), [(0, Presence::Active)]);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 700), [(900, Presence::Background)]);
}

/// Goal: a tunnel is no absence.
#[test]
fn who_comes_back_soon_was_never_offline() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.pass(SECOND * 100);
    stage.leave(ALICE, PHONE);
    assert!(stage.pass(SECOND * 9).is_empty());
    let look = stage.board.look(&target(ALICE), stage.now);
    assert_eq!(look, Presence::Background);
    stage.connect(ALICE, PHONE);
    assert!(stage.pass(SECOND * 100).is_empty());
    stage.leave(ALICE, PHONE);
    assert_eq!(stage.pass(SECOND * 100), [(219, offline(209_000))]);
}

#[test]
fn of_many_changes_the_last_one_is_told() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    for _ in 0..10 {
        stage.say(PHONE, Activity::Active);
        stage.say(PHONE, Activity::Background);
    }
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 60), [(2, Presence::Active)]);
    // There and back again before the interval is over: nothing happened.
    stage.say(PHONE, Activity::Background);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.say(PHONE, Activity::Active);
    stage.say(PHONE, Activity::Background);
    assert!(stage.pass(SECOND * 60).is_empty());
}

/// Goal: one invisible connection hides the user, and leaves no trace when it ends.
#[test]
fn an_invisible_connection_hides_its_user() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.connect(ALICE, TABLET);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(20, Presence::Active)]);
    stage.hide(TABLET, true);
    assert_eq!(stage.pass(SECOND * 9), [(2, Presence::HIDDEN)]);
    // Saying anything else does not end it.
    stage.say(TABLET, Activity::Active);
    assert!(stage.pass(SECOND * 9).is_empty());
    stage.hide(TABLET, false);
    assert_eq!(stage.told(), [(20, Presence::Active)]);
    stage.hide(TABLET, true);
    stage.leave(ALICE, PHONE);
    stage.leave(ALICE, TABLET);
    assert_eq!(stage.pass(SECOND * 99), [(20, Presence::HIDDEN)]);
    let look = stage.board.look(&target(ALICE), stage.now);
    assert_eq!(look, Presence::HIDDEN);
}

#[test]
fn what_users_do_not_want_to_be_known_is_not_told() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.settings.is_invisible = true;
    stage.board.must_look(ALICE, stage.now);
    assert_eq!(stage.pass(SECOND * 9), [(2, Presence::HIDDEN)]);
    stage.say(PHONE, Activity::Active);
    stage.leave(ALICE, PHONE);
    stage.connect(ALICE, PHONE);
    assert!(stage.pass(SECOND * 99).is_empty());

    stage.settings.is_invisible = false;
    stage.settings.tells_last_seen = false;
    stage.board.must_look(ALICE, stage.now);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.leave(ALICE, PHONE);
    assert_eq!(stage.pass(SECOND * 99), [(118, Presence::HIDDEN)]);
}

/// Goal: settings that nobody said have changed count all the same before anything is told.
#[test]
fn settings_are_those_of_the_moment_of_telling() {
    let mut stage = Stage::watching();
    stage.settings.is_invisible = true;
    stage.connect(ALICE, PHONE);
    stage.say(PHONE, Activity::Active);
    assert!(stage.pass(SECOND * 9).is_empty());
}

#[test]
fn a_watch_ends_unless_it_is_renewed() {
    let mut stage = Stage::watching();
    stage.pass(SECOND * 3000);
    stage.watch(BOB, &[ALICE]);
    stage.pass(SECOND * 3599);
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.pass(SECOND);
    stage.say(PHONE, Activity::Active);
    assert!(stage.pass(SECOND * 9).is_empty());
    assert_eq!(stage.board.watches(), 0);
}

#[test]
fn a_watch_replaces_the_one_before_and_ends_with_its_connection() {
    let mut stage = Stage::watching();
    stage.watch(BOB, &[CAROL.0]);
    stage.connect(ALICE, PHONE);
    assert!(stage.told().is_empty());
    stage.watch(BOB, &[ALICE, CAROL.0]);
    assert_eq!(stage.board.watches(), 2);
    stage.leave(BOB.0, BOB.1);
    stage.say(PHONE, Activity::Active);
    assert!(stage.told().is_empty());
    assert_eq!(stage.board.watches(), 0);
    // Who is not connected is answered and watches nothing.
    assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::Active, false)]);
    stage.connect(BOB.0, BOB.1);
    assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::Active, true)]);
    assert!(stage.watch(BOB, &[]).is_empty());
    assert_eq!(stage.board.watches(), 0);
}

/// Goal: past the bounds there is an answer that says so, and room comes back.
#[test]
fn there_is_a_bound_to_watchers_and_watches() {
    let mut stage = Stage::new(rules());
    let dave = (UserId(4), DeviceId(40));
    stage.connect(dave.0, dave.1);
    for (who, is_watched) in [(BOB, true), (CAROL, true), (dave, false), (BOB, true)] {
        assert_eq!(stage.watch(who, &[ALICE]), [(Presence::HIDDEN, is_watched)]);
    }
    let four = [UserId(5), UserId(6), UserId(7)];
    let answers = stage.watch(dave, &four);
    let watched: Vec<_> = answers.iter().map(|(_, is_watched)| *is_watched).collect();
    assert_eq!(watched, [true, true, false]);
    assert_eq!(stage.board.watches(), 4);
    stage.watch(BOB, &[]);
    stage.watch(dave, &[]);
    assert_eq!(stage.watch(dave, &[ALICE]), [(Presence::HIDDEN, true)]);
    // Leases that are over make room.
    stage.pass(SECOND * 3600);
    assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::HIDDEN, true)]);
}

#[test]
fn who_may_not_see_is_told_nothing_and_watches_no_more() {
    let mut stage = Stage::watching();
    stage.watch(CAROL, &[ALICE]);
    stage.blind.insert(BOB.0);
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(30, Presence::Background)]);
    stage.blind.clear();
    stage.pass(SECOND * 2);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(30, Presence::Active)]);
    assert_eq!(stage.board.watches(), 1);
}

/// Goal: rights are asked for without the lock, and meanwhile the world goes on.
#[test]
fn who_comes_while_rights_are_judged_misses_nothing() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    let due = stage.board.due(1, stage.now).remove(0);
    assert_eq!(stage.watch(CAROL, &[ALICE]), [(Presence::Background, true)]);
    stage.say(PHONE, Activity::Active);
    let may_see = due.watchers.clone();
    let told = stage.board.tell(&due, SHOWN, &may_see, stage.now);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].way, told[0].presence), (20, Presence::Active));
    assert!(stage.told().is_empty(), "the interval is not over");
    stage.now += SECOND * 2;
    let both = [(20, Presence::Active), (30, Presence::Active)];
    assert_eq!(stage.told(), both);
}

#[test]
fn what_cannot_be_judged_is_told_later() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    let due = stage.board.due(9, stage.now).remove(0);
    stage.board.postpone(&due, stage.now + SECOND);
    assert!(stage.told().is_empty());
    assert_eq!(stage.pass(SECOND), [(1, Presence::Background)]);
}

/// Goal: a watch tells what has changed since its own answer, whatever others know.
#[test]
fn who_saw_what_was_never_told_is_told_that_it_is_over() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.watch(CAROL, &[ALICE]), [(Presence::Active, true)]);
    stage.say(PHONE, Activity::Background);
    let told = stage.pass(SECOND * 9);
    assert_eq!(told, [(2, Presence::Background), (2, Presence::Background)]);
}

#[test]
fn those_who_went_are_remembered_and_the_store_knows_the_rest() {
    let mut stage = Stage::new(rules());
    let mut stored = target(ALICE);
    stored.last_seen_millis = Some(7);
    assert_eq!(stage.board.look(&stored, stage.now), offline(7));
    stage.board.watch(BOB, &[stored.clone()], stage.now);
    stage.connect(ALICE, PHONE);
    stage.now += SECOND;
    stage.leave(ALICE, PHONE);
    stage.watch(BOB, &[]);
    stage.now += SECOND * 10;
    assert_eq!(stage.board.look(&stored, stage.now), offline(1000));
    for user in 0..=i64::try_from(GONE_MAX).unwrap() {
        stage.connect(UserId(100 + user), PHONE);
        stage.leave(UserId(100 + user), PHONE);
    }
    assert_eq!(stage.board.look(&stored, stage.now), offline(7));
    assert_eq!(stage.board.people.len(), GONE_MAX + 2);
    assert!(stage.board.dues.is_empty());
}

/// Something that happens to one of three users with two devices each.
#[derive(Clone, Debug)]
enum Step {
    Connect(i64),
    Say(i64, Activity, Option<bool>),
    Leave(i64),
    Watch(i64, Vec<i64>),
    Blind(i64, bool),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let activity = prop_oneof![
        Just(Activity::Active),
        Just(Activity::Background),
        Just(Activity::Away)
    ];
    let hides = prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let step = prop_oneof![
        3 => (0..6i64).prop_map(Step::Connect),
        4 => (0..6i64, activity, hides).prop_map(|(device, says, hides)| Step::Say(device, says, hides)),
        2 => (0..6i64).prop_map(Step::Leave),
        3 => (0..6i64, prop::collection::vec(0..3i64, 0..3)).prop_map(|(device, users)| Step::Watch(device, users)),
        1 => (0..3i64, any::<bool>()).prop_map(|(user, is_blind)| Step::Blind(user, is_blind)),
        5 => (0..15_000u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..60)
}

/// What watchers were told, checked as it comes.
#[derive(Default)]
struct Heard {
    /// What each device last knew of each user it watches.
    known: HashMap<(i64, UserId), Presence>,
    told_at: HashMap<UserId, Instant>,
}

proptest! {
    /// Goal: when everything has been told, every watcher knows what is shown; nobody is told
    /// of the same user twice within an interval, nor while they may not know; and what is
    /// over leaves nothing behind.
    #[test]
    fn watchers_know_what_is_shown_in_the_end(steps in steps()) {
        let rules = Rules { watchers_max: 6, watches_max: 18, ..rules() };
        let mut stage = Stage::new(rules.clone());
        stage.leave(BOB.0, BOB.1);
        stage.leave(CAROL.0, CAROL.1);
        let owner = |device: i64| UserId(device / 2);
        let mut connected = HashSet::new();
        let mut heard = Heard::default();
        for step in steps {
            match step {
                Step::Connect(device) => if connected.insert(device) {
                    stage.connect(owner(device), DeviceId(device));
                },
                Step::Say(device, says, hides) => {
                    let who = (owner(device), DeviceId(device));
                    stage.board.state(who, says, hides, stage.now);
                }
                Step::Leave(device) => if connected.remove(&device) {
                    stage.leave(owner(device), DeviceId(device));
                    heard.known.retain(|(watcher, _), _| *watcher != device);
                },
                Step::Watch(device, users) => {
                    let mut users: Vec<_> = users.into_iter().map(UserId).collect();
                    users.sort_unstable();
                    users.dedup();
                    let answers = stage.watch((owner(device), DeviceId(device)), &users);
                    heard.known.retain(|(watcher, _), _| *watcher != device);
                    for (user, (presence, is_watched)) in users.into_iter().zip(answers) {
                        prop_assert_eq!(is_watched, connected.contains(&device));
                        if is_watched {
                            heard.known.insert((device, user), presence);
                        }
                    }
                }
                Step::Blind(user, is_blind) => if is_blind {
                    stage.blind.insert(UserId(user));
                } else {
                    stage.blind.remove(&UserId(user));
                },
                Step::Pass(millis) => {
                    let end = stage.now + Duration::from_millis(millis);
                    hear(&mut stage, &mut heard, end, &rules)?;
                }
            }
        }
        let end = stage.now + rules.offline_delay + rules.interval * 2;
        hear(&mut stage, &mut heard, end, &rules)?;
        for ((watcher, user), known) in &heard.known {
            // Who was blind when something was told does not watch any more.
            let device = stage.board.device(owner(*watcher), DeviceId(*watcher));
            if device.is_some_and(|device| device.watches.contains(user)) {
                prop_assert_eq!(stage.board.look(&target(*user), stage.now), *known);
            }
        }
        for device in connected {
            stage.leave(owner(device), DeviceId(device));
        }
        prop_assert_eq!(stage.board.watches(), 0);
        prop_assert!(stage.board.dues.is_empty());
        let people = stage.board.people.values();
        prop_assert!(people.clone().all(|person| person.watched.is_none() && person.left.is_some()));
    }
}

fn hear(
    stage: &mut Stage,
    heard: &mut Heard,
    end: Instant,
    rules: &Rules,
) -> Result<(), TestCaseError> {
    loop {
        for due in stage.board.due(2, stage.now) {
            let may_see = due.watchers.difference(&stage.blind).copied().collect();
            let told = stage.board.tell(&due, SHOWN, &may_see, stage.now);
            if told.is_empty() {
                continue;
            }
            let before = heard.told_at.insert(due.target, stage.now);
            let is_apart = before.is_none_or(|before| before + rules.interval <= stage.now);
            // A user whom nobody watches meanwhile begins anew.
            prop_assert!(is_apart || told.len() <= due.watchers.len() * 2);
            for told in told {
                let watcher = UserId(told.way / 2);
                prop_assert!(!stage.blind.contains(&watcher));
                let known = heard.known.insert((told.way, due.target), told.presence);
                prop_assert!(known.is_some(), "told without a watch");
            }
        }
        match stage.board.next_due().filter(|due| *due <= end) {
            Some(due) => stage.now = stage.now.max(due),
            None => break,
        }
    }
    stage.now = end;
    Ok(())
}
