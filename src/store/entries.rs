//! Entries that the server writes itself, when a conversation changes.

use std::sync::Arc;

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{
    envelope::{KIND_MEMBERSHIP, Stamp, entry_json},
    ids::{ClientMessageId, ConversationId, Subject, UserId},
    message::{Content, LogEntry, Position, Sequence, SharedEntry},
};

use super::StoreError;

/// Who changes something: the entry is theirs.
pub type Actor<'a> = (UserId, &'a Subject);

/// A change that the log tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub entry: SharedEntry,
    pub members_version: i32,
}

impl Written {
    /// Where the change takes effect.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.entry.position.sequence
    }
}

/// Appends the entry of a change to a locked conversation; it has no ordinal, since nobody
/// counts it as unread. Entries of membership raise the version of the participants.
pub(super) async fn append_notice(
    conn: &mut PgConnection,
    conversation: ConversationId,
    (actor, actor_name): Actor<'_>,
    kind: &str,
    notice: &impl Serialize,
) -> Result<Written, StoreError> {
    let id = Uuid::now_v7().to_string();
    let body = serde_json::to_vec(notice).map_err(StoreError::corrupt)?;
    let row = sqlx::query!(
        r#"with head as (
             update conversations
             set last_seq = last_seq + 1,
                 members_version = members_version + case when $6 then 1 else 0 end,
                 updated_at = date_trunc('milliseconds', clock_timestamp())
             where conversation_id = $1
             returning last_seq, members_version, updated_at
           ), entry as (
             insert into messages (conversation_id, seq, sender_id, client_message_id, type, body,
                                   created_at)
             select $1, h.last_seq, $2, $3, $4, $5, h.updated_at from head h
           ), announced as (
             insert into outbox (event_type, aggregate_id, payload)
             select 'appended', $1, jsonb_build_object('from', h.last_seq, 'to', h.last_seq)
             from head h
           )
           select last_seq, members_version,
                  (extract(epoch from updated_at) * 1000)::bigint as "at_millis!" from head"#,
        conversation.0,
        actor.0,
        &id,
        kind,
        &body[..],
        kind == KIND_MEMBERSHIP,
    )
    .fetch_one(conn)
    .await?;

    let sequence = Sequence::new(row.last_seq).map_err(StoreError::corrupt)?;
    let stamp = Stamp {
        sequence,
        from: actor_name,
        at_millis: row.at_millis,
    };
    let id = ClientMessageId::new(id).map_err(StoreError::corrupt)?;
    let content = Content::new(id, kind, body);
    let entry = LogEntry::new(
        Position {
            conversation,
            sequence,
        },
        None,
        entry_json(stamp, &content),
    );
    Ok(Written {
        entry: Arc::new(entry),
        members_version: row.members_version,
    })
}
