//! Receipts: how far a participant has got, as positions that only rise.

use serde::{Deserialize, Serialize};

use super::{ids::Subject, message::Sequence};

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

impl Report {
    /// Reads the payload of `c/{cid}/receipts`: an object, though serde would take a list.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_json(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let members: serde_json::Map<_, _> = serde_json::from_slice(payload)?;
        serde_json::from_value(members.into())
    }
}

/// Where a participant stands; 0 is before the first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct Standing {
    pub user: Subject,
    pub delivered: i64,
    pub read: i64,
}

/// How many have got to the newest messages of an author, in a conversation too large to tell
/// of each participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Ascending.
    pub counts: Vec<Count>,
    /// How many others could see the newest of them.
    pub of: i64,
}

/// How many have got to one message. Who has receipts switched off counts as not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct Count {
    pub seq: i64,
    pub delivered: i64,
    pub read: i64,
    /// How many others could see this one, if that is not what [`Counts::of`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<i64>,
}
