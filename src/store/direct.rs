//! The direct conversation of two users: there is one.

use sqlx::PgConnection;

use crate::domain::ids::{ConversationId, UserId};

use super::StoreError;

/// The first of the keys of advisory locks on pairs of users; the other one is a hash of them.
const PAIRS: i32 = 0x7061_6972;

/// Lets nobody else create or block between the two until the end of the transaction.
pub(super) async fn lock_pair(
    conn: &mut PgConnection,
    one: UserId,
    other: UserId,
) -> Result<(), StoreError> {
    let (low, high) = ordered(one, other);
    sqlx::query!(
        "select pg_advisory_xact_lock($1, hashtext($2)) is null as locked",
        PAIRS,
        format!("{low} {high}"),
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// The conversation of the two, if they have one.
pub(super) async fn find(
    conn: &mut PgConnection,
    one: UserId,
    other: UserId,
) -> Result<Option<ConversationId>, StoreError> {
    let (low, high) = ordered(one, other);
    let found = sqlx::query_scalar!(
        "select conversation_id from direct_conversations where low_id = $1 and high_id = $2",
        low,
        high,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(ConversationId))
}

/// The conversation of the two, if they have one. If not, `id` is to be theirs: nobody else
/// makes one before the end of the transaction, and it is made in the same one.
pub async fn find_or_claim(
    conn: &mut PgConnection,
    one: UserId,
    other: UserId,
    id: ConversationId,
) -> Result<Option<ConversationId>, StoreError> {
    lock_pair(conn, one, other).await?;
    if let Some(known) = find(conn, one, other).await? {
        return Ok(Some(known));
    }
    let (low, high) = ordered(one, other);
    sqlx::query!(
        "insert into direct_conversations (low_id, high_id, conversation_id) values ($1, $2, $3)",
        low,
        high,
        id.0,
    )
    .execute(conn)
    .await?;
    Ok(None)
}

fn ordered(one: UserId, other: UserId) -> (i64, i64) {
    (one.0.min(other.0), one.0.max(other.0))
}
