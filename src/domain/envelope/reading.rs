//! Reads what a sender publishes.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use super::{ContentLimits, KIND_EDIT, KIND_REACTION, KIND_RETRACT, KIND_TEXT, members};
use crate::domain::{
    ids::{ClientMessageId, Subject},
    message::{Content, Format, Sequence},
};

/// The longest `type`, in bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// Types that begin so are the server's own.
const KIND_RESERVED_PREFIX: &str = "homing.";
/// Members that only the server sets; whoever sends them is told so.
pub const SERVER_MEMBERS: [&str; 9] = [
    "seq",
    "from",
    "at",
    "retracted",
    "expired",
    "version",
    "edited_at",
    "reactions",
    "too_large",
];

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
    /// Reads the payload of `c/{cid}/send`.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`], whose text says what a sender should do.
    pub fn from_json(payload: &[u8], limits: ContentLimits) -> Result<Self, EnvelopeError> {
        let (bytes, bytes_max) = (payload.len(), limits.bytes_max);
        if bytes > bytes_max {
            return Err(EnvelopeError::TooLarge { bytes, bytes_max });
        }
        let mut json = serde_json::Deserializer::from_slice(payload);
        let content = json.deserialize_map(ContentVisitor(limits))?;
        json.end()?;
        Ok(content)
    }
}

struct ContentVisitor(ContentLimits);

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with `id` and `body`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut draft = Draft::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "id" => set(&mut draft.id, "id", map.next_value()?)?,
                "type" => set(&mut draft.kind, "type", map.next_value()?)?,
                "body" => set(&mut draft.body, "body", map.next_value()?)?,
                "bytes" => set(&mut draft.bytes, "bytes", map.next_value()?)?,
                "reply_to" => set(&mut draft.reply_to, "reply_to", map.next_value()?)?,
                "ref" => set(&mut draft.target, "ref", map.next_value()?)?,
                _ => {
                    let checked = draft.check(&key);
                    let value = map.next_value()?;
                    checked
                        .and_then(|()| draft.keep(key, value, self.0))
                        .map_err(de::Error::custom)?;
                }
            }
        }
        draft.finish().map_err(de::Error::custom)
    }
}

/// A text that needs no allocation unless it holds an escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Null is no reference.
#[derive(Clone, Copy, Deserialize)]
struct Reference(Option<Sequence>);

fn set<T, E: de::Error>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    if slot.replace(value).is_some() {
        return Err(E::duplicate_field(name));
    }
    Ok(())
}

/// What stands in the payload, before it is known what it means together.
#[derive(Default)]
struct Draft<'a> {
    id: Option<String>,
    kind: Option<String>,
    body: Option<&'a RawValue>,
    bytes: Option<Text<'a>>,
    reply_to: Option<Reference>,
    target: Option<Reference>,
    mentions: Option<Vec<Subject>>,
    expires_at_millis: Option<i64>,
    extra: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Draft<'a> {
    /// Whether a member may stand there at all.
    fn check(&self, name: &str) -> Result<(), String> {
        if SERVER_MEMBERS.contains(&name) {
            return Err(format!("`{name}` is set by the server"));
        }
        if self.has(name) {
            return Err(format!("`{name}` appears twice"));
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.extra.iter().any(|(known, _)| known == name)
    }

    fn keep(
        &mut self,
        name: Cow<'a, str>,
        value: &'a RawValue,
        limits: ContentLimits,
    ) -> Result<(), String> {
        let json = value.get();
        match name.as_ref() {
            "urgent" => members::check_urgent(json)?,
            "mentions" => self.mentions = Some(members::mentions(json, limits.mentions_max)?),
            "expires_at" => self.expires_at_millis = members::expires_at_millis(json)?,
            "attachments" => members::check_attachments(json, limits.attachments_max)?,
            _ => {}
        }
        self.extra.push((name, value));
        Ok(())
    }

    fn finish(mut self) -> Result<Content, String> {
        let id = ClientMessageId::new(self.id.take().unwrap_or_default())
            .map_err(|error| error.to_string())?;
        let kind = self.kind.take().unwrap_or_else(|| KIND_TEXT.to_owned());
        check_kind(&kind)?;
        let reply_to = self.reply_to.and_then(|Reference(sequence)| sequence);
        let target = self.target.and_then(|Reference(sequence)| sequence);
        match kind.as_str() {
            KIND_EDIT | KIND_RETRACT | KIND_REACTION => {
                self.check_change(&kind, target, reply_to)?;
            }
            _ if target.is_some() => {
                return Err(
                    "`ref` belongs to edit, retract and reaction; an answer names its message in `reply_to`"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let (format, body) = self.content(&kind)?;
        Ok(Content {
            id,
            kind,
            format,
            body,
            reply_to,
            target,
            extra: extra_object(&self.extra).map_err(|error| error.to_string())?,
            mentions: self.mentions,
            expires_at_millis: self.expires_at_millis,
        })
    }

    fn content(&self, kind: &str) -> Result<(Format, Bytes), String> {
        match (self.body, &self.bytes) {
            (Some(_), Some(_)) => Err("it has `body` or `bytes`, not both".to_owned()),
            (Some(json), None) => Ok((Format::Json, Bytes::copy_from_slice(json.get().as_bytes()))),
            (None, Some(Text(base64))) => match STANDARD.decode(base64.as_bytes()) {
                Ok(bytes) => Ok((Format::Bytes, bytes.into())),
                Err(error) => Err(format!(
                    "`bytes` is base64 with its padding, as \"aGk=\": {error}"
                )),
            },
            (None, None) if kind == KIND_RETRACT => Ok((Format::Json, Bytes::new())),
            (None, None) => Err("missing field `body`".to_owned()),
        }
    }

    /// What a change must have, and what only a message has.
    fn check_change(
        &self,
        kind: &str,
        target: Option<Sequence>,
        reply_to: Option<Sequence>,
    ) -> Result<(), String> {
        if target.is_none() {
            return Err(format!(
                "`ref` says which message the {kind} is about, as 41"
            ));
        }
        if reply_to.is_some() {
            return Err(format!(
                "a {kind} names its message in `ref`, and answers none: leave `reply_to` out"
            ));
        }
        let unfit: &[&str] = match kind {
            KIND_EDIT => &["urgent", "expires_at"],
            _ => &["urgent", "expires_at", "mentions", "attachments"],
        };
        if let Some(name) = unfit.iter().find(|name| self.has(name)) {
            return Err(format!(
                "`{name}` does not belong to a {kind}: leave it out"
            ));
        }
        match kind {
            KIND_RETRACT if self.body.is_some() || self.bytes.is_some() => {
                Err("a retract has no content: leave `body` and `bytes` out".to_owned())
            }
            KIND_REACTION => members::check_reaction(self.body.map(RawValue::get)),
            _ => Ok(()),
        }
    }
}

fn check_kind(kind: &str) -> Result<(), String> {
    if kind.is_empty() || kind.len() > KIND_BYTES_MAX || kind.contains(char::is_control) {
        return Err("`type` has 1 to 64 bytes without control characters".to_owned());
    }
    if kind.starts_with(KIND_RESERVED_PREFIX) {
        return Err("types that begin with `homing.` are the server's".to_owned());
    }
    Ok(())
}

/// Mentions stand first, where the store finds the newest ones of a message.
fn extra_object(extra: &[(Cow<'_, str>, &RawValue)]) -> Result<Bytes, serde_json::Error> {
    if extra.is_empty() {
        return Ok(Bytes::new());
    }
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let mut map = serde::Serializer::serialize_map(&mut serializer, Some(extra.len()))?;
    let (mentions, others): (Vec<_>, Vec<_>) = extra.iter().partition(|(key, _)| key == "mentions");
    for (key, value) in mentions.into_iter().chain(others) {
        map.serialize_entry(key, value)?;
    }
    map.end()?;
    Ok(json.into())
}
