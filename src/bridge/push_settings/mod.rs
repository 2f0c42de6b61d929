//! What users set about being woken: where their devices are reached, which conversations are
//! muted, and when it is quiet. And what became of it.
//!
//! What is read and answered here has one form in JSON, whichever edge it comes through.

mod explain;
mod notifications;
mod quiet_hours;
mod registration;
mod tokens;

pub use explain::{DecisionReport, DeviceReport, PushReport, WaitingReport};
pub use notifications::{Muted, NotificationSettings, NotificationSettingsChange};
pub use quiet_hours::{InvalidTime, QuietTimes, TimeOfDay};
pub use registration::{Apps, InvalidRegistration, Registration};
pub use tokens::{DeviceSummary, TOKENS_MAX, TokenSummary};

use super::{Bridge, conversations::Caller};
use crate::{domain::problem::ProblemKind, store::StoreError};

/// The longest MQTT client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// Why a setting is not kept, or cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PushSettingsError {
    #[error(transparent)]
    Registration(#[from] InvalidRegistration),
    #[error("a device's name has 1 to {CLIENT_ID_BYTES_MAX} bytes without control characters")]
    InvalidClientId,
    #[error("this device has no push token")]
    NoToken,
    #[error(
        "{TOKENS_MAX} of your devices have a push token, more are not allowed; remove one (GET /v1/devices, DELETE /v1/devices/{{client_id}}/push-token)"
    )]
    TooManyTokens,
    /// There is none, or none that the caller takes part in.
    #[error("there is no such conversation among yours")]
    NoConversation,
    #[error("the user has never taken part in this conversation")]
    NoParticipant,
    #[error("there is no such message that you may see")]
    NoMessage,
    #[error("only an administrator asks about the devices of others")]
    NotYours,
    #[error("`muted_until` is milliseconds since 1970, before the year 10000")]
    InvalidMute,
    #[error("`from` and `until` are the same time; to hear nothing at all, mute conversations")]
    NoHours,
    #[error("there is no time zone `{0}`; write it as in `Europe/Berlin`")]
    UnknownZone(String),
    #[error("store")]
    Store(#[from] StoreError),
}

impl PushSettingsError {
    /// The kind of problem that it is for whoever asks.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        match self {
            Self::Registration(_)
            | Self::InvalidClientId
            | Self::InvalidMute
            | Self::NoHours
            | Self::UnknownZone(_) => ProblemKind::Invalid,
            Self::NoToken | Self::NoConversation | Self::NoParticipant | Self::NoMessage => {
                ProblemKind::NotFound
            }
            Self::NotYours => ProblemKind::Forbidden,
            Self::TooManyTokens => ProblemKind::Full,
            Self::Store(error) if error.is_transient() => ProblemKind::Unavailable,
            Self::Store(_) => ProblemKind::Internal,
        }
    }
}

impl From<sqlx::Error> for PushSettingsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
