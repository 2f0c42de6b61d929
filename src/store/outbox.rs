//! The outbox: what has been committed, for consumers that act on it later.
//!
//! Each consumer reads on after its own position, in the order of (transaction, id), and
//! only below the oldest transaction that still runs: a late commit is never skipped.

use std::time::Duration;

use sqlx::PgConnection;

use crate::domain::{ids::ConversationId, message::Sequence};

use super::StoreError;

/// How many rows [`prune`] deletes at once.
pub const PRUNE_ROWS_MAX: i64 = 10_000;

/// A place in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub xid: i64,
    pub id: i64,
}

/// Entries that one transaction appended to one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub place: Place,
    pub conversation: ConversationId,
    pub from: Sequence,
    pub to: Sequence,
}

/// The next rows for a consumer. Its first read registers it, before the oldest row there is.
pub async fn read(
    conn: &mut PgConnection,
    consumer: &str,
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let rows = read_registered(conn, consumer, limit).await?;
    if rows.is_empty() && register(conn, consumer).await? {
        return read_registered(conn, consumer, limit).await;
    }
    Ok(rows)
}

async fn read_registered(
    conn: &mut PgConnection,
    consumer: &str,
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    sqlx::query!(
        r#"select o.xid::text::bigint as "xid!", o.id, o.aggregate_id,
                  (o.payload ->> 'from')::bigint as "from!", (o.payload ->> 'to')::bigint as "to!"
           from outbox o
           where (o.xid, o.id) > (select c.xid, c.id from outbox_consumers c where c.name = $1)
             and o.xid < pg_snapshot_xmin(pg_current_snapshot())
           order by o.xid, o.id limit $2"#,
        consumer,
        limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Row {
            place: Place {
                xid: row.xid,
                id: row.id,
            },
            conversation: ConversationId(row.aggregate_id),
            from: Sequence::new(row.from).map_err(StoreError::corrupt)?,
            to: Sequence::new(row.to).map_err(StoreError::corrupt)?,
        })
    })
    .collect()
}

/// A row that has waited, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgedRow {
    pub place: Place,
    pub conversation: ConversationId,
    /// The first and the last sequence; nothing lies between them if the row cannot be read.
    pub from: i64,
    pub to: i64,
    /// In milliseconds since 1970.
    pub created_at_millis: i64,
}

/// The next rows for a consumer that lets them wait: it ends before the first row younger than
/// `age`. The time is `at` (in milliseconds since 1970), or that of the database.
///
/// Its first read registers the consumer, before the oldest row there is.
pub async fn read_older_than(
    conn: &mut PgConnection,
    consumer: &str,
    limit: i64,
    age: Duration,
    at: Option<i64>,
) -> Result<Vec<AgedRow>, StoreError> {
    let age_millis = i64::try_from(age.as_millis()).map_err(StoreError::corrupt)?;
    let mut rows = read_with_age(conn, consumer, limit, age_millis, at).await?;
    if rows.is_empty() && register(conn, consumer).await? {
        rows = read_with_age(conn, consumer, limit, age_millis, at).await?;
    }
    let old = rows.iter().take_while(|(_, is_old)| *is_old);
    Ok(old.map(|(row, _)| *row).collect())
}

async fn read_with_age(
    conn: &mut PgConnection,
    consumer: &str,
    limit: i64,
    age_millis: i64,
    at: Option<i64>,
) -> Result<Vec<(AgedRow, bool)>, StoreError> {
    let rows = sqlx::query!(
        r#"select o.xid::text::bigint as "xid!", o.id, o.aggregate_id,
                  case when jsonb_typeof(o.payload -> 'from') = 'number'
                       then (o.payload -> 'from')::bigint else 1 end as "from!",
                  case when jsonb_typeof(o.payload -> 'to') = 'number'
                       then (o.payload -> 'to')::bigint else 0 end as "to!",
                  (extract(epoch from o.created_at) * 1000)::bigint as "created_at_millis!",
                  o.created_at <= coalesce(to_timestamp($4::bigint / 1000.0), now())
                      - make_interval(secs => $3::bigint / 1000.0) as "is_old!"
           from outbox o
           where (o.xid, o.id) > (select c.xid, c.id from outbox_consumers c where c.name = $1)
             and o.xid < pg_snapshot_xmin(pg_current_snapshot())
           order by o.xid, o.id limit $2"#,
        consumer,
        limit,
        age_millis,
        at,
    )
    .fetch_all(conn)
    .await?;
    let aged = rows.into_iter().map(|row| {
        let aged = AgedRow {
            place: Place {
                xid: row.xid,
                id: row.id,
            },
            conversation: ConversationId(row.aggregate_id),
            from: row.from,
            to: row.to,
            created_at_millis: row.created_at_millis,
        };
        (aged, row.is_old)
    });
    Ok(aged.collect())
}

/// Whether the consumer is new.
async fn register(conn: &mut PgConnection, consumer: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "insert into outbox_consumers (name) values ($1) on conflict (name) do nothing",
        consumer,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// When the next row for a consumer will be as old as `age`: nothing if there is no row. What is
/// old already is due now.
pub async fn next_in(
    conn: &mut PgConnection,
    consumer: &str,
    age: Duration,
) -> Result<Option<Duration>, StoreError> {
    let millis = sqlx::query_scalar!(
        r#"select (extract(epoch from o.created_at - now()) * 1000)::bigint as "millis!"
           from outbox o
           where (o.xid, o.id) > (select c.xid, c.id from outbox_consumers c where c.name = $1)
             and o.xid < pg_snapshot_xmin(pg_current_snapshot())
           order by o.xid, o.id limit 1"#,
        consumer,
    )
    .fetch_optional(conn)
    .await?;
    let age_millis = i64::try_from(age.as_millis()).map_err(StoreError::corrupt)?;
    Ok(millis.map(|millis| {
        let wait = millis.saturating_add(age_millis).max(0);
        Duration::from_millis(wait.unsigned_abs())
    }))
}

/// How old the oldest row is that a consumer has not read, be it one that may not be read yet;
/// none if it has read all.
pub async fn oldest_age(
    conn: &mut PgConnection,
    consumer: &str,
) -> Result<Option<Duration>, StoreError> {
    let millis = sqlx::query_scalar!(
        r#"select (extract(epoch from clock_timestamp() - o.created_at) * 1000)::bigint as "millis!"
           from outbox o
           where (o.xid, o.id) > (select c.xid, c.id from outbox_consumers c where c.name = $1)
           order by o.xid, o.id limit 1"#,
        consumer,
    )
    .fetch_optional(conn)
    .await?;
    Ok(millis.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs())))
}

/// Keeps other nodes from reading as this consumer until the end of the transaction; false if
/// one of them does already. The first call registers the consumer.
pub async fn hold(conn: &mut PgConnection, consumer: &str) -> Result<bool, StoreError> {
    register(conn, consumer).await?;
    let held = sqlx::query_scalar!(
        "select name from outbox_consumers where name = $1 for no key update skip locked",
        consumer,
    )
    .fetch_optional(conn)
    .await?;
    Ok(held.is_some())
}

/// Notes that a consumer is done with everything up to `place`. It never goes back.
pub async fn advance(
    conn: &mut PgConnection,
    consumer: &str,
    place: Place,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update outbox_consumers set xid = $2::bigint::text::xid8, id = $3
         where name = $1 and (xid, id) < ($2::bigint::text::xid8, $3)",
        consumer,
        place.xid,
        place.id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets a consumer that reads no more, so that it does not hold rows for ever. Should it
/// read again, it begins with the oldest row there is.
pub async fn forget(conn: &mut PgConnection, consumer: &str) -> Result<(), StoreError> {
    sqlx::query!("delete from outbox_consumers where name = $1", consumer)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes what every consumer has passed, at most [`PRUNE_ROWS_MAX`] rows; how many it were.
/// Without any consumer nothing is deleted.
pub async fn prune(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from outbox o using (
             select p.xid, p.id from outbox p
             where (p.xid, p.id)
                 <= (select c.xid, c.id from outbox_consumers c order by c.xid, c.id limit 1)
             order by p.xid, p.id limit $1
         ) passed
         where o.xid = passed.xid and o.id = passed.id",
        PRUNE_ROWS_MAX,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
