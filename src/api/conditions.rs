//! Conditional requests (RFC 9110 §13): `ETag`, `If-None-Match`, `If-Match`.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::bridge::condition::Condition;

/// How much of the SHA-256 of a body is its tag, in bytes.
const TAG_BYTES: usize = 16;

/// A strong tag: the same bytes, the same tag.
pub(super) fn tag(body: &str) -> String {
    let hash = Sha256::digest(body.as_bytes());
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash[..TAG_BYTES]))
}

/// Gives an answer its tag; if the client has these bytes already, it gets the tag alone.
pub(super) fn tagged(request: &HeaderMap, body: &str, mut response: Response) -> Response {
    let tag = tag(body);
    let value = HeaderValue::from_str(&tag).expect("base64url is visible ASCII");
    // RFC 9110 §13.1.2: compared weakly.
    if names(request, header::IF_NONE_MATCH, &tag, Comparison::Weak) == Some(true) {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    response.headers_mut().insert(header::ETAG, value);
    response
}

/// The conditions of a change, if it has some.
pub(super) fn of_change(request: &HeaderMap) -> Option<Condition> {
    let mut conditions = HeaderMap::new();
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        for value in request.get_all(&name) {
            conditions.append(&name, value.clone());
        }
    }
    let is_none = conditions.is_empty();
    (!is_none).then(|| Condition::new(move |present| hold(&conditions, present)))
}

/// Whether the conditions of a change hold for what is there now.
fn hold(request: &HeaderMap, present: Option<&str>) -> bool {
    let tag = present.map(tag).unwrap_or_default();
    let is_there = present.is_some();
    let matches = names(request, header::IF_MATCH, &tag, Comparison::Strong);
    let differs = names(request, header::IF_NONE_MATCH, &tag, Comparison::Weak);
    matches.is_none_or(|matches| matches && is_there) && !(differs == Some(true) && is_there)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of tags names this one, or is `*`; none if there is no such header.
fn names(
    request: &HeaderMap,
    header: header::HeaderName,
    tag: &str,
    comparison: Comparison,
) -> Option<bool> {
    let mut lists = request.get_all(header).iter().peekable();
    lists.peek()?;
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim);
    Some(tags.any(|named| {
        let opaque = match comparison {
            Comparison::Weak => named.strip_prefix("W/").unwrap_or(named),
            Comparison::Strong => named,
        };
        named == "*" || opaque == tag
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn who_has_the_bytes_gets_the_tag_alone() {
        let tag = tag("{}");
        for (value, status) in [
            (tag.clone(), 304),
            (format!("\"x\", {tag}"), 304),
            (format!("W/{tag}"), 304),
            ("*".to_owned(), 304),
            ("\"x\"".to_owned(), 200),
        ] {
            let request = headers(header::IF_NONE_MATCH, &value);
            let response = tagged(&request, "{}", StatusCode::OK.into_response());
            assert_eq!(response.status(), status, "{value}");
            assert_eq!(response.headers()[header::ETAG], tag.as_str());
        }
    }

    #[test]
    fn a_change_is_based_on_what_is_there() {
        let tag = tag("{}");
        for (name, value, present, holds) in [
            (header::IF_MATCH, tag.clone(), Some("{}"), true),
            (header::IF_MATCH, "*".to_owned(), Some("{}"), true),
            (header::IF_MATCH, "*".to_owned(), None, false),
            (header::IF_MATCH, tag.clone(), Some("[]"), false),
            (header::IF_MATCH, format!("W/{tag}"), Some("{}"), false),
            (header::IF_MATCH, tag.clone(), None, false),
            (header::IF_NONE_MATCH, "*".to_owned(), Some("{}"), false),
            (header::IF_NONE_MATCH, "*".to_owned(), None, true),
            (header::IF_NONE_MATCH, tag.clone(), Some("[]"), true),
        ] {
            let request = headers(name.clone(), &value);
            assert_eq!(hold(&request, present), holds, "{name} {value}");
        }
        assert!(of_change(&HeaderMap::new()).is_none());
    }
}
