//! A conversation as one user sees it: what it is, and how the user takes part in it.

use sqlx::PgConnection;

use crate::domain::{
    change::Until,
    ids::{ConversationId, Subject, UserId},
};

use super::{
    StoreError,
    conversations::{Kind, Role},
    members::{Settings, silenced},
};

/// A conversation, and one user's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub kind: Kind,
    pub settings: Settings,
    pub epoch: i32,
    /// The sequence of the newest entry; 0 while the log is empty.
    pub last_seq: i64,
    /// The first entry that has not been erased.
    pub first_seq: i64,
    /// In milliseconds since 1970.
    pub created_at_millis: i64,
    /// None if the user never took part.
    pub participation: Option<Participation>,
}

/// How a user takes part, or took part until they were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participation {
    pub user: UserId,
    pub role: Role,
    pub has_left: bool,
    pub delivered: i64,
    pub read: i64,
    /// Until when the user may not write, if they may not now.
    pub silenced: Option<Until>,
}

impl View {
    /// The role of a user who takes part now.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.current().map(|participation| participation.role)
    }

    /// The participation, unless it has ended.
    #[must_use]
    pub fn current(&self) -> Option<Participation> {
        self.participation
            .filter(|participation| !participation.has_left)
    }
}

/// The conversation as the user of that name sees it; none if there is no such conversation.
pub async fn of(
    conn: &mut PgConnection,
    conversation: ConversationId,
    name: &Subject,
) -> Result<Option<View>, StoreError> {
    let row = sqlx::query!(
        r#"select c.kind, c.title, c.epoch, c.last_seq, c.first_seq,
                  (extract(epoch from c.created_at) * 1000)::bigint as "created_at_millis!",
                  p.user_id as "user_id?", p.role as "role?", p.left_seq,
                  p.delivered_seq as "delivered_seq?", p.read_seq as "read_seq?",
                  c.archived_at is not null as "is_archived!", c.receipts, c.history_depth,
                  c.retention_seconds,
                  case when isfinite(p.silenced_until) and p.silenced_until > now()
                       then (extract(epoch from p.silenced_until) * 1000)::bigint
                  end as until_millis,
                  coalesce(p.silenced_until = 'infinity', false) as "is_forever!"
           from conversations c
           left join users u on u.subject = $2
           left join participants p
               on p.conversation_id = c.conversation_id and p.user_id = u.user_id
           where c.conversation_id = $1"#,
        conversation.0,
        name.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let participation = match (row.user_id, row.role) {
        (Some(user), Some(role)) => Some(Participation {
            user: UserId(user),
            role: role.parse().map_err(StoreError::corrupt)?,
            has_left: row.left_seq.is_some(),
            delivered: row.delivered_seq.unwrap_or_default(),
            read: row.read_seq.unwrap_or_default(),
            silenced: silenced(row.until_millis, row.is_forever),
        }),
        _ => None,
    };
    Ok(Some(View {
        kind: row.kind.parse().map_err(StoreError::corrupt)?,
        settings: Settings {
            title: row.title,
            is_archived: row.is_archived,
            receipts: row.receipts,
            history_depth: row.history_depth,
            retention_seconds: row.retention_seconds,
        },
        epoch: row.epoch,
        last_seq: row.last_seq,
        first_seq: row.first_seq,
        created_at_millis: row.created_at_millis,
        participation,
    }))
}
