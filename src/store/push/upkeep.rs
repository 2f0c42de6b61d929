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

/// Tokens of a route that died together, and what the provider answered meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deaths {
    /// When the first of them died, at the earliest, in milliseconds since 1970.
    pub since_millis: i64,
    /// How many died, by the words of the provider.
    pub reasons: Vec<(String, u64)>,
    /// Answers about tokens of the route, deaths included.
    pub answers: u64,
}

/// The tokens of a route that died within `window` of the last one, unless that is longer ago
/// than `age_max`.
pub async fn last_deaths(
    conn: &mut PgConnection,
    route: &str,
    window: Duration,
    age_max: Duration,
) -> Result<Option<Deaths>, StoreError> {
    let rows = sqlx::query!(
        r#"with last as (
               select max(t.dead_since) as until, max(t.dead_since) - $2::interval as since
               from push_tokens t
               where t.dead_since >= now() - $3::interval and t.route = $1
           )
           select t.dead_reason as "reason!", count(*) as "count!",
                  (select (extract(epoch from l.since) * 1000)::bigint from last l) as "since!",
                  (select count(*) from last l join push_attempts a
                       on a.decided_at between l.since and l.until
                   where a.route = $1 and a.outcome in ('sent', 'retry', 'dropped', 'dead')) as "answers!"
           from last l join push_tokens t on t.dead_since >= l.since
           where t.route = $1 and t.dead_reason is not null
           group by t.dead_reason"#,
        route,
        interval(window),
        interval(age_max),
    )
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Deaths {
        since_millis: first.since,
        answers: first.answers.unsigned_abs(),
        reasons: rows
            .into_iter()
            .map(|row| (row.reason, row.count.unsigned_abs()))
            .collect(),
    }))
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
