//! The outbox relay: what was committed is told, even if its writer could not.
//!
//! A writer tells of its commits itself, right away. The relay reads the same facts from
//! the outbox, later and in commit order, and hands over what was not told: after a crash
//! between commit and notice, or when the answer to a commit was lost.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Writers, accept::Work, commits::Commits};
use crate::{
    store::{
        StoreError,
        outbox::{self, Row},
    },
    telemetry::metrics::BridgeMetrics,
};

/// The relay's name among the consumers of the outbox.
const CONSUMER: &str = "fan-out";
/// Rows read at once.
const ROWS_MAX: i64 = 2_000;

/// Reads the outbox.
pub(super) struct Relay {
    pub(super) pool: PgPool,
    pub(super) writers: Writers,
    pub(super) commits: Arc<Commits>,
    pub(super) interval: Duration,
    pub(super) metrics: BridgeMetrics,
}

impl Relay {
    /// Works until `stop` is cancelled. Only the wait is cancelled, never a batch.
    pub(super) async fn run(self, stop: CancellationToken) {
        let wait = || tokio::time::sleep(self.interval);
        while stop.run_until_cancelled(wait()).await.is_some() {
            while let Some(is_full) = self.relay_batch().await {
                if !is_full || stop.is_cancelled() {
                    break;
                }
            }
        }
    }

    /// Whether the batch was full and there may be more; nothing if the store is away.
    async fn relay_batch(&self) -> Option<bool> {
        match self.try_batch().await {
            Ok(rows) => Some(rows == usize::try_from(ROWS_MAX).unwrap_or(usize::MAX)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the outbox waits");
                None
            }
        }
    }

    async fn try_batch(&self) -> Result<usize, StoreError> {
        let asked = Instant::now();
        let conn = self.pool.acquire().await;
        let waited = asked.elapsed().as_secs_f64();
        self.metrics.pool_wait_seconds.observe(waited);
        let mut conn = conn?;
        let age = outbox::oldest_age(&mut conn, CONSUMER).await?;
        let age = age.unwrap_or_default().as_secs_f64();
        self.metrics.outbox_age_seconds.set(age);
        let rows = outbox::read(&mut conn, CONSUMER, ROWS_MAX).await?;
        for row in &rows {
            self.relay(row).await;
        }
        if let Some(last) = rows.last() {
            outbox::advance(&mut conn, CONSUMER, last.place).await?;
            outbox::prune(&mut conn).await?;
        }
        Ok(rows.len())
    }

    async fn relay(&self, row: &Row) {
        let (from, to) = (row.from.get(), row.to.get());
        if !self.commits.was_told(row.conversation, to) {
            let conversation = row.conversation;
            self.writers
                .send(
                    conversation,
                    Work::Relay {
                        conversation,
                        from,
                        to,
                    },
                )
                .await;
        }
    }
}
