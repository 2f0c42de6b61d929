//! Arguments that many operations take: of what, and the rest.

use std::{borrow::Cow, num::NonZeroUsize};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::OperationError;
use crate::domain::ids::ConversationId;

/// The pattern of texts without control characters.
pub(super) const NO_CONTROL: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
/// Rows on a page whose size is not said.
const PAGE_ROWS_DEFAULT: usize = 50;

/// No argument.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// `conversation`, and the members of `R` beside it.
#[derive(Debug)]
pub struct InConversation<R = Nothing> {
    pub conversation: ConversationId,
    pub rest: R,
}

/// `client_id`, and the members of `R` beside it. Over MQTT it may be left out: it is the
/// device that asks.
#[derive(Debug)]
pub struct OfDevice<R = Nothing> {
    pub client_id: Option<String>,
    pub rest: R,
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for InConversation<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (conversation, rest) = split(deserializer, "conversation")?;
        let conversation = conversation
            .ok_or_else(|| <D::Error as serde::de::Error>::missing_field("conversation"))?;
        Ok(Self { conversation, rest })
    }
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for OfDevice<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (client_id, rest) = split(deserializer, "client_id")?;
        Ok(Self { client_id, rest })
    }
}

/// Tells null from absent.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// How many rows are on a page: as many as asked for, if those are allowed.
pub(super) fn page_limit(
    asked: Option<NonZeroUsize>,
    rows_max: usize,
) -> Result<usize, OperationError> {
    match asked.map(NonZeroUsize::get) {
        None => Ok(PAGE_ROWS_DEFAULT.min(rows_max)),
        Some(limit) if limit <= rows_max => Ok(limit),
        Some(_) => Err(OperationError::invalid(format!(
            "`limit` lies between 1 and {rows_max}"
        ))),
    }
}

fn split<'de, D, T, R>(deserializer: D, name: &str) -> Result<(Option<T>, R), D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
    R: DeserializeOwned,
{
    use serde::de::Error as _;
    let mut members = Map::<String, Value>::deserialize(deserializer)?;
    let value = members.remove(name).filter(|value| !value.is_null());
    let value = value.map(serde_json::from_value).transpose();
    let rest = serde_json::from_value(Value::Object(members));
    Ok((
        value.map_err(D::Error::custom)?,
        rest.map_err(D::Error::custom)?,
    ))
}

impl<R: JsonSchema> JsonSchema for InConversation<R> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("InConversation_{}", R::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let id = ConversationId::json_schema(generator);
        with_member(R::json_schema(generator), "conversation", id, true)
    }
}

impl<R: JsonSchema> JsonSchema for OfDevice<R> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OfDevice_{}", R::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let id = json_schema!({
            "type": "string", "minLength": 1, "maxLength": 128,
            "pattern": (NO_CONTROL),
        });
        with_member(R::json_schema(generator), "client_id", id, false)
    }
}

fn with_member(mut schema: Schema, name: &str, member: Schema, is_required: bool) -> Schema {
    let object = schema.ensure_object();
    let properties = object
        .entry("properties")
        .or_insert_with(|| Map::new().into());
    if let Value::Object(properties) = properties {
        properties.insert(name.to_owned(), member.into());
    }
    if is_required {
        let required = object
            .entry("required")
            .or_insert_with(|| Vec::<Value>::new().into());
        if let Value::Array(required) = required {
            required.push(name.into());
        }
    }
    schema
}
