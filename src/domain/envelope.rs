//! The JSON of what travels.
//!
//! ```text
//!   → c/{cid}/send      {"id": "0198f3c2", "type": "text", "body": "on my way", "reply_to": 41}
//!   ← c/{cid}/messages  {"seq": 42, "id": "0198f3c2", "from": "alice", "at": 1766400000123,
//!                        "type": "text", "body": "on my way", "reply_to": 41}
//! ```
//!
//! `body` is the application's: it is copied as it is, never opened. Members that this
//! version does not know are kept and delivered.
//!
//! Three of the kept members steer the push notifications of a message, and are checked:
//!
//! ```text
//!   "urgent": true             wakes also in quiet hours
//!   "mentions": ["bob"]        these users are told although they muted the conversation
//!   "expires_at": 1766400600000  not worth a push after it, in milliseconds since 1970
//! ```

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use super::{
    ids::{ClientMessageId, ConversationId, Subject},
    message::{Content, Sequence},
};

/// The longest `type`, in bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// The `type` of a message that names none.
pub const KIND_TEXT: &str = "text";
/// The `type` of the entries that the server writes when participants come and go.
pub const KIND_MEMBERSHIP: &str = "homing.membership";
/// Types that begin so are the server's own.
const KIND_RESERVED_PREFIX: &str = "homing.";
/// The most users that one message mentions.
pub const MENTIONS_MAX: usize = 50;
/// The latest `expires_at`, the end of the year 9999, in milliseconds since 1970: what lies
/// beyond is no date in the store.
const EXPIRES_AT_MAX: i64 = 253_402_300_799_999;
/// Members that only the server sets; whoever sends them is told so.
const SERVER_MEMBERS: [&str; 3] = ["seq", "from", "at"];

/// A payload that is no message.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON, not an object, a member twice or of the wrong type, or a bad value.
    #[error("not a message: {0}; send {{\"id\": \"…\", \"type\": \"text\", \"body\": …}}")]
    Invalid(#[from] serde_json::Error),
    /// The body is larger than the configuration allows.
    #[error("the message has {bytes} bytes, {bytes_max} are allowed; send a reference instead")]
    TooLarge { bytes: usize, bytes_max: usize },
}

impl Content {
    /// Reads the payload of `c/{cid}/send`, of at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`], whose text says what a sender should do.
    pub fn from_json(payload: &[u8], bytes_max: usize) -> Result<Self, EnvelopeError> {
        if payload.len() > bytes_max {
            return Err(EnvelopeError::TooLarge {
                bytes: payload.len(),
                bytes_max,
            });
        }
        Ok(serde_json::from_slice(payload)?)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with `id` and `body`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let (mut id, mut kind, mut body, mut reply_to) = (None, None, None, None);
        let mut extra: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "id" => set(&mut id, "id", map.next_value::<String>()?)?,
                "type" => set(&mut kind, "type", map.next_value::<String>()?)?,
                "body" => set(&mut body, "body", map.next_value::<&RawValue>()?)?,
                "reply_to" => set(
                    &mut reply_to,
                    "reply_to",
                    map.next_value::<Option<Sequence>>()?,
                )?,
                name if SERVER_MEMBERS.contains(&name) => {
                    return Err(de::Error::custom(format!("`{name}` is set by the server")));
                }
                name if extra.iter().any(|(known, _)| known == name) => {
                    return Err(de::Error::custom(format!("`{name}` appears twice")));
                }
                name => {
                    let check = push_check(name);
                    let value: &RawValue = map.next_value()?;
                    check(value.get()).map_err(de::Error::custom)?;
                    extra.push((key, value));
                }
            }
        }
        let id = ClientMessageId::new(id.unwrap_or_default()).map_err(de::Error::custom)?;
        let kind = kind.unwrap_or_else(|| KIND_TEXT.to_owned());
        check_kind(&kind).map_err(de::Error::custom)?;
        let body = body.ok_or_else(|| de::Error::missing_field("body"))?;
        Ok(Content {
            id,
            kind,
            body: Bytes::copy_from_slice(body.get().as_bytes()),
            reply_to: reply_to.flatten(),
            extra: extra_object(&extra).map_err(de::Error::custom)?,
        })
    }
}

/// A key that needs no allocation unless it holds an escape.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn set<T, E: de::Error>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    if slot.replace(value).is_some() {
        return Err(E::duplicate_field(name));
    }
    Ok(())
}

fn check_kind(kind: &str) -> Result<(), &'static str> {
    if kind.is_empty() || kind.len() > KIND_BYTES_MAX || kind.contains(char::is_control) {
        return Err("`type` has 1 to 64 bytes without control characters");
    }
    if kind.starts_with(KIND_RESERVED_PREFIX) {
        return Err("types that begin with `homing.` are the server's");
    }
    Ok(())
}

/// What a member must be beside JSON; `null` stands for its absence.
fn push_check(name: &str) -> fn(&str) -> Result<(), &'static str> {
    match name {
        "urgent" => check_urgent,
        "mentions" => check_mentions,
        "expires_at" => check_expires_at,
        _ => |_| Ok(()),
    }
}

fn check_urgent(json: &str) -> Result<(), &'static str> {
    match serde_json::from_str::<Option<bool>>(json) {
        Ok(_) => Ok(()),
        Err(_) => Err("`urgent` is true or false"),
    }
}

fn check_mentions(json: &str) -> Result<(), &'static str> {
    match serde_json::from_str::<Option<Vec<Subject>>>(json) {
        Ok(mentions) if mentions.as_ref().map_or(0, Vec::len) <= MENTIONS_MAX => Ok(()),
        _ => Err("`mentions` is a list of at most 50 user names"),
    }
}

fn check_expires_at(json: &str) -> Result<(), &'static str> {
    match serde_json::from_str::<Option<i64>>(json) {
        Ok(None | Some(1..=EXPIRES_AT_MAX)) => Ok(()),
        _ => Err("`expires_at` is a time in milliseconds since 1970, as 1766400600000"),
    }
}

fn extra_object(extra: &[(Cow<'_, str>, &RawValue)]) -> Result<Bytes, serde_json::Error> {
    if extra.is_empty() {
        return Ok(Bytes::new());
    }
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let mut map = serde::Serializer::serialize_map(&mut serializer, Some(extra.len()))?;
    for (key, value) in extra {
        map.serialize_entry(key, value)?;
    }
    map.end()?;
    Ok(json.into())
}

/// What the server adds to a message when it stores it.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    pub sequence: Sequence,
    pub from: &'a Subject,
    /// When it was stored, in milliseconds since 1970.
    pub at_millis: i64,
}

/// The payload of `c/{cid}/messages` for one entry of the log.
#[must_use]
pub fn entry_json(stamp: Stamp<'_>, content: &Content) -> Bytes {
    let mut json = Vec::with_capacity(content.size() + 128);
    json.extend_from_slice(b"{\"seq\":");
    write_json(&mut json, &stamp.sequence);
    json.extend_from_slice(b",\"id\":");
    write_json(&mut json, &content.id);
    json.extend_from_slice(b",\"from\":");
    write_json(&mut json, &stamp.from);
    json.extend_from_slice(b",\"at\":");
    write_json(&mut json, &stamp.at_millis);
    json.extend_from_slice(b",\"type\":");
    write_json(&mut json, &content.kind);
    json.extend_from_slice(b",\"body\":");
    json.extend_from_slice(&content.body);
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
    /// The token ends soon: connect again with a new one.
    TokenExpires { in_seconds: u64 },
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Content, EnvelopeError> {
        Content::from_json(json.as_bytes(), 1024)
    }

    fn stored(content: &Content) -> serde_json::Value {
        let from = Subject::new("ali\"ce").unwrap();
        let stamp = Stamp {
            sequence: Sequence::FIRST,
            from: &from,
            at_millis: 5,
        };
        serde_json::from_slice(&entry_json(stamp, content)).unwrap()
    }

    #[test]
    fn what_was_sent_is_what_is_delivered() {
        let sent = r#"{"id":"1","type":"pic","body":{"a":[1.50,"ü"]},"reply_to":41,"x":null,"y\n":{"z":1}}"#;
        let delivered = stored(&read(sent).unwrap());
        let expected = serde_json::json!({
            "seq": 1, "id": "1", "from": "ali\"ce", "at": 5, "type": "pic",
            "body": {"a": [1.50, "ü"]}, "reply_to": 41, "x": null, "y\n": {"z": 1},
        });
        assert_eq!(delivered, expected);
    }

    #[test]
    fn type_and_reply_are_optional() {
        let content = read(r#"{"id":"1","body":"hi"}"#).unwrap();
        assert_eq!((content.kind.as_str(), content.reply_to), (KIND_TEXT, None));
        assert!(content.extra.is_empty());
    }

    /// Goal: what steers a push is delivered as it was sent, and means nothing to the envelope.
    #[test]
    fn members_for_push_are_kept_as_they_are() {
        let many: Vec<_> = (0..MENTIONS_MAX).map(|user| format!("u{user}")).collect();
        for members in [
            serde_json::json!({"urgent": true, "mentions": ["bob"], "expires_at": 1}),
            serde_json::json!({"urgent": false, "mentions": many, "expires_at": EXPIRES_AT_MAX}),
            serde_json::json!({"urgent": null, "mentions": null, "expires_at": null}),
            serde_json::json!({"mentions": []}),
        ] {
            let mut sent = members.clone();
            sent["id"] = "1".into();
            sent["body"] = 1.into();
            let delivered = stored(&read(&sent.to_string()).unwrap());
            for (name, value) in members.as_object().unwrap() {
                assert_eq!(delivered.get(name), Some(value), "{name}");
            }
        }
    }

    #[test]
    fn members_for_push_are_refused_with_a_cure() {
        let many = serde_json::json!(vec!["bob"; MENTIONS_MAX + 1]).to_string();
        let later = (EXPIRES_AT_MAX + 1).to_string();
        for (name, value, says) in [
            ("urgent", "1", "true or false"),
            ("urgent", "\"true\"", "true or false"),
            ("mentions", "\"bob\"", "50 user names"),
            ("mentions", "[1]", "50 user names"),
            ("mentions", "[\"\"]", "50 user names"),
            ("mentions", "[\"a/b\"]", "50 user names"),
            ("mentions", "[null]", "50 user names"),
            ("mentions", many.as_str(), "50 user names"),
            ("expires_at", "0", "milliseconds"),
            ("expires_at", "-5", "milliseconds"),
            ("expires_at", "1.5", "milliseconds"),
            ("expires_at", "\"2026-01-01\"", "milliseconds"),
            ("expires_at", "99999999999999999999", "milliseconds"),
            ("expires_at", later.as_str(), "milliseconds"),
        ] {
            let json = format!(r#"{{"id":"1","body":1,"{name}":{value}}}"#);
            let error = read(&json).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains(says),
                "{json}: {error}"
            );
        }
        let error = read(r#"{"id":"1","body":1,"urgent":true,"urgent":false}"#);
        assert!(error.unwrap_err().to_string().contains("twice"));
        // An escape does not hide a member from its check.
        assert!(read(r#"{"id":"1","body":1,"urg\u0065nt":1}"#).is_err());
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_cure() {
        for (json, says) in [
            ("", "EOF"),
            ("hello", "expected"),
            ("[1]", "JSON object"),
            ("{}", "`id`"),
            (r#"{"id":"","body":1}"#, "`id`"),
            (r#"{"id":7,"body":1}"#, "string"),
            (r#"{"id":"1"}"#, "body"),
            (r#"{"id":"1","id":"2","body":1}"#, "duplicate"),
            (r#"{"id":"1","body":1,"a":1,"a":2}"#, "twice"),
            (r#"{"id":"1","body":1,"seq":9}"#, "set by the server"),
            (r#"{"id":"1","body":1,"type":""}"#, "`type`"),
            (r#"{"id":"1","body":1,"type":"homing.x"}"#, "server's"),
            (r#"{"id":"1","body":1,"reply_to":0}"#, "starts at 1"),
            (r#"{"id":"1","body":1} x"#, "trailing"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
        assert!(Content::from_json(b"\"\xff\"", 1024).is_err());
    }

    #[test]
    fn a_large_message_is_refused_with_its_size() {
        let error = Content::from_json(&[b' '; 11], 10).unwrap_err();
        assert!(matches!(
            error,
            EnvelopeError::TooLarge {
                bytes: 11,
                bytes_max: 10
            }
        ));
    }
}
