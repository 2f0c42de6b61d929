//! JSON to CBOR, deterministic.

use std::{borrow::Cow, collections::BTreeMap, convert::Infallible};

use minicbor::{Decoder, Encoder, data::Tag, encode};
use serde_json::{Map, Number, Value, value::RawValue};

use super::{
    Document, TAG_JSON,
    members::{BODY, BYTES, Holds, TYPES, by_name, bytes_of},
};

type Out = Encoder<Vec<u8>>;
type Written = Result<(), encode::Error<Infallible>>;

/// Writes a payload as CBOR. All valid JSON has one; what is none travels as the text it is.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "it cannot: see the expectation")]
pub fn from_json(json: &[u8], document: Document) -> Vec<u8> {
    let mut out = Encoder::new(Vec::with_capacity(json.len()));
    let written = match serde_json::from_slice::<Value>(json) {
        Ok(Value::Object(object)) => write_object(&mut out, &object, Some(document)),
        Ok(value) => write(&mut out, &value, Holds::Plain),
        Err(_) => write_apart(&mut out, json, document),
    };
    written.expect("a Vec takes all that is written");
    out.into_writer()
}

/// Member by member: a value that cannot be held is embedded, the others are not.
fn write_apart(out: &mut Out, json: &[u8], document: Document) -> Written {
    let Ok(raw) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(json) else {
        return write_embedded(out, json);
    };
    let mut members = Vec::with_capacity(raw.len());
    for (name, value) in &raw {
        let (key, holds) = key(name, Some(document));
        let content = match serde_json::from_str(value.get()) {
            Ok(value) => Content::Value(Cow::Owned(value), holds),
            Err(_) => Content::Embedded(value.get().as_bytes()),
        };
        members.push((key, content));
    }
    write_members(out, members)
}

/// A key of a map, in the order of RFC 8949, 4.2.1: by the bytes of its encoding.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Number(u8),
    /// Its length in bytes, which is written first.
    Text(usize, &'a str),
}

enum Content<'a> {
    Value(Cow<'a, Value>, Holds),
    Bytes(Vec<u8>),
    Embedded(&'a [u8]),
}

fn key(name: &str, document: Option<Document>) -> (Key<'_>, Holds) {
    let known = document.and_then(|document| {
        let (number, holds) = by_name(name)?;
        Some((Key::Number(number), holds.within(document)))
    });
    known.unwrap_or((Key::Text(name.len(), name), Holds::Plain))
}

fn write_object(out: &mut Out, object: &Map<String, Value>, document: Option<Document>) -> Written {
    let mut members = Vec::with_capacity(object.len());
    let takes_bytes = document.is_some() && !object.contains_key(BODY);
    for (name, value) in object {
        let bytes = (takes_bytes && name == BYTES)
            .then(|| bytes_of(value))
            .flatten();
        if let Some(bytes) = bytes {
            members.push((key(BODY, document).0, Content::Bytes(bytes)));
        } else {
            let (key, holds) = key(name, document);
            members.push((key, Content::Value(Cow::Borrowed(value), holds)));
        }
    }
    write_members(out, members)
}

fn write_members(out: &mut Out, mut members: Vec<(Key<'_>, Content<'_>)>) -> Written {
    members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    out.map(members.len() as u64)?;
    for (key, content) in members {
        match key {
            Key::Number(number) => out.u8(number)?,
            Key::Text(_, name) => out.str(name)?,
        };
        match content {
            Content::Value(value, holds) => write(out, &value, holds)?,
            Content::Bytes(bytes) => out.bytes(&bytes)?.ok()?,
            Content::Embedded(json) => write_embedded(out, json)?,
        }
    }
    Ok(())
}

fn write(out: &mut Out, value: &Value, holds: Holds) -> Written {
    match value {
        Value::Null => out.null()?.ok(),
        Value::Bool(value) => out.bool(*value)?.ok(),
        // A bare number is one of the types.
        Value::Number(number) if holds == Holds::Type => {
            write_embedded(out, number.to_string().as_bytes())
        }
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text, holds),
        Value::Array(items) => {
            out.array(items.len() as u64)?;
            items.iter().try_for_each(|item| write(out, item, holds))
        }
        Value::Object(object) => write_object(out, object, holds.document()),
    }
}

fn write_text(out: &mut Out, text: &str, holds: Holds) -> Written {
    let number = TYPES.iter().position(|known| *known == text);
    if let Some(number) = number.filter(|_| holds == Holds::Type) {
        return out.u64(number as u64)?.ok();
    }
    match holds.id_of(text) {
        Some(id) => out.bytes(&id)?.ok(),
        None => out.str(text)?.ok(),
    }
}

fn write_number(out: &mut Out, number: &Number) -> Written {
    if let Some(number) = number.as_u64() {
        return out.u64(number)?.ok();
    }
    if let Some(number) = number.as_i64() {
        return out.i64(number)?.ok();
    }
    let number = number.as_f64().unwrap_or_default();
    match as_single(number) {
        Some(single) if is_half(single) => out.f16(single)?.ok(),
        Some(single) => out.f32(single)?.ok(),
        None => out.f64(number)?.ok(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "whether it loses something is the question"
)]
fn as_single(number: f64) -> Option<f32> {
    let single = number as f32;
    (f64::from(single).to_bits() == number.to_bits()).then_some(single)
}

fn is_half(single: f32) -> bool {
    let mut bytes = [0; 3];
    let written = Encoder::new(&mut bytes[..]).f16(single).is_ok();
    let half = Decoder::new(&bytes).f16();
    written && half.is_ok_and(|half| half.to_bits() == single.to_bits())
}

fn write_embedded(out: &mut Out, json: &[u8]) -> Written {
    out.tag(Tag::new(TAG_JSON))?.bytes(json)?.ok()
}
