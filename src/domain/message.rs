//! Messages: what a sender hands over, and what the log holds.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    cbor::{self, Document},
    envelope::KIND_REACTION,
    ids::{ClientMessageId, ConversationId, DeviceId, Subject, UserId},
};

/// The place of an entry in its conversation: 1, 2, 3, … without gaps.
///
/// A sequence is assigned once, when the entry is stored, and never changes.
/// Sequences of different conversations must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Sequence(i64);

/// A number that cannot be a [`Sequence`] because it is below 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sequence starts at 1, got {0}")]
pub struct InvalidSequence(pub i64);

impl Sequence {
    /// The sequence of the first entry of every conversation.
    pub const FIRST: Self = Self(1);

    /// Reads a stored or received number.
    ///
    /// # Errors
    ///
    /// [`InvalidSequence`] if `number` is below 1.
    pub const fn new(number: i64) -> Result<Self, InvalidSequence> {
        if number < 1 {
            return Err(InvalidSequence(number));
        }
        Ok(Self(number))
    }

    /// The number to store or to send.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Sequence {
    type Error = InvalidSequence;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        Self::new(number)
    }
}

impl From<Sequence> for i64 {
    fn from(sequence: Sequence) -> Self {
        sequence.0
    }
}

/// A place in the log: a conversation and a sequence in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub conversation: ConversationId,
    pub sequence: Sequence,
}

/// What a sender wants stored. Nothing in it orders anything: the server does.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub conversation: ConversationId,
    pub sender: UserId,
    pub sender_name: Subject,
    /// The device that published it; none if it came over REST.
    pub sender_device: Option<DeviceId>,
    pub content: Content,
}

/// The part of a message that its sender writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub id: ClientMessageId,
    /// `text`, or what the application defines; at most 64 bytes.
    pub kind: String,
    pub format: Format,
    /// The value of `body`, as JSON text, exactly as it was sent, or the bytes themselves.
    /// Empty JSON is none: a retraction has no body.
    pub body: Bytes,
    /// The message that this one answers.
    pub reply_to: Option<Sequence>,
    /// The message that this entry changes: an edit, a retraction or a reaction.
    pub target: Option<Sequence>,
    /// Members of the envelope that need no column, as the JSON text of an object; empty if
    /// there are none.
    pub extra: Bytes,
    /// Whom it mentions; they stand in `extra` too. None says nothing about it, which leaves
    /// those of an edited message as they are.
    pub mentions: Option<Vec<Subject>>,
    /// When its content is to be erased, in milliseconds since 1970; it stands in `extra` too.
    pub expires_at_millis: Option<i64>,
}

/// The body of a reaction. There is one of each user and key for a message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    pub key: String,
    /// It is taken back.
    #[serde(default, rename = "remove")]
    pub is_removed: bool,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// As it is, such as a ciphertext; base64 where it travels as JSON.
    Bytes,
}

impl Content {
    /// A message with a JSON body and nothing else.
    #[must_use]
    pub fn new(id: ClientMessageId, kind: &str, body: impl Into<Bytes>) -> Self {
        Self {
            id,
            kind: kind.to_owned(),
            format: Format::Json,
            body: body.into(),
            reply_to: None,
            target: None,
            extra: Bytes::new(),
            mentions: None,
            expires_at_millis: None,
        }
    }

    /// Whether it changes an earlier message, and is none itself.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.target.is_some()
    }

    /// What a reaction says; none if this is no reaction.
    #[must_use]
    pub fn reaction(&self) -> Option<Reaction> {
        (self.kind == KIND_REACTION && self.is_change())
            .then(|| serde_json::from_slice(&self.body).ok())
            .flatten()
    }

    /// What the message counts against limits and batches, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.id.as_str().len() + self.kind.len() + self.body.len() + self.extra.len()
    }
}

/// One entry of the log, ready to travel: its payload is encoded once and shared.
#[derive(Debug)]
pub struct LogEntry {
    pub position: Position,
    /// The device that published it, for subscriptions with the No Local option.
    pub sender_device: Option<DeviceId>,
    /// The JSON of `c/{cid}/messages`, the same over MQTT and REST.
    pub payload: Bytes,
    /// When this process committed it; none if it was read from the log.
    pub committed_at: Option<Instant>,
    /// The same as CBOR, once somebody wants it.
    cbor: OnceLock<Bytes>,
}

impl LogEntry {
    /// `payload` is its JSON.
    #[must_use]
    pub const fn new(position: Position, sender_device: Option<DeviceId>, payload: Bytes) -> Self {
        let cbor = OnceLock::new();
        Self {
            position,
            sender_device,
            payload,
            committed_at: None,
            cbor,
        }
    }

    /// Says that this process has just committed it.
    #[must_use]
    pub fn committed(mut self, at: Instant) -> Self {
        self.committed_at = Some(at);
        self
    }

    /// The payload as CBOR, encoded for the first of those that receive it so.
    pub fn cbor(&self) -> &Bytes {
        let encode = || cbor::from_json(&self.payload, Document::Entry).into();
        self.cbor.get_or_init(encode)
    }
}

/// The CBOR follows from the rest, and the moment is none of the entry's.
impl PartialEq for LogEntry {
    fn eq(&self, other: &Self) -> bool {
        (self.position, self.sender_device, &self.payload)
            == (other.position, other.sender_device, &other.payload)
    }
}

impl Eq for LogEntry {}

/// Entries are shared between all receivers.
pub type SharedEntry = Arc<LogEntry>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_starts_at_one() {
        assert_eq!(Sequence::new(1), Ok(Sequence::FIRST));
        assert_eq!(Sequence::new(0), Err(InvalidSequence(0)));
        assert!(serde_json::from_str::<Sequence>("-3").is_err());
    }
}
