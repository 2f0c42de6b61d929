//! Whom users do not want to hear of.

use sqlx::PgConnection;

use crate::domain::ids::{ConversationId, Subject, UserId};

use super::{StoreError, direct};

/// A user who is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub name: Subject,
    /// In milliseconds since 1970.
    pub since_millis: i64,
}

/// The list of a user's blocks is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyBlocks;

/// Blocks a user: from now on they write nothing in the conversation of the two.
/// What is so already stays as it is.
///
/// Belongs into a transaction.
pub async fn block(
    conn: &mut PgConnection,
    user: UserId,
    blocked: UserId,
    blocks_max: i64,
) -> Result<Result<(), TooManyBlocks>, StoreError> {
    direct::lock_pair(conn, user, blocked).await?;
    let known = sqlx::query!(
        r#"select count(*) as "count!", coalesce(bool_or(b.blocked_id = $2), false) as "is_blocked!"
           from (select blocked_id from blocks where user_id = $1 limit $3::bigint + 1) b"#,
        user.0,
        blocked.0,
        blocks_max,
    )
    .fetch_one(&mut *conn)
    .await?;
    if known.is_blocked {
        return Ok(Ok(()));
    }
    if known.count >= blocks_max {
        return Ok(Err(TooManyBlocks));
    }
    sqlx::query!(
        "insert into blocks (user_id, blocked_id) values ($1, $2) on conflict do nothing",
        user.0,
        blocked.0,
    )
    .execute(&mut *conn)
    .await?;
    mark(conn, user, blocked).await?;
    Ok(Ok(()))
}

/// Ends a block.
///
/// Belongs into a transaction.
pub async fn unblock(
    conn: &mut PgConnection,
    user: UserId,
    blocked: UserId,
) -> Result<(), StoreError> {
    direct::lock_pair(conn, user, blocked).await?;
    sqlx::query!(
        "delete from blocks where user_id = $1 and blocked_id = $2",
        user.0,
        blocked.0,
    )
    .execute(&mut *conn)
    .await?;
    mark(conn, user, blocked).await
}

/// Writes what holds to where each message is judged, under the lock of the conversation.
async fn mark(conn: &mut PgConnection, user: UserId, blocked: UserId) -> Result<(), StoreError> {
    let Some(ConversationId(id)) = direct::find(conn, user, blocked).await? else {
        return Ok(());
    };
    sqlx::query!(
        "select conversation_id from conversations where conversation_id = $1 for no key update",
        id,
    )
    .fetch_optional(&mut *conn)
    .await?;
    sqlx::query!(
        "update participants p
         set is_blocked = exists (select from blocks b where b.user_id = $2 and b.blocked_id = $3)
         where p.conversation_id = $1 and p.user_id = $3",
        id,
        user.0,
        blocked.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Those of the users who have blocked somebody; some of them, if there are many.
pub async fn who_blocked(
    conn: &mut PgConnection,
    users: &[UserId],
    blocked: UserId,
) -> Result<Vec<UserId>, StoreError> {
    let users: Vec<_> = users.iter().map(|user| user.0).collect();
    let rows = sqlx::query_scalar!(
        "select user_id from blocks where blocked_id = $2 and user_id = any($1) limit 100",
        &users[..],
        blocked.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(UserId).collect())
}

/// How many users a user blocks; it counts no further than `blocks_max`.
pub async fn count(
    conn: &mut PgConnection,
    user: UserId,
    blocks_max: i64,
) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
           from (select from blocks where user_id = $1 limit $2) b"#,
        user.0,
        blocks_max,
    )
    .fetch_one(conn)
    .await?;
    Ok(count)
}

/// The user of that name, if a user blocks them.
pub async fn blocked(
    conn: &mut PgConnection,
    user: UserId,
    name: &Subject,
) -> Result<Option<UserId>, StoreError> {
    let found = sqlx::query_scalar!(
        "select b.blocked_id from users u join blocks b on b.blocked_id = u.user_id
         where b.user_id = $1 and u.subject = $2",
        user.0,
        name.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(UserId))
}

/// The users that a user blocks, in the order of their numbers, after one of them.
pub async fn list(
    conn: &mut PgConnection,
    user: UserId,
    after: UserId,
    limit: i64,
) -> Result<Vec<Block>, StoreError> {
    sqlx::query!(
        r#"select u.subject, (extract(epoch from b.created_at) * 1000)::bigint as "since_millis!"
           from blocks b join users u on u.user_id = b.blocked_id
           where b.user_id = $1 and b.blocked_id > $2
           order by b.blocked_id limit $3"#,
        user.0,
        after.0,
        limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Block {
            name: Subject::new(&row.subject).map_err(StoreError::corrupt)?,
            since_millis: row.since_millis,
        })
    })
    .collect()
}
