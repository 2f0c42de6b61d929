//! The members that have numbers. `docs/cbor.md` shows the same table, and a test compares them.
//!
//! Numbers are for ever: what is no longer sent keeps its number, what is new goes to the end.

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use uuid::{Uuid, fmt::Hyphenated};

use super::Document;
use crate::domain::ids::ConversationId;

/// What stands in a member, as far as the encoding must know. Of a list it is said of each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// The application's, or nothing that could be shorter.
    Plain,
    /// A text that may be a uuid of 36 characters: 16 bytes then.
    Uuid,
    /// A text that may be the 22 characters of a conversation id: 16 bytes then.
    Conversation,
    /// A type: a number if it is one of [`TYPES`].
    Type,
    /// The body of a message, or of an answer.
    Body,
    /// Objects of the server, whose members have numbers too.
    Members,
}

/// The types that have numbers, which are their places here.
pub(super) const TYPES: &[&str] = &[
    "text",
    "edit",
    "retract",
    "reaction",
    "homing.membership",
    "homing.conversation",
];

pub(super) const BODY: &str = "body";
/// A body of bytes, in JSON; it has no number but that of the body.
pub(super) const BYTES: &str = "bytes";

/// Names in the order of their numbers, from 1 on. Up to 23 a number takes one byte.
pub(super) const MEMBERS: &[(&str, Holds)] = &[
    ("seq", Holds::Plain),
    ("id", Holds::Uuid),
    ("from", Holds::Uuid),
    ("at", Holds::Plain),
    ("type", Holds::Type),
    (BODY, Holds::Body),
    ("reply_to", Holds::Plain),
    ("ref", Holds::Plain),
    ("reactions", Holds::Plain),
    ("version", Holds::Plain),
    ("mentions", Holds::Uuid),
    ("user", Holds::Uuid),
    ("delivered", Holds::Plain),
    ("read", Holds::Plain),
    ("conversation", Holds::Conversation),
    ("last_seq", Holds::Plain),
    ("last_message", Holds::Members),
    ("unread", Holds::Plain),
    ("typing", Holds::Plain),
    ("status", Holds::Plain),
    ("activity_at", Holds::Plain),
    ("correlation", Holds::Plain),
    ("event", Holds::Plain),
    ("operation", Holds::Plain),
    ("kind", Holds::Plain),
    ("title", Holds::Plain),
    ("with", Holds::Uuid),
    ("epoch", Holds::Plain),
    ("preview", Holds::Plain),
    ("role", Holds::Plain),
    ("muted_until", Holds::Plain),
    ("notify_mentions", Holds::Plain),
    ("pinned_at", Holds::Plain),
    ("archived", Holds::Plain),
    ("settings", Holds::Plain),
    ("removed", Holds::Plain),
    ("edited_at", Holds::Plain),
    ("retracted", Holds::Plain),
    ("expired", Holds::Plain),
    ("expires_at", Holds::Plain),
    ("urgent", Holds::Plain),
    ("attachments", Holds::Plain),
    ("too_large", Holds::Plain),
    ("href", Holds::Plain),
    ("counts", Holds::Members),
    ("of", Holds::Plain),
    ("first_seq", Holds::Plain),
    ("created_at", Holds::Plain),
    ("silenced_until", Holds::Plain),
    ("entries", Holds::Members),
    ("conversations", Holds::Members),
    ("participants", Holds::Members),
    ("devices", Holds::Members),
    ("changes", Holds::Members),
    ("next", Holds::Plain),
    ("next_after", Holds::Plain),
    ("next_before", Holds::Plain),
    ("after", Holds::Plain),
    ("before", Holds::Plain),
    ("limit", Holds::Plain),
    ("changed_since", Holds::Plain),
    ("users", Holds::Uuid),
    ("state", Holds::Plain),
    ("last_seen", Holds::Plain),
    ("topic", Holds::Plain),
    ("code", Holds::Plain),
    ("reason", Holds::Plain),
    ("in_seconds", Holds::Plain),
    ("detail", Holds::Plain),
    ("client_id", Holds::Plain),
    ("activity", Holds::Plain),
    ("connected", Holds::Plain),
    ("format", Holds::Plain),
    ("messages", Holds::Members),
    ("gap", Holds::Members),
    ("behind", Holds::Members),
    ("row", Holds::Members),
    ("to", Holds::Plain),
    ("as_of", Holds::Plain),
    ("next_changed_since", Holds::Plain),
    ("visible_from", Holds::Plain),
    ("since", Holds::Plain),
    ("hash", Holds::Members),
    ("value", Holds::Plain),
    ("more", Holds::Plain),
    ("mismatch", Holds::Plain),
    ("unknown", Holds::Plain),
    ("unanswered_from", Holds::Plain),
    ("receipts", Holds::Plain),
    ("history_depth", Holds::Plain),
    ("retention_seconds", Holds::Plain),
    ("archived_at", Holds::Plain),
    ("pinned", Holds::Plain),
    ("if_version", Holds::Plain),
    ("duplicate", Holds::Plain),
    ("expires_in", Holds::Plain),
    ("presence", Holds::Plain),
    ("until", Holds::Plain),
    ("joined", Holds::Plain),
    ("delivered_seq", Holds::Plain),
    ("read_seq", Holds::Plain),
    ("since_version", Holds::Plain),
];

static NUMBERS: LazyLock<HashMap<&str, (u8, Holds)>> = LazyLock::new(|| {
    let numbers = (1..).zip(MEMBERS);
    numbers
        .map(|(number, (name, holds))| (*name, (number, *holds)))
        .collect()
});

/// The number of a member and what it holds.
pub(super) fn by_name(name: &str) -> Option<(u8, Holds)> {
    NUMBERS.get(name).copied()
}

/// The member that has a number.
pub(super) fn by_number(number: u64) -> Option<(&'static str, Holds)> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    MEMBERS.get(place).copied()
}

impl Holds {
    /// Whether the objects here have members with numbers, and as what they are read.
    pub(super) fn document(self) -> Option<Document> {
        (self == Self::Members).then_some(Document::Entry)
    }

    /// A body is the application's, except in an answer.
    pub(super) fn within(self, document: Document) -> Self {
        match (self, document) {
            (Self::Body, Document::Answer) => Self::Members,
            (Self::Body, Document::Entry) => Self::Plain,
            (other, _) => other,
        }
    }

    /// The id that a text stands for, if it is spelled as it will be spelled again.
    pub(super) fn id_of(self, text: &str) -> Option<[u8; 16]> {
        match (self, text.len()) {
            (Self::Uuid, 36) => {
                let id = Uuid::try_parse(text).ok()?.into_bytes();
                (uuid_text(id).as_str() == text).then_some(id)
            }
            (Self::Conversation, 22) => Some(*text.parse::<ConversationId>().ok()?.0.as_bytes()),
            _ => None,
        }
    }

    /// The text of an id; none if there is no id here.
    pub(super) fn text_of(self, id: [u8; 16]) -> Option<String> {
        match self {
            Self::Uuid => Some(uuid_text(id)),
            Self::Conversation => Some(ConversationId(Uuid::from_bytes(id)).to_string()),
            _ => None,
        }
    }
}

fn uuid_text(id: [u8; 16]) -> String {
    let mut text = [0; Hyphenated::LENGTH];
    let hyphenated = Uuid::from_bytes(id).hyphenated();
    hyphenated.encode_lower(&mut text).to_owned()
}

/// The bytes of a body of bytes, if the text is what they give again.
pub(super) fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    // Refuses what is not canonical: wrong padding, and bits that say nothing.
    STANDARD.decode(value.as_str()?).ok()
}
