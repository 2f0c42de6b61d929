//! Erases contents whose time is over, ends mutes, and tells of the rows that show something
//! else since.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Writers, accept::Work, commits::Commits};
use crate::store::{StoreError, expiry};

/// Entries erased by one statement: small, so that nobody waits for their locks. And mutes ended.
const ENTRIES_MAX: i64 = 500;

pub(super) struct Upkeep {
    pool: PgPool,
    writers: Writers,
    commits: Arc<Commits>,
    interval: Duration,
}

impl Upkeep {
    pub(super) fn new(
        pool: &PgPool,
        writers: &Writers,
        commits: &Arc<Commits>,
        interval: Duration,
    ) -> Self {
        Self {
            pool: pool.clone(),
            writers: writers.clone(),
            commits: commits.clone(),
            interval,
        }
    }

    /// Looks once per interval, and goes on as long as there is something to do.
    pub(super) async fn run(self, stop: CancellationToken) {
        let look = async || {
            tokio::time::sleep(self.interval).await;
            match self.work().await {
                Ok(0) => {}
                Ok(entries) => tracing::info!(entries, "contents have expired"),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "expired contents stay; nobody is shown them"
                ),
            }
        };
        while stop.run_until_cancelled(look()).await.is_some() {}
    }

    async fn work(&self) -> Result<u64, StoreError> {
        self.end_mutes().await?;
        let mut total = 0;
        loop {
            let mut conn = self.pool.acquire().await?;
            let expired = expiry::erase_expired(&mut conn, ENTRIES_MAX).await?;
            let outdated = expiry::erase_outdated(&mut conn, ENTRIES_MAX).await?;
            drop(conn);
            let entries = expired.entries + outdated.entries;
            if entries == 0 {
                return Ok(total);
            }
            total += entries;
            for conversation in [expired.conversations, outdated.conversations].concat() {
                // Through the writer, which knows the participants.
                let work = Work::Erased { conversation };
                self.writers.send(conversation, work).await;
            }
        }
    }

    async fn end_mutes(&self) -> Result<(), StoreError> {
        loop {
            let mut conn = self.pool.acquire().await?;
            let ended = expiry::end_mutes(&mut conn, ENTRIES_MAX).await?;
            if ended.is_empty() {
                return Ok(());
            }
            for (user, conversation) in ended {
                self.commits.inbox_changed(user, conversation);
            }
        }
    }
}
