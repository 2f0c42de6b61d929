//! What a device keeps of its conversations, so that it shows the right thing at once.
//!
//! ```text
//!   c/{cid}/messages ─▶ Thread::entry      ┐
//!   q/thread, REST   ─▶ Thread::message    │  each piece may come twice, late, in any order, over
//!   me/inbox, q/…    ─▶ Inbox::apply       │  any channel: what is shown ends up the same
//!   own sends        ─▶ Outgoing::begin …  │
//!   own settings     ─▶ Inbox::expect …    ┘
//! ```
//!
//! No I/O and no clock: the application hands in what arrived, and asks what to show. Three rules
//! make it converge:
//!
//! * Pieces are recognised by what the server assigned, the sequence of an entry and the
//!   `version` of a row or a message; what is not newer changes nothing. The versions of rows
//!   are compared within an `epoch`: a higher one replaces what is known, a lower one is over.
//! * Pieces are merged: a member that is absent stays, null clears it, objects merge member by member.
//! * Nothing is counted here: unread messages and mentions are the server's word for a version.
//!
//! What expires does so by the clock of the application, which calls `hide_expired`; the server's word
//! follows, with a version of its own.

mod expected;
mod inbox;
mod outgoing;
mod thread;

pub use expected::Expected;
pub use inbox::{Inbox, Row};
pub use outgoing::{Asked, Outgoing, Sending, State};
pub use thread::{Gap, Thread};

use serde_json::Value;

pub use crate::domain::patch::Members;

/// What a piece did to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It shows now.
    Changed,
    /// It shows now, and all else that is held of the conversation may be wrong, since its log
    /// has begun a new epoch: drop the thread, and read it again.
    Anew,
    /// It was known, or is older than what is known.
    Stale,
    /// It builds on what is not held, or was too large to be sent whole: ask for the row
    /// (`q/inbox/row`), or for what [`Thread::gap`] says.
    Missed,
    /// It is none of the server's: a member is missing or of the wrong type.
    Unreadable,
}

fn number(members: &Members, name: &str) -> Option<i64> {
    members.get(name).and_then(Value::as_i64)
}

fn text<'a>(members: &'a Members, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

fn is_true(members: &Members, name: &str) -> bool {
    members.get(name) == Some(&Value::Bool(true))
}
