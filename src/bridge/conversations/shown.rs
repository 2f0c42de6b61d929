//! The JSON of what users are shown, the same over REST and MQTT.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConversationError, Page, Range};
use crate::{
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

/// Which page of a log is asked for.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageWanted {
    #[schemars(range(min = 0, max = i64::MAX))]
    after: Option<i64>,
    #[schemars(range(min = 0, max = i64::MAX))]
    before: Option<i64>,
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
        let range = match (self.after, self.before) {
            (Some(_), Some(_)) => {
                return Err(invalid("give `after` or `before`, not both"));
            }
            (Some(sequence), None) | (None, Some(sequence)) if sequence < 0 => {
                return Err(invalid("a sequence is not negative"));
            }
            (_, Some(sequence)) => Range::Before(sequence),
            (sequence, None) => Range::After(sequence.unwrap_or(0)),
        };
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
    /// Leaves out entries at the far end until there are at most `bytes_max` bytes, or one.
    pub fn shorten(&mut self, range: Range, bytes_max: usize) {
        let mut bytes = 0;
        let mut fits = |entry: &SharedEntry| {
            bytes += entry.payload.len();
            bytes <= bytes_max
        };
        let kept = match range {
            Range::After(_) => self.entries.iter().take_while(|entry| fits(entry)).count(),
            Range::Before(_) => {
                let newest_first = self.entries.iter().rev();
                newest_first.take_while(|entry| fits(entry)).count()
            }
        };
        let surplus = self.entries.len() - kept.max(1).min(self.entries.len());
        match range {
            Range::After(_) => self.entries.truncate(self.entries.len() - surplus),
            Range::Before(_) => drop(self.entries.drain(..surplus)),
        }
        self.has_more |= surplus > 0;
    }

    /// The entries as they are encoded already, with where to go on if there is more.
    #[must_use]
    pub fn json(&self, range: Range) -> String {
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
        let (name, next) = match range {
            Range::After(_) => ("next_after", self.entries.last()),
            Range::Before(_) => ("next_before", self.entries.first()),
        };
        if let Some(entry) = next.filter(|_| self.has_more) {
            let sequence = entry.position.sequence.get();
            for part in [",\"", name, "\":", &sequence.to_string()] {
                json.push_str(part);
            }
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::domain::message::{LogEntry, Position, Sequence};

    fn page() -> Page {
        let conversation = ConversationId(uuid::Uuid::from_u128(1));
        let entry = |number: i64| {
            let position = Position {
                conversation,
                sequence: Sequence::new(number).unwrap(),
            };
            let payload = Bytes::from(format!("[{number}]"));
            Arc::new(LogEntry::new(position, None, payload))
        };
        Page {
            entries: (1..=4).map(entry).collect(),
            has_more: false,
        }
    }

    #[test]
    fn a_page_is_cut_at_its_far_end() {
        let (after, before) = (Range::After(0), Range::Before(5));
        for (range, bytes_max, expected) in [
            (after, 12, r#"{"entries":[[1],[2],[3],[4]]}"#),
            (after, 11, r#"{"entries":[[1],[2],[3]],"next_after":3}"#),
            (before, 11, r#"{"entries":[[2],[3],[4]],"next_before":2}"#),
            (after, 1, r#"{"entries":[[1]],"next_after":1}"#),
            (before, 0, r#"{"entries":[[4]],"next_before":4}"#),
        ] {
            let mut page = page();
            page.shorten(range, bytes_max);
            assert_eq!(page.json(range), expected, "{range:?} {bytes_max}");
        }
        let mut empty = page();
        empty.entries.clear();
        empty.shorten(after, 0);
        assert_eq!(empty.json(after), r#"{"entries":[]}"#);
    }
}
