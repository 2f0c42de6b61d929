//! Changes on a condition: of two that are based on the same state, one is made.
//!
//! ```text
//!   a user's changes, whichever way they come ──▶ together ─────────────────────▶ change
//!   a change on a condition ──▶ alone among them ──▶ look, judge ───────────────▶ change
//!                                 of a conversation: ──▶ its lock ──▶ look, judge ──┘
//! ```
//!
//! What belongs to one user (settings, quiet hours, push tokens, rows of the inbox) is changed by
//! that user alone, so it is enough that the user's changes wait for each other. A conversation is
//! changed by many: there the condition is judged once more, under the lock of the conversation.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::domain::ids::UserId;

/// Users share this many turns: who shares one waits for the other's change on a condition.
const TURNS: usize = 256;

type Holds = dyn Fn(Option<&str>) -> bool + Send + Sync;

/// What has to be there for a change to be made.
#[derive(Clone)]
pub struct Condition(Arc<Holds>);

/// Something else is there than what a change is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is there is not what the request is based on; read it again first")]
pub(super) struct NotMet;

impl Condition {
    /// Judged by what GET answers; nothing if it finds nothing.
    pub fn new(holds: impl Fn(Option<&str>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    pub(super) fn check(&self, present: Option<&str>) -> Result<(), NotMet> {
        if (self.0)(present) {
            Ok(())
        } else {
            Err(NotMet)
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

/// Whose changes are under way.
#[derive(Debug)]
pub(super) struct Turns {
    locks: Box<[RwLock<()>]>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            locks: (0..TURNS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// For a change without a condition: any number at the same time.
    pub(super) async fn together(&self, user: UserId) -> RwLockReadGuard<'_, ()> {
        self.of(user).read().await
    }

    /// For a change on a condition: no other change of the user meanwhile.
    pub(super) async fn alone(&self, user: UserId) -> RwLockWriteGuard<'_, ()> {
        self.of(user).write().await
    }

    fn of(&self, user: UserId) -> &RwLock<()> {
        let hash = self.hasher.hash_one(user);
        let place = usize::try_from(hash % self.locks.len() as u64).unwrap_or(0);
        &self.locks[place]
    }
}
