//! What typing and presence must know and never write: who may say something, who may see whom.

use sqlx::PgConnection;

use crate::domain::ids::{ConversationId, UserId};

use super::StoreError;

/// The participants of a conversation who may not write to it now.
pub async fn silent(
    conn: &mut PgConnection,
    conversation: ConversationId,
) -> Result<Vec<UserId>, StoreError> {
    let users = sqlx::query_scalar!(
        "select p.user_id from participants p
         join conversations c on c.conversation_id = p.conversation_id
         where p.conversation_id = $1 and p.left_seq is null
           and (p.role = 'readonly' or p.is_blocked or p.silenced_until > now()
                or c.archived_at is not null)",
        conversation.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(users.into_iter().map(UserId).collect())
}
