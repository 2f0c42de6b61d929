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
    /// Of an edited message: its newest content does not say it.
    #[serde(rename = "expires_at", skip_serializing_if = "Option::is_none")]
    pub expires_at_millis: Option<i64>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_stand_beside_the_content() {
        let mut changes = Changes {
            version: 9,
            edited_at_millis: Some(7),
            expires_at_millis: Some(8),
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
            "seq": 1, "body": "hi", "version": 9, "edited_at": 7, "expires_at": 8,
            "reactions": {"👍": {"count": 2, "mine": true}},
        });
        assert_eq!(merged(&changes), expected);
        changes.edited_at_millis = None;
        changes.expires_at_millis = None;
        changes.reactions.clear();
        let expected = serde_json::json!({"seq": 1, "body": "hi", "version": 9});
        assert_eq!(merged(&changes), expected);
    }
}
