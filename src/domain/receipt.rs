//! Receipts: how far a participant has got, as positions that only rise.

use serde::{Deserialize, Serialize};

use super::{
    ids::{ConversationId, Subject},
    message::Sequence,
};

/// What a participant reports on `c/{cid}/receipts`: everything up to a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// Everything up to here has reached one of the user's devices.
    #[serde(default)]
    pub delivered: Option<Sequence>,
    /// Everything up to here has been read by the user.
    #[serde(default)]
    pub read: Option<Sequence>,
}

/// Where a participant stands; 0 is before the first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub user: Subject,
    pub delivered: i64,
    pub read: i64,
}

/// A participant's new standing, on its way to the other participants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub conversation: ConversationId,
    pub standing: Standing,
}
