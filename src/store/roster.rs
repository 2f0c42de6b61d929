//! Who takes part, as participants see it: page by page.

use sqlx::PgConnection;

use crate::domain::{
    change::Until,
    ids::{ConversationId, Subject, UserId},
};

use super::{StoreError, conversations::Role, members::silenced};

/// A user who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub user: UserId,
    pub name: Subject,
    pub role: Role,
    /// The sequence of the entry with which the part began; 1 for the first participants.
    pub joined: i64,
    /// Until when the user may not write, if they may not now.
    pub silenced: Option<Until>,
}

/// Those who take part, in the order of their numbers, after a user.
pub async fn page(
    conn: &mut PgConnection,
    conversation: ConversationId,
    after: UserId,
    limit: i64,
) -> Result<Vec<Present>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"select p.user_id, u.subject, p.role, p.joined_seq,
                  case when isfinite(p.silenced_until) and p.silenced_until > now()
                       then (extract(epoch from p.silenced_until) * 1000)::bigint
                  end as until_millis,
                  coalesce(p.silenced_until = 'infinity', false) as "is_forever!"
           from participants p join users u on u.user_id = p.user_id
           where p.conversation_id = $1 and p.user_id > $2 and p.left_seq is null
           order by p.user_id limit $3"#,
        conversation.0,
        after.0,
        limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Row::into_present)
    .collect()
}

/// One of those who take part.
pub async fn one(
    conn: &mut PgConnection,
    conversation: ConversationId,
    name: &Subject,
) -> Result<Option<Present>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"select p.user_id, u.subject, p.role, p.joined_seq,
                  case when isfinite(p.silenced_until) and p.silenced_until > now()
                       then (extract(epoch from p.silenced_until) * 1000)::bigint
                  end as until_millis,
                  coalesce(p.silenced_until = 'infinity', false) as "is_forever!"
           from users u
           join participants p on p.conversation_id = $1 and p.user_id = u.user_id
           where u.subject = $2 and p.left_seq is null"#,
        conversation.0,
        name.as_str(),
    )
    .fetch_optional(conn)
    .await?
    .map(Row::into_present)
    .transpose()
}

struct Row {
    user_id: i64,
    subject: String,
    role: String,
    joined_seq: i64,
    until_millis: Option<i64>,
    is_forever: bool,
}

impl Row {
    fn into_present(self) -> Result<Present, StoreError> {
        Ok(Present {
            user: UserId(self.user_id),
            name: Subject::new(&self.subject).map_err(StoreError::corrupt)?,
            role: self.role.parse().map_err(StoreError::corrupt)?,
            joined: self.joined_seq,
            silenced: silenced(self.until_millis, self.is_forever),
        })
    }
}
