//! What the tables say of whole inboxes and of single messages.

use homing::domain::ids::ConversationId;
use sqlx::PgPool;

/// The conversations of a user, the newest activity first.
pub(super) async fn order(pool: &PgPool, user: &str) -> Vec<ConversationId> {
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select c.conversation_id from conversations c join participants p using (conversation_id)
         join users u using (user_id)
         where u.subject = $1 and p.left_seq is null
         order by c.updated_at desc, c.conversation_id desc",
    )
    .bind(user)
    .fetch_all(pool)
    .await
    .unwrap();
    ids.into_iter().map(ConversationId).collect()
}

/// Whether the log holds what a user sent under this id.
pub(super) async fn is_stored(pool: &PgPool, id: ConversationId, user: &str, sent: &str) -> bool {
    sqlx::query_scalar(
        "select exists (
             select from messages m join users u on u.user_id = m.sender_id
             where m.conversation_id = $1 and u.subject = $2 and m.client_message_id = $3)",
    )
    .bind(id.0)
    .bind(user)
    .bind(sent)
    .fetch_one(pool)
    .await
    .unwrap()
}
