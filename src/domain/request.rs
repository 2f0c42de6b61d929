//! The JSON of requests over MQTT, and of their answers.
//!
//! ```text
//!   → q/conversation   {"conversation": "AZjz…", "correlation": 7}
//!   ← me/device        {"event": "answer", "operation": "conversation", "correlation": 7,
//!                       "status": 200, "body": {"id": "AZjz…", "kind": "group", …}}
//! ```
//!
//! All members but `correlation` are the arguments; without a payload there are none. `status`
//! and `body` are those of the same request over REST: a refusal has a problem document as
//! its body, and what answers without a body there has none here. With MQTT 5 a request may
//! name a Response Topic under `me/`, and Correlation Data, which comes back as it was.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::problem::{Problem, ProblemKind};

/// The longest `correlation`, as JSON, in bytes.
pub const CORRELATION_BYTES_MAX: usize = 128;

/// What a device asks for.
#[derive(Clone)]
pub struct Request {
    pub operation: Box<str>,
    /// What the device recognises the answer by.
    pub correlation: Option<Value>,
    pub arguments: Map<String, Value>,
}

/// Arguments may be secrets, as push tokens are: they are not shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.operation)
    }
}

/// A payload that is no request.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    #[error("not a request: {0}; send a JSON object of arguments, or nothing")]
    NoObject(#[from] serde_json::Error),
    #[error("`correlation` is a number or a string of at most {CORRELATION_BYTES_MAX} bytes")]
    Correlation,
}

impl Request {
    /// Reads the payload of `q/{operation}`.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`], whose text says what to do.
    pub fn from_json(operation: Box<str>, payload: &[u8]) -> Result<Self, InvalidRequest> {
        let mut arguments: Map<String, Value> = match payload {
            [] => Map::new(),
            json => object_from_json(json)?,
        };
        let correlation = match arguments.remove("correlation") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() > CORRELATION_BYTES_MAX => {
                return Err(InvalidRequest::Correlation);
            }
            Some(known @ (Value::Number(_) | Value::String(_))) => Some(known),
            Some(_) => return Err(InvalidRequest::Correlation),
        };
        Ok(Self {
            operation,
            correlation,
            arguments,
        })
    }
}

/// Reads the members of a JSON object; a member that appears twice is refused.
///
/// # Errors
///
/// What is wrong with it.
pub fn object_from_json(json: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let Members(members) = serde_json::from_slice(json)?;
    Ok(members)
}

struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
            members.insert(name, value);
        }
        Ok(Members(members))
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As over HTTP.
    pub status: u16,
    /// JSON that is copied as it is; none if the status says it all.
    pub body: Option<Box<RawValue>>,
    /// When the same request may be sent again, in seconds.
    pub retry_after: Option<u64>,
    /// It was answered so before, to a request with the same idempotency key.
    pub is_replayed: bool,
    /// It is good for a while only: the same request is done anew, whatever its key.
    pub is_passing: bool,
}

#[derive(Serialize)]
struct Envelope<'a> {
    event: &'static str,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<&'a Value>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
}

impl Answer {
    /// Status 200 with a body.
    #[must_use]
    pub fn ok(body: Box<RawValue>) -> Self {
        Self::new(200, Some(body))
    }

    /// Status 204: done, and there is nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::new(204, None)
    }

    /// Any status, with a body or without.
    #[must_use]
    pub fn new(status: u16, body: Option<Box<RawValue>>) -> Self {
        Self {
            status,
            body,
            retry_after: None,
            is_replayed: false,
            is_passing: false,
        }
    }

    /// In place of an answer that the device cannot take.
    #[must_use]
    pub fn too_large() -> Self {
        let detail = "the answer is larger than your Maximum Packet Size; ask for less";
        Problem::new(ProblemKind::TooLarge, detail).into()
    }

    /// The payload that answers a request.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it cannot: see the expectation")]
    pub fn json(&self, request: &Request) -> Bytes {
        let envelope = Envelope {
            event: "answer",
            operation: &request.operation,
            correlation: request.correlation.as_ref(),
            status: self.status,
            body: self.body.as_deref(),
        };
        let json = serde_json::to_vec(&envelope);
        json.expect("texts, numbers and JSON are always valid JSON")
            .into()
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let body = to_raw_value(&problem).expect("texts and numbers are always valid JSON");
        Self {
            retry_after: problem.retry_after,
            ..Self::new(problem.status, Some(body))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(payload: &str) -> Result<Request, InvalidRequest> {
        Request::from_json("ask".into(), payload.as_bytes())
    }

    #[test]
    fn an_answer_says_what_it_answers() {
        let request = read(r#"{"a":1,"correlation":"x"}"#).unwrap();
        assert_eq!(Value::from(request.arguments.clone()), json!({"a": 1}));
        assert_eq!(format!("{request:?}"), "Request(ask)");
        // Copied as it is.
        let body = RawValue::from_string(r#"{"price":1.50}"#.to_owned()).unwrap();
        assert_eq!(
            Answer::ok(body).json(&request),
            r#"{"event":"answer","operation":"ask","correlation":"x","status":200,"body":{"price":1.50}}"#
        );
        let nothing = read("").unwrap();
        assert!(nothing.arguments.is_empty());
        assert_eq!(
            Answer::done().json(&nothing),
            r#"{"event":"answer","operation":"ask","status":204}"#
        );
        let answer = Answer::too_large().json(&nothing);
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            (&answer["status"], &answer["body"]["status"]),
            (&json!(413), &json!(413))
        );
        assert_eq!(answer["body"]["type"], "urn:homing:problem:too-large");
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_cure() {
        for payload in ["x", "[]", "7", "null", "{", "{} x", "\"a\""] {
            let error = read(payload).unwrap_err().to_string();
            assert!(error.contains("JSON object"), "{payload}: {error}");
        }
        let long = "x".repeat(CORRELATION_BYTES_MAX + 1);
        for correlation in [json!({}), json!([1]), json!(true), json!(long)] {
            let payload = json!({"correlation": correlation}).to_string();
            let error = read(&payload).unwrap_err().to_string();
            assert!(error.contains("`correlation`"), "{payload}: {error}");
        }
        assert!(
            read(r#"{"correlation":null}"#)
                .unwrap()
                .correlation
                .is_none()
        );
        assert!(Request::from_json("ask".into(), b"\xff").is_err());
    }
}
