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

use super::{
    envelope::{Stamp, entry_json},
    message::Content,
};

/// How often a reaction was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    pub count: i64,
    /// Whether the user who asks is one of them.
    pub mine: bool,
}

/// What is left of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    Content,
    /// Its author took it back, or somebody who may do so.
    Retracted,
    /// Its time is over.
    Expired,
}

/// What was changed of a message since it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    pub version: i64,
    /// When it was edited last, in milliseconds since 1970.
    pub edited_at_millis: Option<i64>,
    /// By key.
    pub reactions: BTreeMap<String, Reaction>,
    pub remains: Remains,
}

/// The JSON of a message with its newest content.
#[must_use]
pub fn merged_json(stamp: Stamp<'_>, content: &Content, changes: &Changes) -> Bytes {
    #[derive(Serialize)]
    struct Tombstone<'a> {
        seq: i64,
        id: &'a str,
        from: &'a str,
        at: i64,
        r#type: &'a str,
        version: i64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        retracted: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        expired: bool,
    }
    #[derive(Serialize)]
    struct Merged<'a> {
        version: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        edited_at: Option<i64>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        reactions: &'a BTreeMap<String, Reaction>,
    }
    if changes.remains != Remains::Content {
        let tombstone = Tombstone {
            seq: stamp.sequence.get(),
            id: content.id.as_str(),
            from: stamp.from.as_str(),
            at: stamp.at_millis,
            r#type: &content.kind,
            version: changes.version,
            retracted: changes.remains == Remains::Retracted,
            expired: changes.remains == Remains::Expired,
        };
        return json(&tombstone);
    }
    let merged = Merged {
        version: changes.version,
        edited_at: changes.edited_at_millis,
        reactions: &changes.reactions,
    };
    let entry = entry_json(stamp, content);
    let mut merged_json = Vec::with_capacity(entry.len() + 64);
    merged_json.extend_from_slice(entry.strip_suffix(b"}").unwrap_or(&entry));
    merged_json.push(b',');
    let added = json(&merged);
    merged_json.extend_from_slice(added.strip_prefix(b"{").unwrap_or(&added));
    merged_json.into()
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("numbers, texts and maps of them are JSON")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        ids::{ClientMessageId, Subject},
        message::Sequence,
    };

    fn merged(extra: &'static [u8], changes: &Changes) -> serde_json::Value {
        let alice = Subject::new("alice").unwrap();
        let stamp = Stamp {
            sequence: Sequence::FIRST,
            from: &alice,
            at_millis: 5,
        };
        let content = Content {
            id: ClientMessageId::new("m".to_owned()).unwrap(),
            kind: "text".to_owned(),
            body: Bytes::from_static(b"\"hi\""),
            reply_to: None,
            extra: Bytes::from_static(extra),
        };
        serde_json::from_slice(&merged_json(stamp, &content, changes)).unwrap()
    }

    #[test]
    fn changes_stand_beside_the_content() {
        let changes = Changes {
            version: 9,
            edited_at_millis: Some(7),
            reactions: [("👍".to_owned(), Reaction { count: 2, mine: true })].into(),
            remains: Remains::Content,
        };
        let expected = serde_json::json!({
            "seq": 1, "id": "m", "from": "alice", "at": 5, "type": "text", "body": "hi", "x": 1,
            "version": 9, "edited_at": 7, "reactions": {"👍": {"count": 2, "mine": true}},
        });
        assert_eq!(merged(b"{\"x\":1}", &changes), expected);
    }

    #[test]
    fn nothing_is_left_of_what_was_taken_back() {
        let mut changes = Changes {
            version: 9,
            edited_at_millis: Some(7),
            reactions: [("👍".to_owned(), Reaction { count: 2, mine: true })].into(),
            remains: Remains::Retracted,
        };
        let mut expected = serde_json::json!({
            "seq": 1, "id": "m", "from": "alice", "at": 5, "type": "text", "version": 9,
            "retracted": true,
        });
        assert_eq!(merged(b"{\"x\":1}", &changes), expected);
        changes.remains = Remains::Expired;
        expected.as_object_mut().unwrap().remove("retracted");
        expected["expired"] = true.into();
        assert_eq!(merged(b"", &changes), expected);
    }
}
