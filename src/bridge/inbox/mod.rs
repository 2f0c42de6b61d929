//! What a user sees of all conversations at once, and of one of them: the inbox, threads, and
//! what has changed since a client looked last.
//!
//! ```text
//!   inbox       one row for each conversation, with a version that only rises
//!   me/inbox    what changes of these rows: at most once, to whoever subscribes
//!   thread      messages with their changes applied
//!   reconcile   what of this does a client show wrong?
//! ```
//!
//! Nothing here is written when a message is stored. A client that missed a patch finds out by
//! `changed_since` or `reconcile`; nothing depends on a patch that arrives.

pub(in crate::bridge) mod bases;
mod page;
pub mod patches;
mod preview;
mod reconcile;
mod row;
mod thread;
mod walks;

pub use page::{InboxPage, InboxSettings, InboxWanted};
pub use reconcile::{Behind, Difference, Gap, GapReason, Hash, Held, HeldHash, Reconciled};
pub use row::{InboxRow, LastMessageShown, SettingsShown, Shows};
pub use thread::{HASH_ENTRIES_MAX, Thread, ThreadShown, ThreadWanted, Where};
pub(super) use walks::Walks;

use super::{
    Bridge,
    conversations::{Caller, ConversationError},
};
use crate::{domain::ids::ConversationId, store::thread::Readable};

/// The latest time there is, the end of the year 9999, in milliseconds since 1970.
const MILLIS_MAX: i64 = 253_402_300_799_999;

impl Bridge {
    /// What of a conversation the caller may read, also after having been removed.
    pub(super) async fn readable(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<Readable, ConversationError> {
        let mut conn = self.pool().acquire().await?;
        let found = crate::store::thread::readable(&mut conn, caller.user, &[conversation]).await?;
        match found.as_slice() {
            [(_, readable)] => Ok(*readable),
            _ => Err(ConversationError::NotFound),
        }
    }
}

fn invalid(reason: impl Into<String>) -> ConversationError {
    ConversationError::Invalid(reason.into())
}

pub(super) fn check_millis(name: &str, millis: i64) -> Result<i64, ConversationError> {
    if (0..=MILLIS_MAX).contains(&millis) {
        Ok(millis)
    } else {
        Err(invalid(format!(
            "`{name}` is a time in milliseconds since 1970, as 1766400600000"
        )))
    }
}
