//! One user: the connected devices, what they add up to, and who is told of it.

use std::time::Instant;

use crate::domain::{
    ids::{DeviceId, Subject, UserId},
    presence::{Presence, PresenceSettings},
};

/// A user whose devices are connected or were, or who is watched.
#[derive(Debug)]
pub(super) struct Person<W> {
    pub(super) devices: Vec<Device<W>>,
    /// How the last device went; none while one is connected.
    pub(super) left: Option<Left>,
    /// Boxed: most users are watched by nobody.
    pub(super) watched: Option<Box<Watched>>,
}

/// A connected device, and the way to it.
#[derive(Debug)]
pub(super) struct Device<W> {
    pub(super) id: DeviceId,
    pub(super) way: W,
    /// Until when it counts as active; none if it says that it is not.
    pub(super) active_until: Option<Instant>,
    pub(super) is_invisible: bool,
    /// Whom it watches.
    pub(super) watches: Vec<UserId>,
}

/// The end of a user's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// What the user is still shown as until then: perhaps it was a tunnel.
    pub(super) grace: Option<(Presence, Instant)>,
    /// In milliseconds since 1970; none if others may not know.
    pub(super) at_millis: Option<i64>,
    /// Tells one leaving from another; none if the store said so.
    pub(super) number: Option<u64>,
}

/// What those who watch a user were told.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) name: Subject,
    pub(super) settings: PresenceSettings,
    pub(super) watchers: Vec<Watcher>,
    /// What all of them know; none if they know different things.
    pub(super) told: Option<Presence>,
    /// When they were last told, or that was tried.
    pub(super) tried_at: Option<Instant>,
    /// The settings may have changed.
    pub(super) must_look: bool,
    /// When to look whether there is something to tell.
    pub(super) due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Watcher {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) until: Instant,
}

impl<W> Default for Person<W> {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            left: None,
            watched: None,
        }
    }
}

impl<W> Device<W> {
    pub(super) fn new(id: DeviceId, way: W) -> Self {
        Self {
            id,
            way,
            active_until: None,
            is_invisible: false,
            watches: Vec::new(),
        }
    }
}

impl<W> Person<W> {
    /// Active if any device is, else in the background if one is connected, else offline;
    /// hidden if the user or any connection says so.
    pub(super) fn shown(&self, settings: PresenceSettings, now: Instant) -> Presence {
        if settings.is_invisible {
            return Presence::HIDDEN;
        }
        if let Some(present) = self.present(now) {
            return present;
        }
        let Some(left) = self.left else {
            return Presence::HIDDEN;
        };
        match left.grace {
            Some((was, until)) if now < until => was,
            _ => Presence::Offline {
                last_seen_millis: left.at_millis.filter(|_| settings.tells_last_seen),
            },
        }
    }

    /// What the connected devices add up to; nothing if there is none.
    pub(super) fn present(&self, now: Instant) -> Option<Presence> {
        if self.devices.is_empty() {
            None
        } else if self.devices.iter().any(|device| device.is_invisible) {
            Some(Presence::HIDDEN)
        } else if self.active_until().is_some_and(|until| now < until) {
            Some(Presence::Active)
        } else {
            Some(Presence::Background)
        }
    }

    fn active_until(&self) -> Option<Instant> {
        let leases = self.devices.iter().map(|device| device.active_until);
        leases.flatten().max()
    }

    /// When what is shown may change by itself.
    pub(super) fn changes_at(&self, now: Instant) -> Option<Instant> {
        let until = match self.left {
            Some(left) => left.grace.map(|(_, until)| until),
            None => self.active_until(),
        };
        until.filter(|until| now < *until)
    }

    pub(super) fn device(&mut self, id: DeviceId) -> Option<&mut Device<W>> {
        self.devices.iter_mut().find(|device| device.id == id)
    }
}
