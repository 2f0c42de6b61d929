//! Threads: pages of messages with their changes applied, and what has changed since a sequence.
//!
//! A page looks at a bounded number of entries, so it may hold fewer messages than asked for, or
//! none, and still say where to go on: among many reactions there are few messages.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bridge, Caller, ConversationError, check_millis, invalid};
use crate::{
    domain::ids::ConversationId,
    store::{
        hash,
        thread::{self, End, Readable, ThreadMessage},
    },
};

use super::reconcile::{Gap, GapReason, Hash, all};

/// Messages of one page.
const MESSAGES_MAX: i64 = 200;
const MESSAGES_DEFAULT: i64 = 50;
/// Entries that one page looks at.
const ENTRIES_MAX: i64 = 2_000;
/// Entries of one hash.
pub const HASH_ENTRIES_MAX: i64 = 10_000;

/// Which part of a thread is asked for: at most one of the first five; the newest messages if
/// none is given.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThreadWanted {
    /// The last messages before this sequence.
    #[schemars(range(min = 0))]
    before: Option<i64>,
    /// The first messages after this sequence.
    #[schemars(range(min = 0))]
    after: Option<i64>,
    /// Messages on both sides of this sequence.
    #[schemars(range(min = 0))]
    around: Option<i64>,
    /// Messages on both sides of this time, in milliseconds since 1970.
    #[schemars(range(min = 0, max = 253_402_300_799_999_i64))]
    at: Option<i64>,
    /// Messages that the entries after this sequence wrote or changed, in the order of these.
    #[schemars(range(min = 0))]
    changed_since: Option<i64>,
    #[schemars(range(min = 1, max = 200))]
    limit: Option<i64>,
}

/// A part of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Before(i64),
    After(i64),
    Around(i64),
    /// In milliseconds since 1970.
    At(i64),
    ChangedSince(i64),
}

/// A part of a thread, as it was when it was read.
#[derive(Debug)]
pub struct Thread {
    readable: Readable,
    pub messages: Vec<ThreadMessage>,
    next_before: Option<i64>,
    next_after: Option<i64>,
    next_changed_since: Option<i64>,
    gap: Option<Gap>,
}

impl ThreadWanted {
    /// The part, and how many messages at most.
    pub fn check(self) -> Result<(Where, i64), ConversationError> {
        let given = [
            self.before.map(Where::Before),
            self.after.map(Where::After),
            self.around.map(Where::Around),
            self.at.map(Where::At),
            self.changed_since.map(Where::ChangedSince),
        ];
        let mut given = given.into_iter().flatten();
        let part = given.next().unwrap_or(Where::Before(i64::MAX));
        if given.next().is_some() {
            return Err(invalid(
                "give one of `before`, `after`, `around`, `at` and `changed_since`",
            ));
        }
        match part {
            Where::At(millis) => drop(check_millis("at", millis)?),
            Where::Before(sequence)
            | Where::After(sequence)
            | Where::Around(sequence)
            | Where::ChangedSince(sequence)
                if sequence < 0 =>
            {
                return Err(invalid("a sequence is not negative"));
            }
            _ => {}
        }
        match self.limit.unwrap_or(MESSAGES_DEFAULT) {
            limit @ 1..=MESSAGES_MAX => Ok((part, limit)),
            _ => Err(invalid(format!(
                "`limit` lies between 1 and {MESSAGES_MAX}"
            ))),
        }
    }
}

/// A run of messages, and where it ends on both sides: nothing between is missing.
struct Run {
    messages: Vec<ThreadMessage>,
    /// The entries that were looked at for it.
    from: i64,
    to: i64,
}

impl Bridge {
    /// A part of a thread of at most `limit` messages and `bytes_max` bytes, or one message. Who
    /// was removed reads it up to then.
    pub async fn thread(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        part: Where,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Thread, ConversationError> {
        // Before the messages: what is stored in between may be among them, and is found again
        // by whoever goes on after `last_seq`.
        let readable = self.readable(caller, conversation).await?;
        let (low, high) = (readable.low(), readable.last_seq);
        let whose = (conversation, caller.user);
        let reader = Reader {
            bridge: self,
            whose,
            readable,
        };
        let asked_from = match part {
            Where::Before(sequence) => return reader.before(sequence, limit, bytes_max).await,
            Where::ChangedSince(sequence) => {
                return reader.changed(sequence, limit, bytes_max).await;
            }
            Where::After(sequence) => {
                let run = reader.oldest(sequence.saturating_add(1), limit, bytes_max);
                return Ok(reader.page(run.await?, sequence.saturating_add(1)));
            }
            Where::Around(sequence) => sequence,
            Where::At(millis) => {
                let mut conn = self.pool().acquire().await?;
                thread::sequence_at(&mut conn, conversation, (low, high), millis).await?
            }
        };
        let middle = asked_from.clamp(low, high.max(low));
        let before = reader.newest(middle, limit / 2, bytes_max / 2).await?;
        let limit = limit - i64::try_from(before.messages.len()).unwrap_or(0);
        let after = reader.oldest(middle, limit, bytes_max / 2).await?;
        let mut messages = before.messages;
        messages.extend(after.messages);
        let run = Run {
            messages,
            from: before.from,
            to: after.to,
        };
        Ok(reader.page(run, asked_from))
    }

    /// A hash over entries that the caller may read; all of them if no end is given.
    pub async fn log_hash(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        from: Option<i64>,
        to: Option<i64>,
    ) -> Result<Hash, ConversationError> {
        let readable = self.readable(caller, conversation).await?;
        let (low, high) = (readable.low(), readable.last_seq);
        let (from, to) = (from.unwrap_or(low), to.unwrap_or(high));
        if from < low || to > high || from > to.saturating_add(1) {
            return Err(invalid(format!(
                "you may read the entries {low} to {high} of this conversation"
            )));
        }
        if to - from >= HASH_ENTRIES_MAX {
            return Err(invalid(format!(
                "a hash covers at most {HASH_ENTRIES_MAX} entries; the hashes of parts add up"
            )));
        }
        let mut conn = self.pool().acquire().await?;
        let sums = hash::rolling(&mut conn, &[(conversation, from, to)]).await?;
        Ok(Hash::new(from, to, sums.first().copied().unwrap_or(0)))
    }
}

/// Reads parts of one thread.
struct Reader<'a> {
    bridge: &'a Bridge,
    whose: (ConversationId, crate::domain::ids::UserId),
    readable: Readable,
}

impl Reader<'_> {
    async fn before(
        &self,
        sequence: i64,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Thread, ConversationError> {
        let run = self.newest(sequence, limit, bytes_max).await?;
        // Only whoever came to the beginning is told what is missing there.
        let is_begin = run.from <= self.readable.low();
        let asked_from = if is_begin { 0 } else { run.from };
        Ok(self.page(run, asked_from))
    }

    /// The first messages from an entry on.
    async fn oldest(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Run, ConversationError> {
        let (low, high) = (self.readable.low(), self.readable.last_seq);
        let from = from.max(low).min(high.max(low - 1) + 1);
        let to = high.min(from.saturating_add(ENTRIES_MAX - 1));
        let mut messages = self.between((from, to), End::Oldest, limit).await?;
        let is_cut = cut(&mut messages, limit, bytes_max);
        let last = messages.last().filter(|_| is_cut);
        let to = last.map_or(to.max(from - 1), |message| message.seq);
        Ok(Run { messages, from, to })
    }

    /// The last messages before an entry.
    async fn newest(
        &self,
        before: i64,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Run, ConversationError> {
        let (low, high) = (self.readable.low(), self.readable.last_seq);
        let to = before.saturating_sub(1).min(high).max(low - 1);
        let from = low.max(to - ENTRIES_MAX + 1);
        if limit == 0 {
            let messages = Vec::new();
            return Ok(Run {
                messages,
                from: to + 1,
                to,
            });
        }
        let mut messages = self.between((from, to), End::Newest, limit).await?;
        messages.reverse();
        let is_cut = cut(&mut messages, limit, bytes_max);
        messages.reverse();
        let first = messages.first().filter(|_| is_cut);
        let from = first.map_or(from, |message| message.seq);
        Ok(Run { messages, from, to })
    }

    async fn changed(
        &self,
        sequence: i64,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Thread, ConversationError> {
        let (low, high) = (self.readable.low(), self.readable.last_seq);
        // Nothing before `low` has changed a message that can be read.
        let from = sequence.saturating_add(1).max(low);
        let to = high.min(from.saturating_add(ENTRIES_MAX - 1));
        let left = self.readable.left_seq;
        // What changes once more while this is read is then found by its younger version.
        let is_last = to == high && left.is_none();
        let range = (from, if is_last { i64::MAX } else { to });
        let mut conn = self.bridge.pool().acquire().await?;
        let mut messages =
            thread::changed(&mut conn, self.whose, left, low, range, limit + 1).await?;
        let is_cut = cut(&mut messages, limit, bytes_max);
        let last = messages.last().filter(|_| is_cut);
        let next = last.map_or(to, |message| message.changed_by);
        Ok(Thread {
            messages,
            next_before: None,
            next_after: None,
            next_changed_since: (is_cut || next < high).then_some(next),
            gap: if sequence > high {
                Some(all(self.whose.0, &self.readable, GapReason::Ahead))
            } else {
                self.gap(sequence.saturating_add(1))
            },
            readable: self.readable,
        })
    }

    /// One more than wanted says whether there is more.
    async fn between(
        &self,
        range: (i64, i64),
        end: End,
        limit: i64,
    ) -> Result<Vec<ThreadMessage>, ConversationError> {
        let mut conn = self.bridge.pool().acquire().await?;
        let left = self.readable.left_seq;
        Ok(thread::between(&mut conn, self.whose, left, range, end, limit + 1).await?)
    }

    fn page(&self, run: Run, asked_from: i64) -> Thread {
        let (low, high) = (self.readable.low(), self.readable.last_seq);
        Thread {
            messages: run.messages,
            next_before: (run.from > low).then_some(run.from),
            next_after: (run.to < high).then_some(run.to),
            next_changed_since: None,
            gap: self.gap(asked_from),
            readable: self.readable,
        }
    }

    /// What has been erased of the entries from there on.
    fn gap(&self, asked_from: i64) -> Option<Gap> {
        let from = asked_from.max(self.readable.visible_from);
        let to = self.readable.first_seq - 1;
        (from <= to).then_some(Gap {
            from,
            to,
            reason: GapReason::Retention,
            href: None,
        })
    }
}

/// Leaves out messages at the end until there are at most `limit` and `bytes_max` bytes, or one.
/// Whether some were left out.
fn cut(messages: &mut Vec<ThreadMessage>, limit: i64, bytes_max: usize) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = 0;
    let fitting = messages.iter().take(limit).take_while(|message| {
        bytes += message.payload.len();
        bytes <= bytes_max
    });
    let kept = fitting.count().max(1).min(messages.len());
    let is_cut = kept < messages.len();
    messages.truncate(kept);
    is_cut
}

/// A part of a thread, as it is shown.
#[derive(Serialize, JsonSchema)]
pub struct ThreadShown {
    epoch: i32,
    /// The newest entry when the thread was read: what comes later is found by `changed_since`.
    last_seq: i64,
    /// The first entry that can be read.
    visible_from: i64,
    messages: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where to go on, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_changed_since: Option<i64>,
    /// What was asked for and is erased; or, if the client asks for changes since an entry that
    /// there is not, all that it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

impl Thread {
    /// A [`ThreadShown`], whose messages are encoded already.
    #[must_use]
    pub fn json(&self) -> String {
        let size: usize = self.messages.iter().map(|m| m.payload.len() + 1).sum();
        let mut json = String::with_capacity(size + 200);
        let (epoch, last, low) = (
            self.readable.epoch,
            self.readable.last_seq,
            self.readable.low(),
        );
        // Writing to a string cannot fail.
        let _ = write!(
            json,
            r#"{{"epoch":{epoch},"last_seq":{last},"visible_from":{low},"messages":["#
        );
        for (place, message) in self.messages.iter().enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(&String::from_utf8_lossy(&message.payload));
        }
        json.push(']');
        let nexts = [
            ("next_before", self.next_before),
            ("next_after", self.next_after),
            ("next_changed_since", self.next_changed_since),
        ];
        for (name, next) in nexts {
            if let Some(next) = next {
                let _ = write!(json, r#","{name}":{next}"#);
            }
        }
        if let Some(gap) = &self.gap {
            let gap = serde_json::to_string(gap).unwrap_or_default();
            let _ = write!(json, r#","gap":{gap}"#);
        }
        json.push('}');
        json
    }
}
