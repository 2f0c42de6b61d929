//! The JSON of what travels.
//!
//! ```text
//!   → c/{cid}/send      {"id": "0198f3c2", "type": "text", "body": "on my way", "reply_to": 41}
//!   ← c/{cid}/messages  {"seq": 42, "id": "0198f3c2", "from": "alice", "at": 1766400000123,
//!                        "type": "text", "body": "on my way", "reply_to": 41}
//! ```
//!
//! `body` is the application's: it is copied as it is, never opened. What is no JSON travels
//! in its place as `"bytes": "<base64>"`. Members that this version does not know are kept
//! and delivered.
//!
//! Three types change an earlier message, which `ref` names. They are entries of the log
//! that nobody counts as unread:
//!
//! ```text
//!   {"id": …, "type": "edit", "ref": 41, "body": …}       the newest one counts
//!   {"id": …, "type": "retract", "ref": 41}                the message and its edits are erased
//!   {"id": …, "type": "reaction", "ref": 41, "body": {"key": "👍"}}   or with "remove": true
//! ```
//!
//! What was retracted, or has expired, has nothing but its place in the log:
//!
//! ```text
//!   {"seq": 41, "id": "0198f3c1", "from": "bob", "at": 1766400000099, "type": "text", "retracted": true}
//! ```
//!
//! Some of the kept members mean something to the server, and are checked:
//!
//! ```text
//!   "urgent": true             wakes also in quiet hours
//!   "mentions": ["bob"]        these users are told although they muted the conversation
//!   "expires_at": 1766400600000  the content is erased then, in milliseconds since 1970
//!   "attachments": [{"id": "f1", "size": 81234, "content_type": "image/jpeg"}]
//!                              files that lie elsewhere; also "name", "url", "sha256" (hex)
//! ```

mod members;
mod reading;
#[cfg(test)]
mod tests;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;

use super::{
    ids::{ClientMessageId, ConversationId, Subject},
    message::{Content, Format, Sequence},
};

pub use members::{EXPIRES_AT_MAX, REACTION_KEY_BYTES_MAX};
pub use reading::{EnvelopeError, KIND_BYTES_MAX, SERVER_MEMBERS};

/// The `type` of a message that names none.
pub const KIND_TEXT: &str = "text";
/// The `type` of an entry with new content for a message.
pub const KIND_EDIT: &str = "edit";
/// The `type` of an entry that takes a message back.
pub const KIND_RETRACT: &str = "retract";
/// The `type` of an entry that says how somebody reacts to a message.
pub const KIND_REACTION: &str = "reaction";
/// The `type` of the entries that the server writes when participants come and go.
pub const KIND_MEMBERSHIP: &str = "homing.membership";

/// How large a message may be.
#[derive(Clone, Copy, Debug)]
pub struct ContentLimits {
    /// The whole payload.
    pub bytes_max: usize,
    /// Users that one message mentions.
    pub mentions_max: usize,
    /// Files that one message refers to.
    pub attachments_max: usize,
}

/// What the server adds to a message when it stores it.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    pub sequence: Sequence,
    pub from: &'a Subject,
    /// When it was stored, in milliseconds since 1970.
    pub at_millis: i64,
}

/// Why an entry has no content any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Retracted,
    Expired,
}

/// The payload of `c/{cid}/messages` for one entry of the log.
#[must_use]
pub fn entry_json(stamp: Stamp<'_>, content: &Content) -> Bytes {
    let mut json = Vec::with_capacity(content.size() + 128);
    write_beginning(&mut json, stamp, &content.id, &content.kind);
    match content.format {
        Format::Json if content.body.is_empty() => {}
        Format::Json => {
            json.extend_from_slice(b",\"body\":");
            json.extend_from_slice(&content.body);
        }
        Format::Bytes => {
            json.extend_from_slice(b",\"bytes\":\"");
            json.extend_from_slice(STANDARD.encode(&content.body).as_bytes());
            json.push(b'"');
        }
    }
    if let Some(target) = content.target {
        json.extend_from_slice(b",\"ref\":");
        write_json(&mut json, &target);
    }
    if let Some(reply_to) = content.reply_to {
        json.extend_from_slice(b",\"reply_to\":");
        write_json(&mut json, &reply_to);
    }
    match content.extra.strip_prefix(b"{") {
        Some(rest) => {
            json.push(b',');
            json.extend_from_slice(rest);
        }
        None => json.push(b'}'),
    }
    json.into()
}

/// The payload of `c/{cid}/messages` for an entry without content.
#[must_use]
pub fn tombstone_json(stamp: Stamp<'_>, id: &ClientMessageId, kind: &str, gone: Gone) -> Bytes {
    let mut json = Vec::with_capacity(192);
    write_beginning(&mut json, stamp, id, kind);
    json.extend_from_slice(match gone {
        Gone::Retracted => b",\"retracted\":true}",
        Gone::Expired => b",\"expired\":true}",
    });
    json.into()
}

fn write_beginning(json: &mut Vec<u8>, stamp: Stamp<'_>, id: &ClientMessageId, kind: &str) {
    json.extend_from_slice(b"{\"seq\":");
    write_json(json, &stamp.sequence);
    json.extend_from_slice(b",\"id\":");
    write_json(json, id);
    json.extend_from_slice(b",\"from\":");
    write_json(json, &stamp.from);
    json.extend_from_slice(b",\"at\":");
    write_json(json, &stamp.at_millis);
    json.extend_from_slice(b",\"type\":");
    write_json(json, &kind);
}

fn write_json<T: Serialize>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("numbers and strings are always valid JSON");
}

/// What a device gets in place of an entry that is larger than its Maximum Packet Size.
#[must_use]
pub fn stub_json(conversation: ConversationId, sequence: Sequence) -> Bytes {
    let after = sequence.get() - 1;
    let href = format!("/v1/conversations/{conversation}/messages?after={after}&limit=1");
    let stub = serde_json::json!({ "seq": sequence, "too_large": true, "href": href });
    stub.to_string().into()
}

/// Something that concerns one device alone, on `me/device`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DeviceEvent {
    /// A publish was refused for good; MQTT 3.1.1 has no other way to say so.
    Refused {
        topic: String,
        id: Option<String>,
        code: u8,
        reason: String,
    },
    /// Entries of a conversation are not delivered, for they cannot be read (any more).
    Gap {
        conversation: ConversationId,
        from: i64,
        to: i64,
    },
    /// The token ends soon: connect again with a new one.
    TokenExpires { in_seconds: u64 },
    /// The device was signed out: its connection ends, and it needs a new token.
    SignedOut,
}

impl DeviceEvent {
    /// The payload of `me/device`.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let mut json = Vec::new();
        write_json(&mut json, self);
        json.into()
    }
}
