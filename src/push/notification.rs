//! A notification, before a provider's client gives it a form, and what became of it.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::{ids::ConversationId, message::Sequence};

/// What is to be shown, or done silently, on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Stays the same when the notification is sent again (`apns-id`).
    pub id: Uuid,
    pub purpose: Purpose,
    /// Unread messages of the user; none leaves the number on the icon alone.
    pub badge: Option<i64>,
    /// When the provider may give up, in seconds since 1970.
    pub expires_at_unix: i64,
}

/// What it is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    Wake(Wake),
    /// Messages have been read elsewhere: remove what is shown of these conversations, up to
    /// these sequences. At most 20.
    Clear(Vec<(ConversationId, Sequence)>),
}

/// There is something new in a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Wake {
    pub class: Class,
    pub conversation: ConversationId,
    /// The newest message it tells of.
    pub sequence: Sequence,
    /// Breaks through what quiets the device (`interruption-level: time-sensitive`).
    pub is_urgent: bool,
    pub text: Text,
    /// The name of a sound in the app, or `default`; empty for none.
    pub sound: String,
}

/// How a device is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Alert,
    Background,
    Voip,
}

impl Class {
    /// As apps read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Background => "background",
            Self::Voip => "voip",
        }
    }
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// A key of the app's own texts; providers that cannot look it up send `generic`.
    pub loc_key: Option<String>,
    /// In the language of the device.
    pub generic: String,
    /// Only if the deployment turns previews on, and never of ciphertext.
    pub preview: Option<Preview>,
}

/// What a preview shows. It is shortened until the payload fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    pub title: String,
    pub body: String,
}

/// Where a device is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// APNs and FCM: the token. Web Push: the endpoint.
    pub token: String,
    /// APNs: the token of PushKit; [`Class::Voip`] is sent as an alert without it.
    pub voip_token: Option<String>,
    /// Web Push: `p256dh` and `auth` of the subscription, base64url.
    pub keys: Option<(String, String)>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address(secret)")
    }
}

/// What a provider said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took the notification.
    Accepted,
    /// 429, 5xx, no answer, a broken connection: later, after `after` if the provider named it.
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// The token will not work again. `since_millis`: since when, if the provider says so.
    Dead {
        reason: String,
        since_millis: Option<i64>,
    },
    /// The token does not fit the app or the environment: one such token is dead, many at
    /// once are a fault of the configuration.
    Mismatched { reason: String },
    /// The provider refuses the notification, or us; it is not sent again.
    Dropped { reason: String },
}
