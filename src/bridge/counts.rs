//! Receipts of large conversations: how many have got how far, told to the authors.
//!
//! ```text
//!   standings rise ── mark ──▶ at once, if nothing was told for an interval  ─┐
//!                              otherwise when the interval is over            ├─▶ authors that
//!                              (once, however many rose meanwhile)           ─┘   are connected
//! ```
//!
//! What is told is read from the store then: it is exact, and no counter is kept. An author who
//! connects later asks (`q/receipts`), and hears of every rise from then on.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashbrown::{HashMap, HashSet};
use sqlx::{PgConnection, PgPool};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{commits::Commits, mailbox::ReceiptNotice};
use crate::{
    domain::{
        ids::{ConversationId, UserId},
        receipt::{Count, Counts},
    },
    store::{
        StoreError,
        status::{self, Standpoint},
    },
    telemetry::metrics::BridgeMetrics,
};

/// Entries at the end of a log whose authors are told.
const ENTRIES_MAX: i64 = 500;
/// Messages that one author is told of: the newest.
const MESSAGES_MAX: usize = 10;
/// Conversations that wait to be told of, or are remembered.
const CONVERSATIONS_MAX: usize = 10_000;

/// Where large conversations are marked whose standings have risen.
#[derive(Debug)]
pub(super) struct Marks {
    marked: Mutex<HashSet<ConversationId>>,
    is_marked: Notify,
    metrics: BridgeMetrics,
}

impl Marks {
    pub(super) fn new(metrics: BridgeMetrics) -> Self {
        let (marked, is_marked) = (Mutex::default(), Notify::new());
        Self {
            marked,
            is_marked,
            metrics,
        }
    }

    /// The standings of a large conversation have risen.
    pub(super) fn mark(&self, conversation: ConversationId) {
        let mut marked = self.lock();
        if marked.len() < CONVERSATIONS_MAX {
            marked.insert(conversation);
            self.is_marked.notify_one();
        } else if !marked.contains(&conversation) {
            self.metrics.receipts_dropped.inc();
        }
    }

    fn take(&self) -> HashSet<ConversationId> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ConversationId>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the authors.
pub(super) struct Telling {
    pool: PgPool,
    commits: Arc<Commits>,
    marks: Arc<Marks>,
    /// Between two frames about one conversation to one author.
    interval: Duration,
    known: HashMap<ConversationId, Known>,
}

/// What was told of a conversation.
struct Known {
    /// Nothing more is told before.
    next: Instant,
    has_risen: bool,
    told: HashMap<UserId, Vec<Reach>>,
}

impl Telling {
    pub(super) fn new(
        pool: PgPool,
        commits: Arc<Commits>,
        marks: Arc<Marks>,
        interval: Duration,
    ) -> Self {
        Self {
            pool,
            commits,
            marks,
            interval,
            known: HashMap::new(),
        }
    }

    /// Works until `stop` is cancelled: then nobody is connected any more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let marks = self.marks.clone();
        while !stop.is_cancelled() {
            let next = self.next();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = marks.is_marked.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            self.take(&marks.take(), Instant::now());
            while let Some(conversation) = self.due(Instant::now()) {
                self.tell(conversation).await;
                if stop.is_cancelled() {
                    return;
                }
            }
        }
    }

    fn take(&mut self, marked: &HashSet<ConversationId>, now: Instant) {
        if self.known.len() + marked.len() > CONVERSATIONS_MAX {
            // Forgotten, what was told is told once more.
            self.known
                .retain(|_, known| known.has_risen || known.next > now);
        }
        for conversation in marked {
            let new = || Known {
                next: now,
                has_risen: true,
                told: HashMap::new(),
            };
            self.known
                .entry(*conversation)
                .or_insert_with(new)
                .has_risen = true;
        }
    }

    /// When the next conversation is to be told of.
    fn next(&self) -> Option<Instant> {
        let risen = self.known.values().filter(|known| known.has_risen);
        risen.map(|known| known.next).min()
    }

    /// A conversation that is to be told of now: the one that waits for the longest.
    fn due(&self, now: Instant) -> Option<ConversationId> {
        let risen = self
            .known
            .iter()
            .filter(|(_, known)| known.has_risen && known.next <= now);
        risen
            .min_by_key(|(_, known)| known.next)
            .map(|(conversation, _)| *conversation)
    }

    async fn tell(&mut self, conversation: ConversationId) {
        let Some(known) = self.known.get_mut(&conversation) else {
            return;
        };
        // Before reading: what rises meanwhile is told next time.
        known.has_risen = false;
        known.next = Instant::now() + self.interval;
        let counted = match count(&self.pool, &self.commits, conversation).await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "counts of receipts wait for the store"
                );
                known.has_risen = true;
                return;
            }
        };
        // Whoever has gone is told all of it when they are back.
        known.told.retain(|author, _| counted.contains_key(author));
        for (author, reached) in counted {
            let told = known.told.entry(author).or_default();
            let news = news(&reached, told);
            *told = reached;
            let Some(news) = news else { continue };
            let receipt = Arc::new(ReceiptNotice {
                conversation,
                payload: serde_json::to_vec(&news).unwrap_or_default().into(),
            });
            let dropped = self.commits.tell_receipt(author, &receipt);
            if dropped > 0 {
                self.marks.metrics.receipts_dropped.inc_by(dropped);
                told.clear();
                known.has_risen = true;
            }
        }
    }
}

/// Whom a message has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    sequence: i64,
    delivered: i64,
    read: i64,
    /// How many others could see it.
    of: i64,
}

/// For each connected author, the newest messages, ascending.
async fn count(
    pool: &PgPool,
    commits: &Commits,
    conversation: ConversationId,
) -> Result<HashMap<UserId, Vec<Reach>>, StoreError> {
    let mut conn = pool.acquire().await?;
    let is_connected = |author| commits.is_connected(author);
    reached(&mut conn, conversation, is_connected).await
}

/// How many have got to the newest messages of one author; none if there are no such messages,
/// or if they take no part.
pub(super) async fn of_author(
    conn: &mut PgConnection,
    conversation: ConversationId,
    author: UserId,
) -> Result<Option<Counts>, StoreError> {
    let reached = reached(conn, conversation, |other| other == author).await?;
    Ok(reached.get(&author).and_then(|own| news(own, &[])))
}

/// For each author that is wanted, the newest messages, ascending.
async fn reached(
    conn: &mut PgConnection,
    conversation: ConversationId,
    is_wanted: impl Fn(UserId) -> bool,
) -> Result<HashMap<UserId, Vec<Reach>>, StoreError> {
    let recent = status::recent(conn, conversation, ENTRIES_MAX).await?;
    let mut messages: HashMap<UserId, Vec<i64>> = HashMap::new();
    for (author, sequence) in recent {
        let own = messages.entry(author).or_default();
        if own.len() < MESSAGES_MAX {
            own.push(sequence);
        }
    }
    messages.retain(|author, _| is_wanted(*author));
    let Some(first) = messages.values().flatten().min().copied() else {
        return Ok(HashMap::new());
    };
    let standpoints = status::standpoints(conn, conversation, first).await?;
    let mut reached = HashMap::new();
    for (author, mut own) in messages {
        let takes_part = |point: &Standpoint| point.user == author && point.left.is_none();
        if standpoints.iter().any(takes_part) {
            own.reverse();
            let own = own.into_iter();
            let own = own.map(|sequence| reach(&standpoints, author, sequence));
            reached.insert(author, own.collect());
        }
    }
    Ok(reached)
}

fn reach(standpoints: &[Standpoint], author: UserId, sequence: i64) -> Reach {
    let mut reach = Reach {
        sequence,
        delivered: 0,
        read: 0,
        of: 0,
    };
    for point in standpoints {
        let could_see = point.joined <= sequence && point.left.is_none_or(|left| left >= sequence);
        if could_see && point.user != author {
            reach.of += 1;
            reach.delivered += i64::from(point.delivered >= sequence);
            reach.read += i64::from(point.read >= sequence);
        }
    }
    reach
}

/// What an author is told who knows this much: the messages that not everybody has read, and
/// those that everybody has read now; none if nothing has changed.
fn news(reached: &[Reach], told: &[Reach]) -> Option<Counts> {
    let is_new = |reach: &&Reach| !told.contains(reach);
    reached.iter().find(is_new)?;
    let of = reached.last()?.of;
    let counts = reached
        .iter()
        .filter(|reach| reach.read < reach.of || is_new(reach))
        .map(|reach| Count {
            seq: reach.sequence,
            delivered: reach.delivered,
            read: reach.read,
            of: Some(reach.of).filter(|own| *own != of),
        });
    Some(Counts {
        counts: counts.collect(),
        of,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(user: i64, joined: i64, left: Option<i64>, delivered: i64, read: i64) -> Standpoint {
        Standpoint {
            user: UserId(user),
            joined,
            left,
            delivered,
            read,
        }
    }

    #[test]
    fn who_could_see_a_message_is_counted_but_its_author() {
        let standpoints = [
            point(1, 1, None, 9, 9),
            point(2, 1, None, 5, 4),
            point(3, 5, None, 5, 5),
            point(4, 6, None, 6, 6),
            point(5, 1, Some(5), 3, 0),
            point(6, 1, Some(4), 4, 4),
        ];
        let expected = Reach {
            sequence: 5,
            delivered: 2,
            read: 1,
            of: 3,
        };
        assert_eq!(reach(&standpoints, UserId(1), 5), expected);
    }

    /// Goal: an author learns that everybody has read a message, and then no more of it.
    #[test]
    fn what_all_have_read_is_told_once() {
        let reach = |sequence, read, of| Reach {
            sequence,
            delivered: of,
            read,
            of,
        };
        let count = |seq, delivered, read, of| Count {
            seq,
            delivered,
            read,
            of,
        };
        let first = [reach(1, 2, 3), reach(2, 0, 4)];
        let counts = vec![count(1, 3, 2, Some(3)), count(2, 4, 0, None)];
        assert_eq!(news(&first, &[]), Some(Counts { counts, of: 4 }));
        assert_eq!(news(&first, &first), None);
        let second = [reach(1, 3, 3), reach(2, 1, 4)];
        let counts = vec![count(1, 3, 3, Some(3)), count(2, 4, 1, None)];
        assert_eq!(news(&second, &first), Some(Counts { counts, of: 4 }));
        let third = [reach(1, 3, 3), reach(2, 2, 4)];
        let counts = vec![count(2, 4, 2, None)];
        assert_eq!(news(&third, &second), Some(Counts { counts, of: 4 }));
    }
}
