//! Presence with a clock that stands still unless it is told.

mod property;
mod shown;
mod telling;
mod watches;

use std::time::{Duration, Instant};

use hashbrown::HashSet;

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
