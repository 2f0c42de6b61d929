//! Erases contents whose time is over.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::store::{StoreError, expiry};

/// Entries erased by one statement: small, so that nobody waits for their locks.
const ENTRIES_MAX: i64 = 500;

/// Looks once per interval, and goes on as long as there is something to erase.
pub(super) async fn run(pool: PgPool, interval: Duration, stop: CancellationToken) {
    let look = async || {
        tokio::time::sleep(interval).await;
        match erase_all(&pool).await {
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

async fn erase_all(pool: &PgPool) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let mut conn = pool.acquire().await?;
        let expired = expiry::erase_expired(&mut conn, ENTRIES_MAX).await?;
        let outdated = expiry::erase_outdated(&mut conn, ENTRIES_MAX).await?;
        if expired + outdated == 0 {
            return Ok(total);
        }
        total += expired + outdated;
    }
}
