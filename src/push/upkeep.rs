//! What is done now and then: tokens that stay dead, jobs that nobody can do, old decisions.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    config::PushConfig,
    store::{
        StoreError,
        push::{ledger, upkeep},
    },
};

const INTERVAL: Duration = Duration::from_mins(1);
/// Rows of each kind removed at once.
const ROWS_MAX: i64 = 10_000;

/// Works until `stop` is cancelled.
pub(super) async fn run(
    pool: PgPool,
    config: Arc<PushConfig>,
    routes: Vec<String>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        if let Err(error) = round(&pool, &config, &routes).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "old push tokens and decisions stay for now");
        }
        stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
    }
}

async fn round(pool: &PgPool, config: &PushConfig, routes: &[String]) -> Result<(), StoreError> {
    let mut conn = pool.acquire().await?;
    let ended = upkeep::end_unrouted(&mut conn, routes, ROWS_MAX, None).await?;
    if ended > 0 {
        tracing::warn!(
            ended,
            "notifications for apps that are not configured any more are given up"
        );
    }
    let deleted =
        upkeep::delete_dead(&mut conn, config.dead_token_retention, ROWS_MAX, None).await?;
    if deleted > 0 {
        tracing::info!(deleted, "push tokens that had died are deleted");
    }
    // As many as have come since the last round: a busy gateway writes thousands a second.
    let rows_max = ROWS_MAX.unsigned_abs();
    while ledger::prune(&mut conn, config.ledger_retention, ROWS_MAX, None).await? == rows_max {}
    Ok(())
}
