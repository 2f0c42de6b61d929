//! Upkeep: tokens that died, and jobs that nobody can do.

use std::time::Duration;

use sqlx::PgConnection;

use crate::store::StoreError;

use super::interval;

/// Takes back that tokens of a route died since a moment (in milliseconds since 1970), and arms
/// again what could not be told because of that; how many tokens it were.
pub async fn revive(
    conn: &mut PgConnection,
    route: &str,
    since_millis: i64,
    at: Option<i64>,
) -> Result<u64, StoreError> {
    let revived = sqlx::query_scalar!(
        r#"select revive_push_tokens($1, to_timestamp($2::bigint / 1000.0),
                                     to_timestamp($3::bigint / 1000.0)) as "count!""#,
        route,
        since_millis,
        at,
    )
    .fetch_one(conn)
    .await?;
    Ok(revived.unsigned_abs())
}

/// Deletes tokens that have been dead for longer than `older_than`, at most `limit`; how many
/// it were.
pub async fn delete_dead(
    conn: &mut PgConnection,
    older_than: Duration,
    limit: i64,
    at: Option<i64>,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from push_tokens t using (
             select d.device_id from push_tokens d
             where d.dead_since < coalesce(to_timestamp($3::bigint / 1000.0), now()) - $1::interval
             order by d.dead_since limit $2 for update skip locked
         ) dead
         where t.device_id = dead.device_id",
        interval(older_than),
        limit,
        at,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Ends jobs of routes that are not configured any more, at most `limit`; how many it were.
pub async fn end_unrouted(
    conn: &mut PgConnection,
    routes: &[String],
    limit: i64,
    at: Option<i64>,
) -> Result<u64, StoreError> {
    let ended = sqlx::query_scalar!(
        r#"select end_unrouted_push($1, $2, to_timestamp($3::bigint / 1000.0)) as "count!""#,
        routes,
        limit,
        at,
    )
    .fetch_one(conn)
    .await?;
    Ok(ended.unsigned_abs())
}
