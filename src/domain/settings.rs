//! What users decide about themselves, wherever they take part.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// What others learn of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct UserSettings {
    /// Whether others are told how far the user has got.
    pub receipts: bool,
    /// Who may learn when the user was last connected.
    pub last_seen: LastSeen,
    /// Shown as absent to everybody, whatever the devices say.
    pub invisible: bool,
}

impl Default for UserSettings {
    fn default() -> Self {
        Self {
            receipts: true,
            last_seen: LastSeen::Contacts,
            invisible: false,
        }
    }
}

/// Who may learn when a user was last connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LastSeen {
    /// Those who share a conversation with the user.
    Contacts,
    Nobody,
}

impl LastSeen {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contacts => "contacts",
            Self::Nobody => "nobody",
        }
    }
}

/// A text that names no [`LastSeen`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is shown to `contacts` or to `nobody`, not to `{0}`")]
pub struct InvalidLastSeen(String);

impl FromStr for LastSeen {
    type Err = InvalidLastSeen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "contacts" => Ok(Self::Contacts),
            "nobody" => Ok(Self::Nobody),
            other => Err(InvalidLastSeen(other.to_owned())),
        }
    }
}

/// A change of settings: what is not named stays, null is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserSettingsChange {
    #[serde(default, deserialize_with = "named")]
    pub receipts: Option<Option<bool>>,
    #[serde(default, deserialize_with = "named")]
    pub last_seen: Option<Option<LastSeen>>,
    #[serde(default, deserialize_with = "named")]
    pub invisible: Option<Option<bool>>,
}

/// Tells null from absent.
fn named<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_not_absent() {
        let change: UserSettingsChange =
            serde_json::from_str(r#"{"receipts": null, "last_seen": "nobody"}"#).unwrap();
        let expected = UserSettingsChange {
            receipts: Some(None),
            last_seen: Some(Some(LastSeen::Nobody)),
            invisible: None,
        };
        assert_eq!(change, expected);
    }
}
