//! What travels, as a device sees it: the envelope it sends and the entries it receives.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::{
    ids::{ClientMessageId, ConversationId, Subject},
    message::{Content, Format, Position, Sequence},
};

/// Something that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry of a conversation's log; to be acknowledged.
    Entry(Entry),
    /// `c/{cid}/receipts`: how far participants have got, as JSON.
    Receipt {
        conversation: ConversationId,
        payload: Bytes,
    },
    /// `me/device`: refusals and warnings for this device, as JSON.
    Device { payload: Bytes },
}

/// One entry of a conversation's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    /// The packet that the acknowledgement names; 0 if none is wanted.
    pub(super) packet_id: u16,
    /// The JSON as it arrived.
    pub payload: Bytes,
    pub text: EntryText,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryText {
    /// A message, or a notice of the server about participants.
    Message {
        from: String,
        kind: String,
        /// The body as JSON text.
        body: String,
    },
    /// The message is larger than this device takes; it is to be fetched from this path.
    TooLarge { href: String },
}

/// A payload that is none of the server's; the text says what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{topic}: {reason}")]
pub struct Unreadable {
    topic: String,
    reason: String,
}

/// Reads what arrived on `topic`.
///
/// # Errors
///
/// [`Unreadable`] if the topic or the payload is not one of ours.
pub(super) fn read(topic: &str, payload: Bytes, packet_id: u16) -> Result<Event, Unreadable> {
    let unreadable = |reason: &str| Unreadable {
        topic: topic.to_owned(),
        reason: reason.to_owned(),
    };
    let levels: Vec<&str> = topic.split('/').collect();
    match levels[..] {
        ["me", "device"] => Ok(Event::Device { payload }),
        ["c", conversation, "receipts"] => {
            let conversation = conversation
                .parse()
                .map_err(|_| unreadable("no conversation"))?;
            Ok(Event::Receipt {
                conversation,
                payload,
            })
        }
        ["c", conversation, "messages"] => {
            let conversation = conversation
                .parse()
                .map_err(|_| unreadable("no conversation"))?;
            let (sequence, text) =
                read_entry(&payload).map_err(|error| unreadable(&error.to_string()))?;
            let position = Position {
                conversation,
                sequence,
            };
            Ok(Event::Entry(Entry {
                position,
                packet_id,
                payload,
                text,
            }))
        }
        _ => Err(unreadable("no topic of Homing")),
    }
}

#[derive(Deserialize)]
struct EntryJson<'a> {
    seq: Sequence,
    #[serde(default)]
    too_large: bool,
    #[serde(default, borrow)]
    href: Cow<'a, str>,
    from: Option<Subject>,
    #[serde(default, borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

fn read_entry(payload: &[u8]) -> Result<(Sequence, EntryText), serde_json::Error> {
    let json: EntryJson<'_> = serde_json::from_slice(payload)?;
    if json.too_large {
        return Ok((
            json.seq,
            EntryText::TooLarge {
                href: json.href.into_owned(),
            },
        ));
    }
    let text = EntryText::Message {
        from: json.from.map(|from| from.to_string()).unwrap_or_default(),
        kind: json.kind.into_owned(),
        body: json.body.map_or("null", RawValue::get).to_owned(),
    };
    Ok((json.seq, text))
}

#[derive(Serialize)]
struct ContentJson<'a> {
    id: &'a ClientMessageId,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Sequence>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "ref")]
    target: Option<Sequence>,
}

/// The payload of `c/{cid}/send`.
///
/// # Errors
///
/// If the body is not JSON.
pub(super) fn content_json(content: &Content) -> Result<Bytes, serde_json::Error> {
    let (body, bytes) = match content.format {
        Format::Json if content.body.is_empty() => (None, None),
        Format::Json => (Some(serde_json::from_slice(&content.body)?), None),
        Format::Bytes => (None, Some(STANDARD.encode(&content.body))),
    };
    let mut json = serde_json::to_vec(&ContentJson {
        id: &content.id,
        kind: &content.kind,
        body,
        bytes,
        reply_to: content.reply_to,
        target: content.target,
    })?;
    if let Some(rest) = content.extra.strip_prefix(b"{") {
        json.pop();
        json.push(b',');
        json.extend_from_slice(rest);
    }
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::{self, ContentLimits};

    const LIMITS: ContentLimits = ContentLimits {
        bytes_max: 1024,
        mentions_max: 1,
        attachments_max: 0,
    };

    const TOPIC: &str = "c/AZjzwgAAcACAAAAAAAAAAQ/messages";

    fn entry(payload: Bytes) -> Entry {
        match read(TOPIC, payload, 7).unwrap() {
            Event::Entry(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_server_reads_what_a_device_sends() {
        for sent in [
            r#"{"id":"1","type":"pic","body":{"a":[1.50,"x"]},"reply_to":41,"x":null}"#,
            r#"{"id":"1","bytes":"AP8Q","mentions":["bob"],"expires_at":7}"#,
            r#"{"id":"1","type":"edit","ref":41,"body":"hi","attachments":[]}"#,
            r#"{"id":"1","type":"retract","ref":41}"#,
            r#"{"id":"1","type":"reaction","ref":41,"body":{"key":"x"}}"#,
        ] {
            let content = Content::from_json(sent.as_bytes(), LIMITS).unwrap();
            let json = content_json(&content).unwrap();
            assert_eq!(Content::from_json(&json, LIMITS).unwrap(), content);
        }
    }

    #[test]
    fn a_body_that_is_no_json_is_not_sent() {
        let mut content = Content::from_json(br#"{"id":"1","body":1}"#, LIMITS).unwrap();
        content.body = Bytes::from_static(b"hello");
        assert!(content_json(&content).is_err());
    }

    #[test]
    fn a_device_reads_what_the_server_delivers() {
        let from = Subject::new("alice").unwrap();
        let stamp = envelope::Stamp {
            sequence: Sequence::FIRST,
            from: &from,
            at_millis: 5,
        };
        let content = Content::from_json(br#"{"id":"1","body":"hi"}"#, LIMITS).unwrap();
        let entry = entry(envelope::entry_json(stamp, &content));
        assert_eq!(entry.position.sequence, Sequence::FIRST);
        let (from, kind, body) = ("alice".to_owned(), "text".to_owned(), "\"hi\"".to_owned());
        assert_eq!(entry.text, EntryText::Message { from, kind, body });
    }

    #[test]
    fn a_stub_names_where_the_message_is() {
        let stub = envelope::stub_json("AZjzwgAAcACAAAAAAAAAAQ".parse().unwrap(), Sequence::FIRST);
        let EntryText::TooLarge { href } = entry(stub).text else {
            panic!("not a stub")
        };
        assert!(href.ends_with("/messages?after=0&limit=1"), "{href}");
    }

    #[test]
    fn what_is_not_ours_is_unreadable() {
        for (topic, payload) in [
            ("sensor/1", "{}"),
            ("c/x/messages", "{}"),
            (TOPIC, "{}"),
            (TOPIC, "{\"seq\":0}"),
        ] {
            assert!(
                read(topic, Bytes::from_static(payload.as_bytes()), 1).is_err(),
                "{topic}"
            );
        }
    }
}
