//! Muted conversations.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Bridge, Caller, PushSettingsError};
use crate::{
    domain::ids::ConversationId,
    store::push::settings::{self, Mute, Notifications, NotificationsChange},
};

/// The end of the year 9999, in milliseconds since 1970: the database can write it.
const MILLIS_MAX: i64 = 253_402_300_799_999;
const FOREVER: &str = "forever";

/// Until when a conversation is muted; in JSON milliseconds since 1970, or `"forever"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muted {
    Until(i64),
    Forever,
}

/// What a participant wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NotificationSettings {
    /// None if it is not muted now.
    pub muted_until: Option<Muted>,
    /// Whether a message that names the user is pushed all the same.
    pub mentions: bool,
}

/// What to change: a member that is absent stays as it is, null is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationSettingsChange {
    #[serde(default, deserialize_with = "present")]
    pub muted_until: Option<Option<Muted>>,
    #[serde(default, deserialize_with = "present")]
    pub mentions: Option<Option<bool>>,
}

impl Serialize for Muted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Until(millis) => serializer.serialize_i64(*millis),
            Self::Forever => serializer.serialize_str(FOREVER),
        }
    }
}

impl<'de> Deserialize<'de> for Muted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Millis(i64),
            Word(String),
        }
        let wanted = "`muted_until` is milliseconds since 1970, \"forever\" or null";
        match Written::deserialize(deserializer) {
            Ok(Written::Millis(millis)) => Ok(Self::Until(millis)),
            Ok(Written::Word(word)) if word == FOREVER => Ok(Self::Forever),
            _ => Err(D::Error::custom(wanted)),
        }
    }
}

/// Tells null from absent.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl From<Notifications> for NotificationSettings {
    fn from(stored: Notifications) -> Self {
        Self {
            muted_until: stored.mute.map(|mute| match mute {
                Mute::Until(millis) => Muted::Until(millis),
                Mute::Forever => Muted::Forever,
            }),
            mentions: stored.mentions_break_mute,
        }
    }
}

impl NotificationSettingsChange {
    pub(in crate::bridge) fn checked(self) -> Result<NotificationsChange, PushSettingsError> {
        let mute = |muted| match muted {
            Muted::Until(millis) if !(0..=MILLIS_MAX).contains(&millis) => {
                Err(PushSettingsError::InvalidMute)
            }
            Muted::Until(millis) => Ok(Mute::Until(millis)),
            Muted::Forever => Ok(Mute::Forever),
        };
        Ok(NotificationsChange {
            mute: match self.muted_until {
                None => None,
                Some(muted) => Some(muted.map(mute).transpose()?),
            },
            mentions_break_mute: self.mentions.map(|mentions| mentions.unwrap_or(true)),
        })
    }
}

impl Bridge {
    /// What the caller, who takes part, wants to be woken for.
    pub async fn notifications(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<NotificationSettings, PushSettingsError> {
        let mut conn = self.pool().acquire().await?;
        let stored = settings::notifications(&mut conn, conversation, caller.user).await?;
        stored
            .map(Into::into)
            .ok_or(PushSettingsError::NoConversation)
    }

    /// Changes it, and answers what holds now.
    pub async fn set_notifications(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        change: NotificationSettingsChange,
    ) -> Result<NotificationSettings, PushSettingsError> {
        let change = change.checked()?;
        let mut conn = self.pool().acquire().await?;
        let set = settings::set_notifications(&mut conn, conversation, caller.user, change);
        let now = set.await?.ok_or(PushSettingsError::NoConversation)?;
        self.commits().inbox_changed(caller.user, conversation);
        Ok(now.into())
    }
}
