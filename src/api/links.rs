//! Where a list goes on, as a header (RFC 8288): what the body says in its `next_…` members.
//!
//! The entries of a page ascend, so what is before them is `prev`, whatever was asked for: whoever
//! follows one relation comes to the end of the list on that side.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, Uri};
use reqwest::Url;
use serde_json::{Value, value::RawValue};

/// Arguments that say where a page lies, of which a request gives one.
const PLACES: [&str; 4] = ["after", "around", "at", "before"];

/// `</v1/…?after=42>; rel="next"` for a body with `"next_after": 42`, and `rel="prev"` for
/// `"next_before"`; nothing if it is the end.
pub(super) fn page_links(uri: &Uri, body: &str) -> Option<HeaderValue> {
    if !body.contains("\"next_") {
        return None;
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(body).ok()?;
    let links = members.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("next_")?;
        let relation = if name == "before" { "prev" } else { "next" };
        let target = target(uri, name, &text(value)?)?;
        Some(format!("<{target}>; rel=\"{relation}\""))
    });
    let links: Vec<_> = links.collect();
    if links.is_empty() {
        return None;
    }
    HeaderValue::from_str(&links.join(", ")).ok()
}

/// The request once more, at another place.
fn target(uri: &Uri, name: &str, value: &str) -> Option<String> {
    let is_replaced =
        |given: &str| given == name || PLACES.contains(&name) && PLACES.contains(&given);
    let mut url = Url::parse("http://localhost").ok()?;
    url.set_path(uri.path());
    let mut pairs = url.query_pairs_mut();
    for (given, value) in parse(uri.query().unwrap_or_default()) {
        if !is_replaced(&given) {
            pairs.append_pair(&given, &value);
        }
    }
    pairs.append_pair(name, value);
    drop(pairs);
    let (path, query) = (url.path(), url.query().unwrap_or_default());
    Some(format!("{path}?{query}"))
}

fn text(value: &RawValue) -> Option<String> {
    match serde_json::from_str(value.get()).ok()? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn parse(query: &str) -> Vec<(String, String)> {
    let mut url = Url::parse("http://localhost").expect("this is a URL");
    url.set_query(Some(query));
    let pairs = url.query_pairs();
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_as_this_one_was() {
        let uri = "/v1/a/messages?after=1&limit=2".parse().unwrap();
        let around = "</v1/a/messages?limit=2&after=6>; rel=\"next\", \
                      </v1/a/messages?limit=2&before=5>; rel=\"prev\"";
        for (body, expected) in [
            (r#"{"entries":[]}"#, None),
            (r#"{"entries":[{"next_after":3}]}"#, None),
            (r#"{"next_after":null}"#, None),
            (
                r#"{"entries":[{"a":"next_x"}],"next_after":3}"#,
                Some("</v1/a/messages?limit=2&after=3>; rel=\"next\""),
            ),
            (
                r#"{"next_before":5}"#,
                Some("</v1/a/messages?limit=2&before=5>; rel=\"prev\""),
            ),
            (r#"{"next_before":5,"next_after":6}"#, Some(around)),
            (
                r#"{"next_cursor":"a b>&"}"#,
                Some("</v1/a/messages?after=1&limit=2&cursor=a+b%3E%26>; rel=\"next\""),
            ),
        ] {
            let link = page_links(&uri, body);
            let link = link.as_ref().map(|link| link.to_str().unwrap());
            assert_eq!(link, expected, "{body}");
        }
    }

    #[test]
    fn what_goes_on_on_both_sides_has_a_link_for_each() {
        let body = r#"{"messages":[],"next_before":3,"next_after":5}"#;
        for place in ["around=4", "at=1766400000000", "after=3", "before=6"] {
            let uri = format!("/v1/a/thread?{place}&limit=2").parse().unwrap();
            assert_eq!(
                page_links(&uri, body).unwrap(),
                "</v1/a/thread?limit=2&after=5>; rel=\"next\", \
                 </v1/a/thread?limit=2&before=3>; rel=\"prev\""
            );
        }
    }
}
