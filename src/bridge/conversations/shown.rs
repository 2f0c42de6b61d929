//! The JSON of what users are shown, the same over REST and MQTT.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConversationError, Page, Range};
use crate::{
    bridge::inbox::check_millis,
    domain::{change::Until, ids::ConversationId, message::SharedEntry},
    store::view::View,
};

/// Entries on a page whose size is not said.
const PAGE_ENTRIES_DEFAULT: usize = 50;

/// A conversation; without the last five if an administrator looks from outside.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    id: ConversationId,
    kind: &'static str,
    title: Option<String>,
    epoch: i32,
    last_seq: i64,
    created_at: i64,
    /// Closed for everybody: it is read, and nothing more is written.
    archived: bool,
    /// Whether participants are told how far the others have got.
    receipts: bool,
    /// How many entries before their own beginning newcomers may read; null is all of them.
    history_depth: Option<i64>,
    /// Contents older than this are erased; null keeps them.
    retention_seconds: Option<i64>,
    #[serde(flatten)]
    own: Option<Own>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Own {
    role: &'static str,
    delivered: i64,
    read: i64,
    unread: i64,
    /// Until when the caller may not write; null if they may.
    silenced_until: Option<Until>,
}

impl Shown {
    pub(super) fn new(id: ConversationId, view: View, unread: i64) -> Self {
        let own = view.current().map(|participation| Own {
            role: participation.role.as_str(),
            delivered: participation.delivered,
            read: participation.read,
            unread,
            silenced_until: participation.silenced,
        });
        Self {
            id,
            kind: view.kind.as_str(),
            title: view.settings.title,
            epoch: view.epoch,
            last_seq: view.last_seq,
            created_at: view.created_at_millis,
            archived: view.settings.is_archived,
            receipts: view.settings.receipts,
            history_depth: view.settings.history_depth,
            retention_seconds: view.settings.retention_seconds,
            own,
        }
    }
}

/// Which page of a log is asked for: at most one of the first four.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageWanted {
    /// The first entries after this sequence; the first of all if nothing is given.
    #[schemars(range(min = 0, max = i64::MAX))]
    after: Option<i64>,
    /// The last entries before this sequence.
    #[schemars(range(min = 0, max = i64::MAX))]
    before: Option<i64>,
    /// Entries on both sides of this sequence.
    #[schemars(range(min = 0, max = i64::MAX))]
    around: Option<i64>,
    /// Entries on both sides of this time, in milliseconds since 1970.
    #[schemars(range(min = 0, max = 253_402_300_799_999_i64))]
    at: Option<i64>,
    #[schemars(range(min = 1, max = 200))]
    limit: Option<i64>,
}

/// A page of the log, as it is shown.
#[derive(Serialize, JsonSchema)]
pub struct PageShown {
    entries: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where to go on, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
}

impl PageWanted {
    /// The part of the log, and how many entries at most.
    pub fn check(self, entries_max: usize) -> Result<(Range, usize), ConversationError> {
        let given = [
            self.after.map(Range::After),
            self.before.map(Range::Before),
            self.around.map(Range::Around),
            self.at.map(Range::At),
        ];
        let mut given = given.into_iter().flatten();
        let range = given.next().unwrap_or(Range::After(0));
        if given.next().is_some() {
            return Err(invalid("give one of `after`, `before`, `around` and `at`"));
        }
        match range {
            Range::At(millis) => drop(check_millis("at", millis)?),
            Range::After(sequence) | Range::Before(sequence) | Range::Around(sequence)
                if sequence < 0 =>
            {
                return Err(invalid("a sequence is not negative"));
            }
            _ => {}
        }
        let Some(limit) = self.limit else {
            return Ok((range, PAGE_ENTRIES_DEFAULT.min(entries_max)));
        };
        match usize::try_from(limit) {
            Ok(limit) if (1..=entries_max).contains(&limit) => Ok((range, limit)),
            _ => Err(invalid(format!("`limit` lies between 1 and {entries_max}"))),
        }
    }
}

fn invalid(reason: impl Into<String>) -> ConversationError {
    ConversationError::Invalid(reason.into())
}

impl Page {
    /// The first of some entries: at most `limit` and `bytes_max` bytes, or one.
    pub(super) fn oldest(mut entries: Vec<SharedEntry>, limit: usize, bytes_max: usize) -> Self {
        let has_later = cut(&mut entries, limit, bytes_max);
        Self {
            entries,
            has_later,
            ..Self::default()
        }
    }

    /// The last of some entries: at most `limit` and `bytes_max` bytes, or one.
    pub(super) fn newest(mut entries: Vec<SharedEntry>, limit: usize, bytes_max: usize) -> Self {
        entries.reverse();
        let has_earlier = cut(&mut entries, limit, bytes_max);
        entries.reverse();
        Self {
            entries,
            has_earlier,
            ..Self::default()
        }
    }

    /// The entries as they are encoded already, with where to go on if there is more.
    #[must_use]
    pub fn json(&self) -> String {
        let size: usize = self
            .entries
            .iter()
            .map(|entry| entry.payload.len() + 1)
            .sum();
        let mut json = String::with_capacity(size + 64);
        json.push_str("{\"entries\":[");
        for (place, entry) in self.entries.iter().enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(&String::from_utf8_lossy(&entry.payload));
        }
        json.push(']');
        let nexts = [
            ("next_before", self.entries.first(), self.has_earlier),
            ("next_after", self.entries.last(), self.has_later),
        ];
        for (name, entry, goes_on) in nexts {
            if let Some(entry) = entry.filter(|_| goes_on) {
                let sequence = entry.position.sequence.get();
                for part in [",\"", name, "\":", &sequence.to_string()] {
                    json.push_str(part);
                }
            }
        }
        json.push('}');
        json
    }
}

/// Leaves out entries at the end until there are at most `limit` and `bytes_max` bytes, or one.
/// Whether some were left out.
fn cut(entries: &mut Vec<SharedEntry>, limit: usize, bytes_max: usize) -> bool {
    let mut bytes = 0;
    let fitting = entries.iter().take(limit).take_while(|entry| {
        bytes += entry.payload.len();
        bytes <= bytes_max
    });
    let kept = fitting.count().max(limit.min(1)).min(entries.len());
    let is_cut = kept < entries.len();
    entries.truncate(kept);
    is_cut
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::domain::message::{LogEntry, Position, Sequence};

    fn entries() -> Vec<SharedEntry> {
        let conversation = ConversationId(uuid::Uuid::from_u128(1));
        let entry = |number: i64| {
            let position = Position {
                conversation,
                sequence: Sequence::new(number).unwrap(),
            };
            let payload = Bytes::from(format!("[{number}]"));
            Arc::new(LogEntry::new(position, None, payload))
        };
        (1..=4).map(entry).collect()
    }

    #[test]
    fn a_page_is_cut_at_its_far_end() {
        let (after, before): (fn(_, _, _) -> _, fn(_, _, _) -> _) = (Page::oldest, Page::newest);
        for (end, limit, bytes_max, expected) in [
            (after, 4, 12, r#"{"entries":[[1],[2],[3],[4]]}"#),
            (after, 4, 11, r#"{"entries":[[1],[2],[3]],"next_after":3}"#),
            (after, 3, 12, r#"{"entries":[[1],[2],[3]],"next_after":3}"#),
            (
                before,
                4,
                11,
                r#"{"entries":[[2],[3],[4]],"next_before":2}"#,
            ),
            (
                before,
                3,
                12,
                r#"{"entries":[[2],[3],[4]],"next_before":2}"#,
            ),
            (after, 4, 1, r#"{"entries":[[1]],"next_after":1}"#),
            (before, 4, 0, r#"{"entries":[[4]],"next_before":4}"#),
        ] {
            let page: Page = end(entries(), limit, bytes_max);
            assert_eq!(page.json(), expected, "{limit} {bytes_max}");
        }
        assert_eq!(Page::oldest(Vec::new(), 4, 0).json(), r#"{"entries":[]}"#);
        // Nothing is wanted of this side, but there is something.
        let none = Page::newest(entries(), 0, 12);
        assert!(none.entries.is_empty() && none.has_earlier);
    }
}
