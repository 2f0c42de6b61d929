//! Who and where: conversations, users, devices, and the id a sender gives a message.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The longest subject of a token, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 128;
/// The longest id a sender may give a message, in bytes.
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 64;

/// A conversation. On the wire: 22 characters of base64url, or the 36-character uuid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(pub Uuid);

/// A text that is no conversation id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a conversation id is a uuid, as 22 characters of base64url or in its 36-character form")]
pub struct InvalidConversationId;

impl ConversationId {
    /// A new id, ordered by time (uuid version 7).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 22];
        let length = URL_SAFE_NO_PAD
            .encode_slice(self.0.as_bytes(), &mut text)
            .map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for ConversationId {
    type Err = InvalidConversationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            22 => {
                let mut bytes = [0; 16];
                match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
                    Ok(16) => Ok(Self(Uuid::from_bytes(bytes))),
                    _ => Err(InvalidConversationId),
                }
            }
            36 => Uuid::try_parse(text)
                .map(Self)
                .map_err(|_| InvalidConversationId),
            _ => Err(InvalidConversationId),
        }
    }
}

impl Serialize for ConversationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConversationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A user inside the database: small, stable, never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub i64);

/// A device inside the database. On the wire a device is its MQTT client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub i64);

/// The name of a user: the `sub` of the token, and `from` in a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Subject(Arc<str>);

/// A text that cannot name a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user name has 1 to {SUBJECT_BYTES_MAX} bytes, without control characters and without + # /"
)]
pub struct InvalidSubject;

impl Subject {
    /// Reads a name from outside.
    ///
    /// # Errors
    ///
    /// [`InvalidSubject`] if it is empty, too long, or would not fit into a topic level.
    pub fn new(text: &str) -> Result<Self, InvalidSubject> {
        let fits = (1..=SUBJECT_BYTES_MAX).contains(&text.len());
        let is_plain = !text.contains(|c: char| c.is_control() || matches!(c, '+' | '#' | '/'));
        if fits && is_plain {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSubject)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The id a sender gives a message, so that a repeat can be recognised.
///
/// Unique for ever together with conversation and sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ClientMessageId(String);

/// A text that cannot be a message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message needs an `id` of 1 to {CLIENT_MESSAGE_ID_BYTES_MAX} bytes without control characters; keep it when you repeat the message"
)]
pub struct InvalidClientMessageId;

impl ClientMessageId {
    /// Reads an id from outside.
    ///
    /// # Errors
    ///
    /// [`InvalidClientMessageId`] if it is empty, too long or has control characters.
    pub fn new(text: String) -> Result<Self, InvalidClientMessageId> {
        let fits = (1..=CLIENT_MESSAGE_ID_BYTES_MAX).contains(&text.len());
        if fits && !text.contains(char::is_control) {
            Ok(Self(text))
        } else {
            Err(InvalidClientMessageId)
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_id_reads_both_of_its_forms() {
        let id = ConversationId::random();
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.0.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_is_no_conversation_id_is_refused() {
        for text in [
            "",
            "x",
            "../../../../etc/passwd",
            "0198f3c2",
            "ABCDEFGHIJKLMNOPQRSTU+",
        ] {
            assert_eq!(
                text.parse::<ConversationId>(),
                Err(InvalidConversationId),
                "{text}"
            );
        }
    }

    #[test]
    fn a_subject_fits_into_one_topic_level() {
        assert!(Subject::new("alice@example.org").is_ok());
        for text in [
            "",
            "a/b",
            "a+",
            "#",
            "a\0",
            &"x".repeat(SUBJECT_BYTES_MAX + 1),
        ] {
            assert_eq!(Subject::new(text), Err(InvalidSubject), "{text}");
        }
    }

    #[test]
    fn a_message_id_has_bounds() {
        assert!(ClientMessageId::new("1".into()).is_ok());
        assert!(ClientMessageId::new(String::new()).is_err());
        assert!(ClientMessageId::new("x".repeat(CLIENT_MESSAGE_ID_BYTES_MAX + 1)).is_err());
        assert!(ClientMessageId::new("a\n".into()).is_err());
    }
}
