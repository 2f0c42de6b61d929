//! What push notifications are addressed by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
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
    /// Reads the payload of `me/state`: a bare word, a JSON string, or `{"state": "away"}`.
    ///
    /// # Errors
    ///
    /// [`InvalidActivity`] if it is anything else.
    pub fn from_payload(payload: &[u8]) -> Result<Self, InvalidActivity> {
        let text = std::str::from_utf8(payload).map_err(|_| InvalidActivity)?;
        match serde_json::from_str(text) {
            Ok(Value::String(word)) => word.parse(),
            Ok(Value::Object(members)) => match members.get("state") {
                Some(Value::String(word)) => word.parse(),
                _ => Err(InvalidActivity),
            },
            Ok(_) => Err(InvalidActivity),
            Err(_) => text.trim().parse(),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_a_word_in_any_of_three_forms() {
        for payload in [
            "away",
            "away\n",
            "\"away\"",
            " \"away\" ",
            r#"{"state": "away"}"#,
        ] {
            let read = Activity::from_payload(payload.as_bytes());
            assert_eq!(read, Ok(Activity::Away), "{payload}");
        }
        for known in [Activity::Active, Activity::Background, Activity::Away] {
            assert_eq!(Activity::from_payload(known.as_str().as_bytes()), Ok(known));
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let payloads: [&[u8]; 10] = [
            b"",
            b"Away",
            b"asleep",
            b"null",
            b"7",
            b"[\"away\"]",
            b"{}",
            b"{\"state\":7}",
            b"\xff",
            b"{\"state\":\"x\"}",
        ];
        for payload in payloads {
            assert_eq!(
                Activity::from_payload(payload),
                Err(InvalidActivity),
                "{payload:?}"
            );
        }
    }
}
