//! What was answered to requests that may come again.

use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::ids::UserId;

/// A key, and the request it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Keyed<'a> {
    pub user: UserId,
    pub key: &'a str,
    /// SHA-256 of the request.
    pub request_hash: &'a [u8],
}

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing was answered yet: do it. The seed is the same whenever this is begun again.
    Mine {
        seed: Uuid,
    },
    /// Somebody is at it, or was until the process died; how long until it may be done
    /// again, in seconds.
    InWork {
        seconds: i64,
    },
    Answered {
        status: i16,
        body: Option<Vec<u8>>,
    },
    /// It stands for another request.
    OtherRequest,
}

/// When a process began to use the store, by the store's clock, in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Opened(i64);

/// Now: from here on this process alone begins requests.
pub async fn open(conn: &mut PgConnection) -> Result<Opened, StoreError> {
    let micros =
        sqlx::query_scalar!(r#"select (extract(epoch from now()) * 1000000)::bigint as "micros!""#);
    Ok(Opened(micros.fetch_one(conn).await?))
}

/// Begins a request. What has no answer is begun again if that was a minute ago, or by a process
/// before this one.
pub async fn begin(
    conn: &mut PgConnection,
    keyed: Keyed<'_>,
    opened: Opened,
) -> Result<Begun, StoreError> {
    let Keyed {
        user,
        key,
        request_hash,
    } = keyed;
    let mine = sqlx::query_scalar!(
        r#"insert into idempotency_keys as k (user_id, key, request_hash) values ($1, $2, $3)
           on conflict (user_id, key) do update set begun_at = now()
           where k.status is null and k.request_hash = excluded.request_hash
             and k.begun_at < greatest(now() - interval '1 minute',
                                       'epoch'::timestamptz + $4 * interval '1 microsecond')
           returning seed"#,
        user.0,
        key,
        request_hash,
        opened.0 as _,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(seed) = mine {
        return Ok(Begun::Mine { seed });
    }
    let row = sqlx::query!(
        r#"select request_hash = $3 as "is_same!", status, body,
                  greatest(1, 60 - extract(epoch from now() - begun_at))::bigint as "seconds!"
           from idempotency_keys where user_id = $1 and key = $2"#,
        user.0,
        key,
        request_hash,
    )
    .fetch_optional(conn)
    .await?;
    Ok(match row {
        // Forgotten between the two: as if it were in work still.
        None => Begun::InWork { seconds: 1 },
        Some(row) if !row.is_same => Begun::OtherRequest,
        Some(row) => match row.status {
            Some(status) => Begun::Answered {
                status,
                body: row.body,
            },
            None => Begun::InWork {
                seconds: row.seconds,
            },
        },
    })
}

/// Keeps an answer.
pub async fn answer(
    conn: &mut PgConnection,
    user: UserId,
    key: &str,
    status: i16,
    body: Option<&[u8]>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update idempotency_keys set status = $3, body = $4
         where user_id = $1 and key = $2 and status is null",
        user.0,
        key,
        status,
        body,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Nothing is kept: the request may be begun again at once.
pub async fn give_up(conn: &mut PgConnection, user: UserId, key: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "update idempotency_keys set begun_at = 'epoch'
         where user_id = $1 and key = $2 and status is null",
        user.0,
        key,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what is older than a day, at most `limit`; how many it were.
pub async fn remove_old(conn: &mut PgConnection, limit: i64) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from idempotency_keys where (user_id, key) in (
             select user_id, key from idempotency_keys
             where created_at < now() - interval '1 day'
             order by created_at limit $1 for update skip locked)",
        limit,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
