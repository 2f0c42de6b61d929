//! Reconciling: a client says what it shows, and is told what of it is wrong.
//!
//! ```text
//!   it shows            it is told
//!   ─────────────────   ───────────────────────────────────────────────────────────────
//!   an old version      the row
//!   an old sequence     the row, and `behind`: what it lacks, and where that is
//!   what is not there   the row, and `gap`: erased, another epoch, ahead of the log
//!   another hash        the row, and `mismatch`: it holds other entries than the log
//!   no part any more    `removed`, and what it lacks up to then
//!   somebody else's     `unknown`, as if there were none
//! ```

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bridge, Caller, ConversationError, InboxRow, check_millis, invalid, thread::HASH_ENTRIES_MAX,
};
use crate::{
    domain::ids::ConversationId,
    store::{
        hash,
        inbox::{self, Wanted},
        thread::{self, Readable},
    },
};

/// Conversations in one request.
const HELD_MAX: usize = 500;
/// Conversations that a client did not name, in one answer.
const CHANGED_MAX: usize = 100;

/// What a client shows of a conversation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub conversation: ConversationId,
    /// Up to where it holds the log; absent if it holds none of it.
    #[schemars(range(min = 0))]
    pub seq: Option<i64>,
    /// Of its inbox row; absent if it shows none.
    pub version: Option<i64>,
    pub epoch: Option<i32>,
    /// Of entries that it holds.
    pub hash: Option<HeldHash>,
}

/// A hash over entries that a client holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldHash {
    #[schemars(range(min = 1))]
    pub from: i64,
    #[schemars(range(min = 1))]
    pub to: i64,
    #[schemars(regex(pattern = "^[0-9a-f]{16}$"))]
    pub value: String,
}

/// A hash over the entries `from..=to` of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hash {
    pub from: i64,
    pub to: i64,
    /// 16 hexadecimal digits: the sum modulo 2^64 of the first 8 bytes of
    /// SHA-256("{seq}:{from}:{id}") of each entry. The values of neighbouring ranges add up. It
    /// covers which entries there are and of whom, not what they say: that may be taken back.
    pub value: String,
}

/// What is different.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reconciled {
    /// For the next time, as `since`.
    pub as_of: i64,
    pub conversations: Vec<Difference>,
    /// More conversations changed since than fit: GET this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
    /// The place in the request of the first item that was not looked at, because the answer got
    /// too long: send it and those after it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanswered_from: Option<usize>,
}

/// What is different about a conversation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Difference {
    pub conversation: ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<InboxRow>,
    /// Entries that the client lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<Behind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The client holds other entries than the log: drop them, and read them again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mismatch: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// There is none, or none that the caller may know of.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// Entries that a client lacks.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Behind {
    pub from: i64,
    pub to: i64,
    /// GET it for the messages that they wrote or changed.
    pub href: String,
}

/// Entries that there are not, or not for the caller.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Gap {
    pub from: i64,
    pub to: i64,
    pub reason: GapReason,
    /// GET it in place of what the client holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
}

/// Why entries are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// They have been erased.
    Retention,
    /// The caller took no part when they were written, and may not read them.
    Membership,
    /// The log has begun a new epoch: all that the client holds may be wrong.
    Epoch,
    /// The client holds more than there is: all that it holds may be wrong.
    Ahead,
}

impl Hash {
    pub(super) fn new(from: i64, to: i64, sum: u64) -> Self {
        let value = format!("{sum:016x}");
        Self { from, to, value }
    }
}

impl Held {
    fn check(&self) -> Result<(), ConversationError> {
        if self.seq.is_some_and(|seq| seq < 0) {
            return Err(invalid("a sequence is not negative"));
        }
        let Some(hash) = &self.hash else {
            return Ok(());
        };
        let is_value = hash.value.len() == 16
            && hash
                .value
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hash.from < 1 || hash.to < hash.from || !is_value {
            return Err(invalid(
                "a hash has `from`, `to` from there on, and a `value` of 16 hexadecimal digits",
            ));
        }
        Ok(())
    }
}

fn check(held: &[Held]) -> Result<(), ConversationError> {
    if held.len() > HELD_MAX {
        return Err(invalid(format!(
            "{} conversations are too many, {HELD_MAX} are allowed",
            held.len()
        )));
    }
    held.iter().try_for_each(Held::check)?;
    let hashes = held.iter().filter_map(|held| held.hash.as_ref());
    let entries = hashes.fold(0_i64, |sum, hash| {
        sum.saturating_add((hash.to - hash.from).saturating_add(1))
    });
    if entries > HASH_ENTRIES_MAX {
        return Err(invalid(format!(
            "the hashes of one request cover at most {HASH_ENTRIES_MAX} entries"
        )));
    }
    Ok(())
}

impl Bridge {
    /// Compares what a client shows with what there is. `since`, the `as_of` of an earlier
    /// answer, adds conversations that it does not name and that changed since. Over `bytes_max`
    /// the answer is cut off.
    pub async fn reconcile(
        &self,
        caller: &Caller,
        held: &[Held],
        since: Option<i64>,
        bytes_max: usize,
    ) -> Result<Reconciled, ConversationError> {
        check(held)?;
        let since = since
            .map(|millis| check_millis("since", millis))
            .transpose()?;
        let mut conn = self.pool().acquire().await?;
        let as_of = inbox::as_of_millis(&mut conn).await?;
        let ids: Vec<_> = held.iter().map(|held| held.conversation).collect();
        let readable = thread::readable(&mut conn, caller.user, &ids).await?;
        let readable: HashMap<_, _> = readable.into_iter().collect();
        let mismatches = mismatches(&mut conn, held, &readable).await?;
        let mut differences: Vec<_> = held
            .iter()
            .zip(mismatches)
            .enumerate()
            .filter_map(|(place, (held, mismatch))| {
                let state = readable.get(&held.conversation);
                difference(held, state, mismatch).map(|difference| (place, difference))
            })
            .collect();
        let known = differences
            .iter()
            .filter(|(_, difference)| !difference.unknown);
        let pairs: Vec<_> = known
            .map(|(_, difference)| (caller.user, difference.conversation))
            .collect();
        let rows = inbox::rows(&mut conn, &pairs).await?;
        let mut rows: HashMap<_, _> = rows
            .into_iter()
            .map(|row| (row.conversation, row))
            .collect();
        for (_, difference) in &mut differences {
            difference.row = rows.remove(&difference.conversation).map(InboxRow::from);
        }
        let unanswered_from = cut(&mut differences, bytes_max);
        let mut reconciled = Reconciled {
            as_of,
            conversations: differences
                .into_iter()
                .map(|(_, difference)| difference)
                .collect(),
            more: None,
            unanswered_from,
        };
        if let Some(since) = since {
            let wanted = Wanted {
                since_millis: Some(since),
                limit: i64::try_from(ids.len() + CHANGED_MAX + 1).unwrap_or(i64::MAX),
                ..Wanted::default()
            };
            let named: HashSet<_> = ids.into_iter().collect();
            let rows = inbox::page(&mut conn, caller.user, &wanted).await?;
            let rows = rows
                .into_iter()
                .filter(|row| !named.contains(&row.conversation));
            add_changed(&mut reconciled, rows, since);
        }
        Ok(reconciled)
    }
}

/// For each item, whether it has a hash that is not that of the log.
async fn mismatches(
    conn: &mut sqlx::PgConnection,
    held: &[Held],
    readable: &HashMap<ConversationId, Readable>,
) -> Result<Vec<bool>, ConversationError> {
    let range = |held: &Held| {
        let state = readable.get(&held.conversation)?;
        let hash = held.hash.as_ref()?;
        let is_readable = hash.from >= state.low() && hash.to <= state.last_seq;
        is_readable.then_some((held.conversation, hash.from, hash.to))
    };
    let ranges: Vec<_> = held.iter().filter_map(range).collect();
    let mut sums = if ranges.is_empty() {
        Vec::new()
    } else {
        hash::rolling(conn, &ranges).await?
    }
    .into_iter();
    let mismatches = held.iter().map(|held| match (&held.hash, range(held)) {
        (None, _) => false,
        // Entries that there are not, or not any more, prove nothing.
        (Some(_), None) => true,
        (Some(hash), Some((_, from, to))) => {
            let log = Hash::new(from, to, sums.next().unwrap_or_default());
            hash.value != log.value
        }
    });
    Ok(mismatches.collect())
}

fn difference(held: &Held, state: Option<&Readable>, mismatch: bool) -> Option<Difference> {
    let mut difference = Difference {
        conversation: held.conversation,
        row: None,
        behind: None,
        gap: None,
        mismatch,
        removed: false,
        unknown: false,
    };
    let Some(state) = state else {
        difference.unknown = true;
        difference.mismatch = false;
        return Some(difference);
    };
    let version = state.last_seq + state.own_version;
    let is_other_row = held
        .version
        .map_or(held.seq.is_none(), |held| held != version);
    difference.removed = state.left_seq.is_some();
    let is_news = difference.removed && held.version.is_none();
    if held.epoch.is_some_and(|epoch| epoch != state.epoch) {
        difference.gap = Some(all(held.conversation, state, GapReason::Epoch));
    } else if let Some(seq) = held.seq {
        if seq > state.last_seq {
            difference.gap = Some(all(held.conversation, state, GapReason::Ahead));
        } else {
            difference.behind = behind(held.conversation, state, seq);
            difference.gap = missing(state, seq);
        }
    }
    let differs = is_other_row
        || is_news
        || mismatch
        || difference.gap.is_some()
        || difference.behind.is_some();
    differs.then_some(difference)
}

/// Everything, to be read anew.
pub(super) fn all(conversation: ConversationId, state: &Readable, reason: GapReason) -> Gap {
    Gap {
        from: state.low(),
        to: state.last_seq,
        reason,
        href: Some(format!("/v1/conversations/{conversation}/thread")),
    }
}

fn behind(conversation: ConversationId, state: &Readable, seq: i64) -> Option<Behind> {
    let from = state.low().max(seq + 1);
    let since = from - 1;
    (from <= state.last_seq).then(|| Behind {
        from,
        to: state.last_seq,
        href: format!("/v1/conversations/{conversation}/thread?changed_since={since}"),
    })
}

/// What lies between that sequence and what can be read now. Whoever holds nothing lacks nothing.
fn missing(state: &Readable, seq: i64) -> Option<Gap> {
    let from = seq + 1;
    let reason = if state.first_seq > state.visible_from {
        GapReason::Retention
    } else {
        GapReason::Membership
    };
    (seq > 0 && from < state.low()).then(|| Gap {
        from,
        to: state.low() - 1,
        reason,
        href: None,
    })
}

/// Leaves out differences until what remains has at most that many bytes; says which item was the
/// first one left out.
fn cut(differences: &mut Vec<(usize, Difference)>, bytes_max: usize) -> Option<usize> {
    let mut bytes = 0;
    let surplus = differences.iter().position(|(_, difference)| {
        bytes += serde_json::to_vec(difference).map_or(0, |json| json.len());
        bytes > bytes_max
    })?;
    let surplus = surplus.max(1);
    let place = differences.get(surplus).map(|(place, _)| *place);
    differences.truncate(surplus);
    place
}

fn add_changed(reconciled: &mut Reconciled, rows: impl Iterator<Item = inbox::Row>, since: i64) {
    for (place, row) in rows.enumerate() {
        if place == CHANGED_MAX || reconciled.unanswered_from.is_some() {
            reconciled.more = Some(format!("/v1/inbox?changed_since={since}"));
            return;
        }
        let removed = row.is_removed;
        reconciled.conversations.push(Difference {
            conversation: row.conversation,
            row: Some(row.into()),
            behind: None,
            gap: None,
            mismatch: false,
            removed,
            unknown: false,
        });
    }
}
