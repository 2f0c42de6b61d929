//! From the outbox to jobs: which devices have not acknowledged what was committed.
//!
//! ```text
//!   outbox row, 1 s old ── early ──▶ devices of users who are away
//!   outbox row, 8 s old ── late ───▶ every other device that still has not acknowledged
//! ```
//!
//! A device that acknowledges what it gets costs no job. Each pass is a consumer of the outbox
//! with a place of its own; what is armed and how far it has read commit together.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection as _, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    store::{
        StoreError,
        outbox::{self, AgedRow},
        push::arm::{self, Armed, Graces, Pass},
    },
    telemetry::metrics::PushMetrics,
};

/// Rows of the outbox read at once.
const ROWS_MAX: i64 = 1_000;

/// Rows that become old within this time are read together.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// One pass over the outbox.
#[derive(Clone, Debug)]
pub(super) struct Arming {
    pub(super) pool: PgPool,
    pub(super) pass: Pass,
    pub(super) graces: Graces,
    pub(super) routes: Vec<String>,
    pub(super) poll_interval: Duration,
    /// Wakes the workers.
    pub(super) armed: Vec<Arc<Notify>>,
    pub(super) metrics: PushMetrics,
}

/// The name of a pass among the consumers of the outbox.
pub(super) const fn consumer(pass: Pass) -> &'static str {
    match pass {
        Pass::Early => "push-early",
        Pass::Late => "push-late",
    }
}

impl Arming {
    /// Works until `stop` is cancelled. Only the wait is cancelled, never a pass.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let mut wait = self.poll_interval;
            match self.round().await {
                Ok(next_in) => wait = wait.min(next_in).max(WAIT_MIN),
                Err(error) => {
                    self.metrics.store_failures.inc();
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "messages wait to be judged for push"
                    );
                }
            }
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    /// When there may be more to do.
    async fn round(&self) -> Result<Duration, StoreError> {
        let age = match self.pass {
            Pass::Early => self.graces.offline,
            Pass::Late => self.graces.connected,
        };
        let consumer = consumer(self.pass);
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin().await?;
        if !outbox::hold(&mut tx, consumer).await? {
            return Ok(self.poll_interval); // another node is at it
        }
        let rows = outbox::read_older_than(&mut tx, consumer, ROWS_MAX, age, None).await?;
        let Some(last) = rows.last() else {
            let next_in = outbox::next_in(&mut tx, consumer, age).await?;
            tx.commit().await?;
            return Ok(next_in.unwrap_or(self.poll_interval));
        };
        let place = last.place;
        let armed = self.arm(&mut tx, &rows).await?;
        outbox::advance(&mut tx, consumer, place).await?;
        tx.commit().await?;
        self.tell(&armed);
        Ok(Duration::ZERO)
    }

    async fn arm(
        &self,
        tx: &mut sqlx::PgConnection,
        rows: &[AgedRow],
    ) -> Result<Armed, StoreError> {
        arm::arm(tx, rows, self.pass, &self.graces, &self.routes, None).await
    }

    fn tell(&self, armed: &Armed) {
        self.metrics.armed.inc_by(armed.jobs);
        self.metrics.suppressed.inc_by(armed.suppressed);
        if armed.jobs > 0 {
            for worker in &self.armed {
                worker.notify_one();
            }
        }
    }
}
