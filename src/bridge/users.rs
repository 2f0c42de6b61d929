//! Which user a name is. The answer never changes, so it is remembered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::domain::ids::{Subject, UserId};

/// Names remembered; past it all are forgotten and asked again.
const NAMES_MAX: usize = 100_000;

/// Names and ids of users that were seen lately.
#[derive(Debug, Default)]
pub(super) struct Users(Mutex<HashMap<Subject, UserId>>);

impl Users {
    pub(super) fn get(&self, name: &Subject) -> Option<UserId> {
        self.lock().get(name).copied()
    }

    pub(super) fn put(&self, name: Subject, user: UserId) {
        let mut names = self.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(name, user);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, UserId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
