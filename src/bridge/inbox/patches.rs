//! Patches on `me/inbox`: rows that changed, to the devices that want them.
//!
//! ```text
//!   commit, read, mute, … ──▶ Dirty: (user, conversation) ──▶ Patches: one query ──▶ me/inbox
//! ```
//!
//! The first change of a row is told at once, the next ones together, after the interval. A device
//! gets the whole row first, and then what has changed since it was told; whoever gets it twice,
//! late or not at all sees that by the versions. What does not fit is dropped and counted, and
//! the next one is whole again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashbrown::HashMap;
use prometheus_client::metrics::counter::Counter;
use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::bases::Bases;
use crate::{
    bridge::commits::Commits,
    domain::ids::{ConversationId, UserId},
    store::{StoreError, inbox},
    telemetry::metrics::BridgeMetrics,
};

/// Rows that wait to be told, and those that were told within the interval.
const PAIRS_MAX: usize = 100_000;
/// Rows of one query.
const ROWS_MAX: usize = 500;
/// Between two queries, so that many commits a second share one.
const TICK: Duration = Duration::from_millis(20);

type Pair = (UserId, ConversationId);

/// The rows that changed, of users who want to know.
#[derive(Debug, Default)]
pub struct Dirty {
    pairs: Mutex<HashMap<Pair, Mark>>,
    is_marked: Notify,
    dropped: Counter,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    is_dirty: bool,
    /// When it was told, if that was within the interval.
    told_at: Option<Instant>,
}

impl Dirty {
    /// Counts the rows that are not told of with `dropped`.
    pub(in crate::bridge) fn new(dropped: Counter) -> Self {
        Self {
            dropped,
            ..Self::default()
        }
    }

    /// The row has changed. If too many have, nobody is told of it.
    pub(in crate::bridge) fn mark(&self, user: UserId, conversation: ConversationId) {
        let mut pairs = self.lock();
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&(user, conversation)) {
            self.dropped.inc();
            return;
        }
        let mark = pairs.entry((user, conversation)).or_default();
        let was_dirty = std::mem::replace(&mut mark.is_dirty, true);
        drop(pairs);
        if !was_dirty {
            self.is_marked.notify_one();
        }
    }

    /// Takes the rows that are due, at most that many, and says when the next ones are.
    fn take(
        &self,
        now: Instant,
        interval: Duration,
        rows_max: usize,
    ) -> (Vec<Pair>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        self.lock().retain(|pair, mark| {
            let free_at = mark.told_at.map_or(now, |told_at| told_at + interval);
            if !mark.is_dirty {
                // Kept while the next change must wait.
                return free_at > now;
            }
            if free_at <= now && due.len() < rows_max {
                due.push(*pair);
                *mark = Mark {
                    is_dirty: false,
                    told_at: Some(now),
                };
            } else {
                let at = free_at.max(now);
                next = Some(next.map_or(at, |next| next.min(at)));
            }
            true
        });
        (due, next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pair, Mark>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of the rows that are marked.
pub(in crate::bridge) struct Patches {
    pub pool: PgPool,
    pub commits: Arc<Commits>,
    pub interval: Duration,
    pub metrics: BridgeMetrics,
    pub bases: Bases,
}

impl Patches {
    /// Works until `stop` is cancelled.
    pub(in crate::bridge) async fn run(mut self, stop: CancellationToken) {
        let commits = self.commits.clone();
        let dirty = commits.dirty();
        let mut next = None;
        loop {
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = dirty.is_marked.notified() => {}
                () = due => {}
            }
            let (pairs, later) = dirty.take(Instant::now(), self.interval, ROWS_MAX);
            next = later;
            let tick = Instant::now() + TICK;
            if let Err(error) = self.tell(pairs).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "changes of inboxes are not told"
                );
                self.metrics.store_failures.inc();
            }
            tokio::time::sleep_until(tick).await;
        }
    }

    /// One query for all. What cannot be read now is marked again.
    async fn tell(&mut self, mut pairs: Vec<Pair>) -> Result<(), StoreError> {
        pairs.retain(|(user, _)| self.commits.wants_inbox(*user));
        if pairs.is_empty() {
            return Ok(());
        }
        let rows = async {
            let mut conn = self.pool.acquire().await?;
            inbox::rows(&mut conn, &pairs).await
        };
        let rows = match rows.await {
            Ok(rows) => rows,
            Err(error) => {
                for (user, conversation) in pairs {
                    self.commits.inbox_changed(user, conversation);
                }
                return Err(error);
            }
        };
        for row in rows {
            let mailboxes = self.commits.inbox_mailboxes(row.user);
            let dropped = self.bases.tell(row.user, &row.into(), &mailboxes);
            self.metrics.inbox_patches_dropped.inc_by(dropped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn pair(number: u128) -> Pair {
        (UserId(1), ConversationId(uuid::Uuid::from_u128(number)))
    }

    fn mark(dirty: &Dirty, (user, conversation): Pair) {
        dirty.mark(user, conversation);
    }

    #[tokio::test]
    async fn the_first_change_is_told_at_once_and_the_next_ones_together() {
        let (dirty, now) = (Dirty::default(), Instant::now());
        mark(&dirty, pair(1));
        assert_eq!(dirty.take(now, INTERVAL, 9), (vec![pair(1)], None));
        mark(&dirty, pair(1));
        mark(&dirty, pair(1));
        let later = now + INTERVAL;
        assert_eq!(dirty.take(now, INTERVAL, 9), (vec![], Some(later)));
        mark(&dirty, pair(2));
        assert_eq!(dirty.take(now, INTERVAL, 9), (vec![pair(2)], Some(later)));
        assert_eq!(dirty.take(later, INTERVAL, 9), (vec![pair(1)], None));
        // Nothing is remembered of what was told long ago.
        assert_eq!(dirty.take(later + INTERVAL, INTERVAL, 9), (vec![], None));
        assert!(dirty.lock().is_empty());
    }

    #[tokio::test]
    async fn a_tick_takes_only_so_many_and_the_rest_is_due_at_once() {
        let (dirty, now) = (Dirty::default(), Instant::now());
        (0..5).for_each(|number| mark(&dirty, pair(number)));
        let (first, next) = dirty.take(now, INTERVAL, 3);
        assert_eq!((first.len(), next), (3, Some(now)));
        let (second, next) = dirty.take(now, INTERVAL, 3);
        assert_eq!((second.len(), next), (2, None));
    }

    #[test]
    fn past_its_bound_nothing_more_is_marked() {
        let dirty = Dirty::default();
        for number in 0..PAIRS_MAX {
            mark(&dirty, pair(number as u128));
        }
        mark(&dirty, pair(0));
        assert_eq!(dirty.dropped.get(), 0);
        mark(&dirty, pair(PAIRS_MAX as u128));
        assert_eq!((dirty.dropped.get(), dirty.lock().len()), (1, PAIRS_MAX));
    }
}
