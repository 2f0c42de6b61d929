//! CBOR to JSON. What has no JSON is refused, and nothing is believed before it is there.

use std::{borrow::Cow, io::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minicbor::{Decoder, data::Type, decode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    DEPTH_MAX, Document, TAG_JSON,
    members::{BODY, BYTES, Holds, TYPES, by_name, by_number},
};

/// A payload that cannot become JSON.
#[derive(Debug, thiserror::Error)]
pub enum CborError {
    #[error("not CBOR: {0}; connect without `format` to send JSON")]
    Malformed(#[from] decode::Error),
    #[error("not CBOR: {0} bytes follow the end")]
    Trailing(usize),
    #[error("a map or list inside {DEPTH_MAX} others is too deep")]
    TooDeep,
    #[error("`{0}` appears twice")]
    Twice(String),
    #[error("there is no member with the number {0}; the names of other members are texts")]
    UnknownMember(u64),
    #[error("there is no type with the number {0}; other types are texts")]
    UnknownType(i128),
    #[error("{0}")]
    Unsupported(&'static str),
}

/// Writes a payload that came as CBOR as JSON.
///
/// # Errors
///
/// [`CborError`], whose text says what to do.
pub fn to_json(cbor: &[u8], document: Document) -> Result<Vec<u8>, CborError> {
    let mut reader = Reader {
        cbor: Decoder::new(cbor),
        json: Vec::with_capacity(2 * cbor.len()),
        depth: 0,
    };
    match reader.cbor.datatype()? {
        Type::Map | Type::MapIndef => reader.map(Some(document))?,
        _ => reader.value(Holds::Plain)?,
    }
    match cbor.len().saturating_sub(reader.cbor.position()) {
        0 => Ok(reader.json),
        trailing => Err(CborError::Trailing(trailing)),
    }
}

struct Reader<'b> {
    cbor: Decoder<'b>,
    json: Vec<u8>,
    /// Maps and lists that have begun and not ended.
    depth: usize,
}

impl<'b> Reader<'b> {
    fn value(&mut self, holds: Holds) -> Result<(), CborError> {
        match self.cbor.datatype()? {
            Type::Null => {
                self.cbor.null()?;
                self.put(&());
            }
            Type::Bool => {
                let value = self.cbor.bool()?;
                self.put(&value);
            }
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int => self.integer(holds)?,
            Type::F16 => {
                let number = self.cbor.f16()?;
                self.float(number.into())?;
            }
            Type::F32 => {
                let number = self.cbor.f32()?;
                self.float(number.into())?;
            }
            Type::F64 => {
                let number = self.cbor.f64()?;
                self.float(number)?;
            }
            Type::String | Type::StringIndef => {
                let text = self.text()?;
                self.put(&text);
            }
            Type::Bytes | Type::BytesIndef => self.id(holds)?,
            Type::Array | Type::ArrayIndef => self.array(holds)?,
            Type::Map | Type::MapIndef => self.map(holds.document())?,
            Type::Tag => self.embedded()?,
            Type::Undefined | Type::Simple | Type::Break | Type::Unknown(_) => {
                let why = "JSON has no such value; absent members are left out, null is null";
                return Err(CborError::Unsupported(why));
            }
        }
        Ok(())
    }

    fn put<T: Serialize + ?Sized>(&mut self, value: &T) {
        let put = serde_json::to_writer(&mut self.json, value);
        put.expect("texts and numbers are always valid JSON");
    }

    fn integer(&mut self, holds: Holds) -> Result<(), CborError> {
        let number = i128::from(self.cbor.int()?);
        if holds == Holds::Type {
            let known = usize::try_from(number).ok().and_then(|at| TYPES.get(at));
            let known = known.ok_or(CborError::UnknownType(number))?;
            self.put(known);
        } else {
            write!(self.json, "{number}").expect("a Vec takes all that is written");
        }
        Ok(())
    }

    fn float(&mut self, number: f64) -> Result<(), CborError> {
        if !number.is_finite() {
            let why = "JSON has neither infinity nor what is no number";
            return Err(CborError::Unsupported(why));
        }
        self.put(&number);
        Ok(())
    }

    fn text(&mut self) -> Result<Cow<'b, str>, CborError> {
        if self.cbor.datatype()? == Type::String {
            return Ok(Cow::Borrowed(self.cbor.str()?));
        }
        let parts: Result<String, _> = self.cbor.str_iter()?.collect();
        Ok(Cow::Owned(parts?))
    }

    fn bytes(&mut self) -> Result<Cow<'b, [u8]>, CborError> {
        if self.cbor.datatype()? == Type::Bytes {
            return Ok(Cow::Borrowed(self.cbor.bytes()?));
        }
        let mut bytes = Vec::new();
        for part in self.cbor.bytes_iter()? {
            bytes.extend_from_slice(part?);
        }
        Ok(Cow::Owned(bytes))
    }

    fn id(&mut self, holds: Holds) -> Result<(), CborError> {
        let why = "a byte string is an id of 16 bytes, or the whole body; inside a body write \
                   bytes as text";
        let id = self.bytes()?.as_ref().try_into().ok();
        let text = id.and_then(|id| holds.text_of(id));
        self.put(&text.ok_or(CborError::Unsupported(why))?);
        Ok(())
    }

    /// JSON in a byte string: it is checked, and copied as it is.
    fn embedded(&mut self) -> Result<(), CborError> {
        let tag = self.cbor.tag()?;
        if tag.as_u64() != TAG_JSON || !is_bytes(self.cbor.datatype()?) {
            let why = "of the tags only 262, a byte string with JSON in it, means something here";
            return Err(CborError::Unsupported(why));
        }
        let bytes = self.bytes()?;
        let json: &RawValue = serde_json::from_slice(&bytes)
            .map_err(|_| CborError::Unsupported("what has tag 262 is JSON"))?;
        self.json.extend_from_slice(json.get().as_bytes());
        Ok(())
    }

    fn array(&mut self, holds: Holds) -> Result<(), CborError> {
        let count = self.cbor.array()?;
        self.begin(b'[')?;
        let mut items = 0;
        while self.has_more(count, items)? {
            if items > 0 {
                self.json.push(b',');
            }
            self.value(holds)?;
            items += 1;
        }
        self.end(b']');
        Ok(())
    }

    /// `document` says what the numbers of members mean; without it there are none.
    fn map(&mut self, document: Option<Document>) -> Result<(), CborError> {
        let count = self.cbor.map()?;
        self.begin(b'{')?;
        let mut names: Vec<Cow<'b, str>> = Vec::new();
        while self.has_more(count, names.len() as u64)? {
            if !names.is_empty() {
                self.json.push(b',');
            }
            names.push(self.member(document)?);
        }
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[one, next]| one == next) {
            return Err(CborError::Twice(twice.clone().into_owned()));
        }
        self.end(b'}');
        Ok(())
    }

    fn member(&mut self, document: Option<Document>) -> Result<Cow<'b, str>, CborError> {
        let (name, holds) = self.key(document)?;
        let is_body = document.is_some() && matches!(name.as_ref(), BODY | BYTES);
        if is_body && is_bytes(self.cbor.datatype()?) {
            self.put(BYTES);
            self.json.push(b':');
            let bytes = self.bytes()?;
            self.put(&STANDARD.encode(&bytes));
            return Ok(Cow::Borrowed(BYTES));
        }
        self.put(&name);
        self.json.push(b':');
        self.value(holds)?;
        Ok(name)
    }

    fn key(&mut self, document: Option<Document>) -> Result<(Cow<'b, str>, Holds), CborError> {
        match (self.cbor.datatype()?, document) {
            (Type::U8 | Type::U16 | Type::U32 | Type::U64, Some(document)) => {
                let number = self.cbor.u64()?;
                let member = by_number(number).ok_or(CborError::UnknownMember(number))?;
                Ok((Cow::Borrowed(member.0), member.1.within(document)))
            }
            (Type::String | Type::StringIndef, _) => {
                let name = self.text()?;
                let known = document.and_then(|document| Some((by_name(&name)?.1, document)));
                let holds = known.map_or(Holds::Plain, |(holds, document)| holds.within(document));
                Ok((name, holds))
            }
            _ => {
                let why = "the name of a member is a text, or a number where the server knows it";
                Err(CborError::Unsupported(why))
            }
        }
    }

    fn begin(&mut self, bracket: u8) -> Result<(), CborError> {
        self.json.push(bracket);
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(CborError::TooDeep);
        }
        Ok(())
    }

    fn end(&mut self, bracket: u8) {
        self.json.push(bracket);
        self.depth -= 1;
    }

    /// Whether another item follows, of `count`, or until the break.
    fn has_more(&mut self, count: Option<u64>, items: u64) -> Result<bool, CborError> {
        if let Some(count) = count {
            return Ok(items < count);
        }
        let has_ended = self.cbor.datatype()? == Type::Break;
        if has_ended {
            self.cbor.set_position(self.cbor.position() + 1);
        }
        Ok(!has_ended)
    }
}

fn is_bytes(datatype: Type) -> bool {
    matches!(datatype, Type::Bytes | Type::BytesIndef)
}
