//! Presence as it is written: answers, and what arrives on `me/presence`.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::board::Told;
use crate::domain::{ids::Subject, presence::Presence};

/// A [`Presence`], or that there is nothing to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Active,
    Background,
    Offline,
    Unknown,
}

/// Whether a user is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PresenceShown {
    pub user: Subject,
    /// `unknown`: there is no such user, or none whom the caller may see.
    pub presence: Word,
    /// When the last device went, in milliseconds since 1970; absent if the user is there, or
    /// if others may not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<i64>,
    /// For so many seconds changes arrive on me/presence; absent if they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

impl PresenceShown {
    pub(super) fn new(user: Subject, presence: Presence, expires_in: Option<u64>) -> Self {
        let (presence, last_seen) = match presence {
            Presence::Active => (Word::Active, None),
            Presence::Background => (Word::Background, None),
            Presence::Offline { last_seen_millis } => (Word::Offline, last_seen_millis),
        };
        Self {
            user,
            presence,
            last_seen,
            expires_in,
        }
    }

    pub(super) fn unknown(user: Subject) -> Self {
        Self {
            user,
            presence: Word::Unknown,
            last_seen: None,
            expires_in: None,
        }
    }

    /// What a device is told on `me/presence`.
    pub(super) fn payload<W>(told: Told<W>) -> (W, Bytes) {
        // A device that asks again in time is never without a lease.
        let seconds = told.expires_in.as_secs().max(1);
        let shown = Self::new(told.name, told.presence, Some(seconds));
        let payload = serde_json::to_vec(&shown).unwrap_or_default();
        (told.way, payload.into())
    }
}
