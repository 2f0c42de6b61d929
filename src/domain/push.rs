//! What push notifications are addressed by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Who carries a notification to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// RFC 8030, with VAPID (RFC 8292).
    WebPush,
}

impl Provider {
    /// As it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "webpush",
        }
    }
}

/// Which of Apple's two environments a token belongs to; the others have only `production`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    #[default]
    Production,
    Sandbox,
}

impl Environment {
    /// As it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }
}

/// The app whose credentials a notification needs, printed as `apns:com.example.chat:sandbox`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    pub provider: Provider,
    /// The bundle id, the Firebase project, or the name of the web app.
    pub app: String,
    pub environment: Environment,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            provider,
            app,
            environment,
        } = self;
        write!(f, "{}:{app}:{}", provider.as_str(), environment.as_str())
    }
}

/// What a device says of itself on `me/state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Somebody looks at it: the user's other devices wait longer before they are woken.
    #[default]
    Active,
    /// It is connected and acknowledges; nobody looks.
    Background,
    /// It will not answer for long: treat it as if it were not connected.
    Away,
}

/// A text that names no [`Activity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is `active`, `background` or `away`")]
pub struct InvalidActivity;

impl Activity {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Background => "background",
            Self::Away => "away",
        }
    }
}

impl FromStr for Activity {
    type Err = InvalidActivity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "active" => Ok(Self::Active),
            "background" => Ok(Self::Background),
            "away" => Ok(Self::Away),
            _ => Err(InvalidActivity),
        }
    }
}
