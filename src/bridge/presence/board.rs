//! Who is there and who is told of it. No clock, no store: time and rights are arguments.
//!
//! ```text
//!   connected, state, disconnected ─▶ person ─▶ due ─▶ (may they know?) ─▶ tell
//!   watch ─▶ what is shown now; from then on what changes, until the lease ends
//! ```

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use hashbrown::{HashMap, HashSet};

use super::person::{Device, Left, Person, Watched, Watcher};
use crate::domain::{
    ids::{DeviceId, Subject, UserId},
    presence::{Presence, PresenceSettings},
    push::Activity,
};

/// Users remembered who have gone and whom nobody watches; older ones are in the store.
const GONE_MAX: usize = 10_000;
/// Between two looks at all leases.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long things last, and how many there may be.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) active_ttl: Duration,
    pub(super) watch_ttl: Duration,
    pub(super) offline_delay: Duration,
    pub(super) interval: Duration,
    /// Of one user.
    pub(super) watchers_max: usize,
    pub(super) watches_max: usize,
}

/// Everybody of whom something is known. `W` is the way to a device.
#[derive(Debug)]
pub(super) struct Board<W> {
    rules: Rules,
    people: HashMap<UserId, Person<W>>,
    /// When to look at whom; each of the watched stands here at most once.
    dues: BTreeSet<(Instant, UserId)>,
    /// Those who went, oldest first.
    gone: VecDeque<(UserId, u64)>,
    departures: u64,
    /// Numbers of streams are below those of devices.
    streams_opened: i64,
    /// Pairs of a device and a user it watches.
    watches: usize,
    /// When all leases were looked at, because there was no room for another watch.
    swept_at: Option<Instant>,
}

/// A user to be looked at, whom the asking user may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) user: UserId,
    pub(super) name: Subject,
    pub(super) settings: PresenceSettings,
    /// What the store says, for users whom nobody here remembers.
    pub(super) last_seen_millis: Option<i64>,
}

/// A user of whom there may be something to tell, and the users who would be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) target: UserId,
    pub(super) watchers: HashSet<UserId>,
}

/// Something to tell one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told<W> {
    pub(super) way: W,
    pub(super) name: Subject,
    pub(super) presence: Presence,
    /// How long the device will be told of changes.
    pub(super) expires_in: Duration,
}

impl<W: Clone> Board<W> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            people: HashMap::new(),
            dues: BTreeSet::new(),
            gone: VecDeque::new(),
            departures: 0,
            streams_opened: 0,
            watches: 0,
            swept_at: None,
        }
    }

    /// A device connects: in the background, until it says that somebody looks at it.
    pub(super) fn connected(&mut self, user: UserId, id: DeviceId, way: W, now: Instant) {
        let person = self.people.entry(user).or_default();
        person.left = None;
        let older = person.devices.iter().position(|known| known.id == id);
        let older = older.map(|place| person.devices.swap_remove(place));
        person.devices.push(Device::new(id, way));
        for target in older.map(|older| older.watches).unwrap_or_default() {
            self.unwatch(target, id);
        }
        self.schedule(user, now);
    }

    /// What a connected device says of itself.
    pub(super) fn state(
        &mut self,
        (user, device): (UserId, DeviceId),
        activity: Activity,
        is_invisible: Option<bool>,
        now: Instant,
    ) {
        self.say(user, |id| id == device, (activity, is_invisible), now);
    }

    /// The same of all open streams of a user; false if there is none.
    pub(super) fn streams_state(
        &mut self,
        user: UserId,
        activity: Activity,
        is_invisible: Option<bool>,
        now: Instant,
    ) -> bool {
        self.say(user, is_stream, (activity, is_invisible), now)
    }

    /// Whether it is said of any.
    fn say(
        &mut self,
        user: UserId,
        is_meant: impl Fn(DeviceId) -> bool,
        (activity, is_invisible): (Activity, Option<bool>),
        now: Instant,
    ) -> bool {
        let lease = now + self.rules.active_ttl;
        let Some(person) = self.people.get_mut(&user) else {
            return false;
        };
        let mut is_said = false;
        for device in person.devices.iter_mut().filter(|known| is_meant(known.id)) {
            device.active_until = (activity == Activity::Active).then_some(lease);
            device.is_invisible = is_invisible.unwrap_or(device.is_invisible);
            is_said = true;
        }
        if is_said {
            self.schedule(user, now);
        }
        is_said
    }

    /// A device is gone, and watches nobody any more. Whether one of the user's connections hid
    /// that it was there.
    pub(super) fn disconnected(
        &mut self,
        user: UserId,
        device: DeviceId,
        at_millis: i64,
        now: Instant,
    ) -> bool {
        let Some(person) = self.people.get_mut(&user) else {
            return true; // nobody saw it
        };
        let Some(place) = person.devices.iter().position(|known| known.id == device) else {
            return true;
        };
        let was = person.present(now).unwrap_or(Presence::HIDDEN);
        let is_hidden = was == Presence::HIDDEN;
        let watches = person.devices.swap_remove(place).watches;
        if person.devices.is_empty() {
            self.departures += 1;
            person.left = Some(Left {
                grace: (!is_hidden).then_some((was, now + self.rules.offline_delay)),
                at_millis: (!is_hidden).then_some(at_millis),
                number: Some(self.departures),
            });
            self.gone.push_back((user, self.departures));
        } else {
            person.devices.shrink_to_fit();
        }
        for target in watches {
            self.unwatch(target, device);
        }
        self.schedule(user, now);
        self.forget_gone();
        is_hidden
    }

    /// How the user went is for nobody any more: perhaps they were hidden then.
    pub(super) fn forget_departure(&mut self, user: UserId, now: Instant) {
        let person = self.people.get_mut(&user);
        if let Some(left) = person.and_then(|person| person.left.as_mut()) {
            left.grace = None;
            left.at_millis = None;
            self.schedule(user, now);
        }
    }

    /// A stream of events is open: from now on it is a device like others, under the number that
    /// is answered.
    pub(super) fn stream_opened(&mut self, user: UserId, way: W, now: Instant) -> DeviceId {
        self.streams_opened += 1;
        let id = DeviceId(-self.streams_opened);
        self.connected(user, id, way, now);
        id
    }

    /// What is shown of a user now to somebody who may see it.
    pub(super) fn look(&self, target: &Target, now: Instant) -> Presence {
        let person = self.people.get(&target.user);
        match person.filter(|person| !person.devices.is_empty() || person.left.is_some()) {
            Some(person) => person.shown(target.settings, now),
            None => stored(target).shown(target.settings, now),
        }
    }

    /// Replaces the users whom a device watches, for as long as the lease is. Answers what is
    /// shown of each, and whether the device will be told of changes.
    pub(super) fn watch(
        &mut self,
        (user, device): (UserId, DeviceId),
        targets: &[Target],
        now: Instant,
    ) -> Vec<(Presence, bool)> {
        let is_connected = self.device(user, device).is_some();
        let until = now + self.rules.watch_ttl;
        let watcher = Watcher {
            user,
            device,
            until,
        };
        let mut after = Vec::new();
        let mut answers = Vec::with_capacity(targets.len());
        for target in targets {
            let is_watched = is_connected && self.watch_one(watcher, target, now);
            if is_watched {
                after.push(target.user);
            }
            answers.push((self.look(target, now), is_watched));
        }
        after.shrink_to_fit();
        let before = self
            .device(user, device)
            .map(|device| std::mem::replace(&mut device.watches, after.clone()));
        for target in before.unwrap_or_default() {
            if !after.contains(&target) {
                self.unwatch(target, device);
            }
        }
        answers
    }

    /// The settings of a user may have changed.
    pub(super) fn must_look(&mut self, user: UserId, now: Instant) {
        let person = self.people.get_mut(&user);
        if let Some(watched) = person.and_then(|person| person.watched.as_deref_mut()) {
            watched.must_look = true;
            self.schedule(user, now);
        }
    }

    /// When to ask for [`Board::due`] next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.dues.first().map(|(at, _)| *at)
    }

    /// How many watches there are.
    pub(super) fn watches(&self) -> usize {
        self.watches
    }

    /// Users of whom there may be something to tell, until they have `pairs` watchers
    /// together. For each of them call [`Board::tell`] or [`Board::postpone`].
    pub(super) fn due(&mut self, pairs: usize, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        let mut count = 0;
        while count < pairs
            && let Some(&(at, target)) = self.dues.first()
            && at <= now
        {
            self.end_leases(target, now);
            self.schedule(target, now);
            let Some(person) = self.people.get(&target) else {
                continue;
            };
            let Some(watched) = person.watched.as_deref() else {
                continue;
            };
            if watched.due.is_none_or(|due| now < due) {
                continue;
            }
            let watchers: HashSet<_> = watched.watchers.iter().map(|known| known.user).collect();
            count += watchers.len();
            due.push(Due { target, watchers });
            self.set_due(target, None);
        }
        due
    }

    /// Those who were asked about see the user as `settings` say, or not at all any more: what
    /// to tell to whom.
    pub(super) fn tell(
        &mut self,
        due: &Due,
        settings: PresenceSettings,
        may_see: &HashSet<UserId>,
        now: Instant,
    ) -> Vec<Told<W>> {
        for watcher in self.watchers(due.target) {
            if due.watchers.contains(&watcher.user) && !may_see.contains(&watcher.user) {
                self.end_watch(due.target, watcher);
            }
        }
        let Some(person) = self.people.get_mut(&due.target) else {
            return Vec::new();
        };
        let presence = person.shown(settings, now);
        let Some(watched) = person.watched.as_deref_mut() else {
            return Vec::new();
        };
        watched.settings = settings;
        watched.must_look = false;
        watched.tried_at = Some(now);
        let mut told = Vec::new();
        if watched.told != Some(presence) {
            let (asked, others): (Vec<Watcher>, Vec<Watcher>) = watched
                .watchers
                .iter()
                .copied()
                .partition(|watcher| due.watchers.contains(&watcher.user));
            // Who came meanwhile may know something else; it is told the next time.
            watched.told = others.is_empty().then_some(presence);
            let name = watched.name.clone();
            for watcher in asked {
                if let Some(device) = self.device(watcher.user, watcher.device) {
                    told.push(Told {
                        way: device.way.clone(),
                        name: name.clone(),
                        presence,
                        expires_in: watcher.until.saturating_duration_since(now),
                    });
                }
            }
        }
        self.schedule(due.target, now);
        told
    }

    /// It is not known now who may see the user: look again later.
    pub(super) fn postpone(&mut self, due: &Due, until: Instant) {
        if self.watched(due.target).is_some() {
            self.set_due(due.target, Some(until));
        }
    }

    fn watch_one(&mut self, who: Watcher, target: &Target, now: Instant) -> bool {
        let max = self.rules.watchers_max;
        let is_full = |watched: &Watched| watched.watchers.len() >= max;
        if self
            .watched(target.user)
            .is_some_and(|watched| is_full(watched))
        {
            self.end_leases(target.user, now);
        }
        if self.watches >= self.rules.watches_max {
            self.sweep(now);
        }
        let has_room = self.watches < self.rules.watches_max;
        let person = self.people.entry(target.user).or_default();
        if person.devices.is_empty() && person.left.is_none() {
            person.left = stored(target).left;
        }
        let shown = person.shown(target.settings, now);
        let watched = person
            .watched
            .get_or_insert_with(|| Box::new(Watched::new(target, shown)));
        watched.settings = target.settings;
        if watched.told != Some(shown) {
            watched.told = None;
        }
        let mut known = watched.watchers.iter_mut();
        let is_watched = if let Some(known) = known.find(|known| known.device == who.device) {
            known.until = who.until;
            true
        } else if has_room && !is_full(watched) {
            watched.watchers.push(who);
            self.watches += 1;
            true
        } else {
            false
        };
        self.forget_unwatched(target.user);
        self.schedule(target.user, now);
        is_watched
    }

    /// One device does not watch the user any more.
    fn unwatch(&mut self, target: UserId, device: DeviceId) {
        if let Some(watched) = self.watched(target) {
            let before = watched.watchers.len();
            watched.watchers.retain(|known| known.device != device);
            let ended = before - watched.watchers.len();
            self.watches -= ended;
        }
        self.forget_unwatched(target);
    }

    /// The same, and the device forgets it too.
    fn end_watch(&mut self, target: UserId, watcher: Watcher) {
        if let Some(device) = self.device(watcher.user, watcher.device) {
            device.watches.retain(|watched| *watched != target);
        }
        self.unwatch(target, watcher.device);
    }

    fn end_leases(&mut self, target: UserId, now: Instant) {
        for watcher in self.watchers(target) {
            if watcher.until <= now {
                self.end_watch(target, watcher);
            }
        }
    }

    /// Ends the leases that are over, whoever is watched: those of users with whom nothing
    /// happens are looked at by nobody else. Not often, since it looks at all.
    fn sweep(&mut self, now: Instant) {
        if self.swept_at.is_some_and(|at| now < at + SWEEP_INTERVAL) {
            return;
        }
        self.swept_at = Some(now);
        let watched = self.people.iter();
        let watched = watched.filter(|(_, person)| person.watched.is_some());
        let targets: Vec<_> = watched.map(|(target, _)| *target).collect();
        for target in targets {
            self.end_leases(target, now);
        }
    }

    fn watchers(&mut self, target: UserId) -> Vec<Watcher> {
        let watched = self.watched(target);
        watched.map_or_else(Vec::new, |watched| watched.watchers.clone())
    }

    fn watched(&mut self, target: UserId) -> Option<&mut Watched> {
        self.people.get_mut(&target)?.watched.as_deref_mut()
    }

    fn device(&mut self, user: UserId, device: DeviceId) -> Option<&mut Device<W>> {
        self.people.get_mut(&user)?.device(device)
    }
}

impl Watched {
    /// Watched by nobody yet; those who will be know what is shown now.
    fn new(target: &Target, shown: Presence) -> Self {
        Self {
            name: target.name.clone(),
            settings: target.settings,
            watchers: Vec::new(),
            told: Some(shown),
            tried_at: None,
            must_look: false,
            due: None,
        }
    }
}

/// No device of the store has such a number.
fn is_stream(id: DeviceId) -> bool {
    id.0 < 0
}

/// As the store knows the user.
fn stored(target: &Target) -> Person<()> {
    Person {
        left: Some(Left {
            grace: None,
            at_millis: target.last_seen_millis,
            number: None,
        }),
        ..Person::default()
    }
}

mod dues;
#[cfg(test)]
mod tests;
