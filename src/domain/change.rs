//! What the server writes into the log when a conversation itself changes.
//!
//! ```text
//!   homing.membership    {"change": "added", "user": "bob", "role": "member"}
//!                        {"change": "added", "users": ["bob", "carol"], "role": "member"}
//!                        {"change": "removed", "user": "bob"}
//!                        {"change": "role", "user": "bob", "role": "admin"}
//!                        {"change": "silenced", "user": "bob", "until": 1766400000123}
//!                        {"change": "transferred", "from": ["bob"], "to": ["carol"], "note": "…"}
//!   homing.conversation  {"change": "renamed", "title": "Us"}
//!                        {"change": "archived"}, {"change": "unarchived"}
//!                        {"change": "settings", "receipts": false, "history_depth": null}
//! ```

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::ids::Subject;

/// The `type` of the entries that say how the conversation itself changed.
pub const KIND_CONVERSATION: &str = "homing.conversation";
/// The end of the year 9999, in milliseconds since 1970: the database can write it.
pub const MILLIS_MAX: i64 = 253_402_300_799_999;
const FOREVER: &str = "forever";

/// When something ends; in JSON milliseconds since 1970, or `"forever"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Millis(i64),
    Forever,
}

impl Serialize for Until {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Millis(millis) => serializer.serialize_i64(*millis),
            Self::Forever => serializer.serialize_str(FOREVER),
        }
    }
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Millis(i64),
            Word(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Millis(millis)) if (0..=MILLIS_MAX).contains(&millis) => {
                Ok(Self::Millis(millis))
            }
            Ok(Written::Word(word)) if word == FOREVER => Ok(Self::Forever),
            _ => Err(D::Error::custom(
                "the end is milliseconds since 1970, before the year 10000, \"forever\" or null",
            )),
        }
    }
}

/// One user or several.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who<'a> {
    User(&'a Subject),
    Users(&'a [&'a Subject]),
}

/// The body of the entry that says how the participants changed.
#[derive(Debug, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Membership<'a> {
    Added {
        #[serde(flatten)]
        who: Who<'a>,
        role: &'a str,
    },
    Removed {
        user: &'a Subject,
    },
    Role {
        user: &'a Subject,
        role: &'a str,
    },
    Silenced {
        user: &'a Subject,
        until: Option<Until>,
    },
    Transferred {
        from: &'a [&'a Subject],
        to: &'a [&'a Subject],
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'a str>,
    },
}

/// The body of the entry that says how the conversation itself changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ConversationNotice {
    Renamed { title: Option<String> },
    Archived,
    Unarchived,
    Settings(SettingsNotice),
}

/// What changed: a member that is absent stayed as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SettingsNotice {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_depth: Option<Option<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<Option<i64>>,
}

impl SettingsNotice {
    /// The entry that says it best; none if nothing changed.
    #[must_use]
    pub fn notice(self) -> Option<ConversationNotice> {
        let nothing = Self::default();
        if self == nothing {
            return None;
        }
        let others = |title, archived| Self {
            title,
            archived,
            ..nothing.clone()
        };
        Some(match (self.title.clone(), self.archived) {
            (Some(title), None) if self == others(Some(title.clone()), None) => {
                ConversationNotice::Renamed { title }
            }
            (None, Some(true)) if self == others(None, Some(true)) => ConversationNotice::Archived,
            (None, Some(false)) if self == others(None, Some(false)) => {
                ConversationNotice::Unarchived
            }
            _ => ConversationNotice::Settings(self),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn an_entry_names_what_changed_and_nothing_else() {
        let bob = Subject::new("bob").unwrap();
        let carol = Subject::new("carol").unwrap();
        let (both, bobs) = ([&bob, &carol], [&bob]);
        for (notice, expected) in [
            (
                Membership::Added {
                    who: Who::User(&bob),
                    role: "member",
                },
                json!({"change": "added", "user": "bob", "role": "member"}),
            ),
            (
                Membership::Added {
                    who: Who::Users(&both),
                    role: "member",
                },
                json!({"change": "added", "users": ["bob", "carol"], "role": "member"}),
            ),
            (
                Membership::Silenced {
                    user: &bob,
                    until: Some(Until::Forever),
                },
                json!({"change": "silenced", "user": "bob", "until": "forever"}),
            ),
            (
                Membership::Transferred {
                    from: &bobs,
                    to: &both,
                    note: None,
                },
                json!({"change": "transferred", "from": ["bob"], "to": ["bob", "carol"]}),
            ),
        ] {
            assert_eq!(to_value(&notice).unwrap(), expected);
        }
    }

    #[test]
    fn one_change_has_a_name_of_its_own_and_several_are_settings() {
        let nothing = SettingsNotice::default;
        assert_eq!(nothing().notice(), None);
        for (changed, expected) in [
            (
                SettingsNotice {
                    title: Some(None),
                    ..nothing()
                },
                json!({"change": "renamed", "title": null}),
            ),
            (
                SettingsNotice {
                    archived: Some(true),
                    ..nothing()
                },
                json!({"change": "archived"}),
            ),
            (
                SettingsNotice {
                    archived: Some(false),
                    ..nothing()
                },
                json!({"change": "unarchived"}),
            ),
            (
                SettingsNotice {
                    title: Some(Some("Us".to_owned())),
                    history_depth: Some(None),
                    ..nothing()
                },
                json!({"change": "settings", "title": "Us", "history_depth": null}),
            ),
        ] {
            assert_eq!(to_value(changed.notice().unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn an_end_is_a_time_or_for_ever() {
        let read = |json| serde_json::from_value::<Option<Until>>(json);
        assert_eq!(read(json!(5)).unwrap(), Some(Until::Millis(5)));
        assert_eq!(read(json!("forever")).unwrap(), Some(Until::Forever));
        assert_eq!(read(json!(null)).unwrap(), None);
        for wrong in [json!(-1), json!("never"), json!(1.5), json!(MILLIS_MAX + 1)] {
            assert!(read(wrong).is_err());
        }
    }
}
