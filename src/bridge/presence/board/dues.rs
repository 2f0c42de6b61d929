//! When to look at whom again, and who need not be remembered.

use std::time::Instant;

use super::{Board, GONE_MAX};
use crate::domain::ids::UserId;

impl<W: Clone> Board<W> {
    /// Nobody watches the user: there is nothing more to tell.
    pub(super) fn forget_unwatched(&mut self, target: UserId) {
        let Some(watched) = self.watched(target) else {
            return;
        };
        if !watched.watchers.is_empty() {
            return;
        }
        self.set_due(target, None);
        let Some(person) = self.people.get_mut(&target) else {
            return;
        };
        person.watched = None;
        let is_known = person.left.is_some_and(|left| left.number.is_some());
        if person.devices.is_empty() && !is_known {
            self.people.remove(&target);
        }
    }

    /// Of those who went and whom nobody watches only the last ones are remembered.
    pub(super) fn forget_gone(&mut self) {
        while self.gone.len() > GONE_MAX
            && let Some((user, number)) = self.gone.pop_front()
        {
            let Some(person) = self.people.get_mut(&user) else {
                continue;
            };
            if let Some(left) = &mut person.left
                && left.number == Some(number)
            {
                left.number = None;
                if person.watched.is_none() {
                    self.people.remove(&user);
                }
            }
        }
    }

    /// Sets when to look at somebody: at once or when the interval is over if there is
    /// something to tell, else when what is shown changes by itself.
    pub(super) fn schedule(&mut self, user: UserId, now: Instant) {
        let Some(person) = self.people.get(&user) else {
            return;
        };
        let Some(watched) = person.watched.as_deref() else {
            return;
        };
        let has_changed = watched.told != Some(person.shown(watched.settings, now));
        let due = if has_changed || watched.must_look {
            let earliest = watched.tried_at.map(|at| at + self.rules.interval);
            Some(earliest.map_or(now, |earliest| earliest.max(now)))
        } else {
            person.changes_at(now)
        };
        self.set_due(user, due);
    }

    pub(super) fn set_due(&mut self, user: UserId, due: Option<Instant>) {
        let Some(watched) = self.watched(user) else {
            return;
        };
        let before = std::mem::replace(&mut watched.due, due);
        if before != due {
            if let Some(before) = before {
                self.dues.remove(&(before, user));
            }
            self.dues.extend(due.map(|due| (due, user)));
        }
    }
}
