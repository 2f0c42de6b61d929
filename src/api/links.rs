//! Where a list goes on, as a header (RFC 8288): what the body says in its `next_…` members.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, Uri};
use reqwest::Url;
use serde_json::{Value, value::RawValue};

/// Which part of a log is asked for: a request names one of them.
const PLACES: [&str; 4] = ["before", "after", "around", "at"];

/// `</v1/…?after=42>; rel="next"` for a body with `"next_after": 42`; nothing if it is the end.
/// If it goes on in both directions, `next_before` is the previous page.
pub(super) fn next_link(uri: &Uri, body: &str) -> Option<HeaderValue> {
    if !body.contains("\"next_") {
        return None;
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(body).ok()?;
    let next: Vec<(&str, String)> = members
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("next_")?, text(value)?)))
        .collect();
    let links: Vec<_> = next
        .iter()
        .filter_map(|(name, value)| {
            let is_previous = *name == "before" && next.len() > 1;
            let relation = if is_previous { "prev" } else { "next" };
            let target = target(uri, name, value)?;
            Some(format!("<{target}>; rel=\"{relation}\""))
        })
        .collect();
    if links.is_empty() {
        return None;
    }
    HeaderValue::from_str(&links.join(", ")).ok()
}

/// The same request, with another place to go on from.
fn target(uri: &Uri, name: &str, value: &str) -> Option<String> {
    let mut url = Url::parse("http://localhost").ok()?;
    url.set_path(uri.path());
    let mut pairs = url.query_pairs_mut();
    let is_place = PLACES.contains(&name);
    for (asked, value) in parse(uri.query().unwrap_or_default()) {
        if asked != name && !(is_place && PLACES.contains(&&*asked)) {
            pairs.append_pair(&asked, &value);
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
                Some("</v1/a/messages?limit=2&before=5>; rel=\"next\""),
            ),
            (r#"{"next_before":5,"next_after":6}"#, Some(around)),
            (
                r#"{"next_cursor":"a b>&"}"#,
                Some("</v1/a/messages?after=1&limit=2&cursor=a+b%3E%26>; rel=\"next\""),
            ),
        ] {
            let link = next_link(&uri, body);
            let link = link.as_ref().map(|link| link.to_str().unwrap());
            assert_eq!(link, expected, "{body}");
        }
    }
}
