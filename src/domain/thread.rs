//! A message as people see it: what was said first, with all that was changed since.
//!
//! ```text
//!   {"seq": 41, "id": "…", "from": "alice", "at": …, "type": "text", "body": "the newest content",
//!    "version": 57, "edited_at": …, "reactions": {"👍": {"count": 3, "mine": true}}}
//!   {"seq": 42, "id": "…", "from": "alice", "at": …, "type": "text", "version": 60, "retracted": true}
//! ```
//!
//! `version` is the sequence of the last change, and the message's own if there was none: of
//! two copies, the one with the higher version is right.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How often a reaction was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionCount {
    pub count: i64,
    /// Whether the user who asks is one of them.
    pub mine: bool,
}

/// What was changed of a message since it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    pub version: i64,
    /// When it was edited last, in milliseconds since 1970.
    #[serde(rename = "edited_at", skip_serializing_if = "Option::is_none")]
    pub edited_at_millis: Option<i64>,
    /// By key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reactions: BTreeMap<String, ReactionCount>,
}

/// The JSON of a message: that of its entry with the newest content, and its changes beside it.
///
/// # Panics
///
/// Never: numbers, texts and maps of them are JSON.
#[must_use]
pub fn merged_json(entry: &[u8], changes: &Changes) -> Bytes {
    let added = serde_json::to_vec(changes).expect("numbers, texts and maps of them are JSON");
    let mut json = Vec::with_capacity(entry.len() + added.len());
    json.extend_from_slice(entry.strip_suffix(b"}").unwrap_or(entry));
    json.push(b',');
    json.extend_from_slice(added.strip_prefix(b"{").unwrap_or(&added));
    json.into()
}

/// What an edited message says beside its body: what its newest edit says, and of what was said
/// `first` the time when it disappears. Whom it mentions says the newest edit that names somebody
/// or nobody, `naming`. Each is a JSON object, or nothing.
///
/// # Errors
///
/// One of them is no JSON object.
pub fn edited_extra(
    newest: &[u8],
    first: &[u8],
    naming: &[u8],
) -> Result<Vec<u8>, serde_json::Error> {
    let mut extra = members(newest)?;
    for (json, name) in [(first, "expires_at"), (naming, "mentions")] {
        if let Some(value) = members(json)?.remove(name) {
            extra.insert(name.to_owned(), value);
        }
    }
    if extra.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::to_vec(&extra)
}

fn members(json: &[u8]) -> Result<BTreeMap<String, Box<RawValue>>, serde_json::Error> {
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_slice(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_leaves_what_it_does_not_speak_of() {
        let first: &[u8] = br#"{"mentions":["bob"],"expires_at":9,"urgent":true,"x":1}"#;
        let naming: &[u8] = br#"{"mentions":[],"y":1.50}"#;
        for (newest, naming, expected) in [
            (&b""[..], first, r#"{"expires_at":9,"mentions":["bob"]}"#),
            (
                br#"{"y":1.50}"#,
                first,
                r#"{"expires_at":9,"mentions":["bob"],"y":1.50}"#,
            ),
            (naming, naming, r#"{"expires_at":9,"mentions":[],"y":1.50}"#),
        ] {
            let extra = edited_extra(newest, first, naming).unwrap();
            assert_eq!(String::from_utf8(extra).unwrap(), expected);
        }
        assert!(edited_extra(b"", b"", b"").unwrap().is_empty());
    }

    #[test]
    fn changes_stand_beside_the_content() {
        let mut changes = Changes {
            version: 9,
            edited_at_millis: Some(7),
            reactions: [(
                "👍".to_owned(),
                ReactionCount {
                    count: 2,
                    mine: true,
                },
            )]
            .into(),
        };
        let merged = |changes: &Changes| {
            let json = merged_json(br#"{"seq":1,"body":"hi"}"#, changes);
            serde_json::from_slice::<serde_json::Value>(&json).unwrap()
        };
        let expected = serde_json::json!({
            "seq": 1, "body": "hi", "version": 9, "edited_at": 7,
            "reactions": {"👍": {"count": 2, "mine": true}},
        });
        assert_eq!(merged(&changes), expected);
        changes.edited_at_millis = None;
        changes.reactions.clear();
        let expected = serde_json::json!({"seq": 1, "body": "hi", "version": 9});
        assert_eq!(merged(&changes), expected);
    }
}
