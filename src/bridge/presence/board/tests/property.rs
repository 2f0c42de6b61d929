//! Any steps in any order.

use proptest::prelude::*;

use super::*;

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
