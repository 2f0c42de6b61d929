//! The log: append a batch, read after a cursor.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::domain::{
    envelope::{Stamp, entry_json},
    ids::{ClientMessageId, ConversationId, DeviceId, Subject, UserId},
    message::{Content, LogEntry, NewMessage, Position, Sequence, SharedEntry},
};

use super::{StoreError, settle_plans};

/// What became of a message that a sender asked to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now, under this sequence, at this time in milliseconds since 1970.
    Stored { sequence: Sequence, at_millis: i64 },
    /// Stored earlier: the sender repeated itself after a lost acknowledgement.
    Duplicate { sequence: Sequence },
    /// There is no such conversation.
    NoConversation,
    /// The sender takes no part in the conversation, or may only read it.
    NotParticipant,
}

/// The answer to one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub outcome: Outcome,
    /// The version of the participants that the answer is based on; 0 if there is no such
    /// conversation.
    pub members_version: i32,
}

/// Opens a connection for [`append_batch`], which nothing may interrupt.
pub async fn connect_writer(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let mut conn = PgConnection::connect_with(options).await?;
    settle_plans(&mut conn).await?;
    // A commit that is cancelled while it waits for a standby reports success.
    sqlx::query!(
        "select set_config(t.name, '0', false)
         from (values ('statement_timeout'), ('lock_timeout')) as t (name)"
    )
    .fetch_all(&mut conn)
    .await?;
    Ok(conn)
}

/// Appends messages and assigns their sequences; the answers have the order of the batch.
///
/// Call it inside a transaction and acknowledge the senders after the commit. No message may
/// repeat another one of the same batch.
pub async fn append_batch(
    conn: &mut PgConnection,
    batch: &[NewMessage],
) -> Result<Vec<Appended>, StoreError> {
    let conversations: Vec<_> = batch.iter().map(|message| message.conversation.0).collect();
    let senders: Vec<_> = batch.iter().map(|message| message.sender.0).collect();
    let devices: Vec<_> = batch
        .iter()
        .map(|message| message.sender_device.map(|id| id.0))
        .collect();
    let contents = || batch.iter().map(|message| &message.content);
    let ids: Vec<_> = contents().map(|content| content.id.as_str()).collect();
    let kinds: Vec<_> = contents().map(|content| content.kind.as_str()).collect();
    let bodies: Vec<_> = contents().map(|content| &content.body[..]).collect();
    let extras: Vec<_> = contents()
        .map(|content| Some(&content.extra[..]).filter(|json| !json.is_empty()))
        .collect();
    let replies: Vec<_> = contents()
        .map(|content| content.reply_to.map(Sequence::get))
        .collect();

    let rows = sqlx::query!(
        r#"select outcome as "outcome!", seq, at_millis as "at_millis!",
                  members_version as "members_version!"
           from append_batch($1, $2, $3, $4, $5, $6, $7, $8) order by item"#,
        &conversations[..],
        &senders[..],
        &devices[..] as &[Option<i64>],
        &ids[..] as &[&str],
        &kinds[..] as &[&str],
        &bodies[..] as &[&[u8]],
        &extras[..] as &[Option<&[u8]>],
        &replies[..] as &[Option<i64>],
    )
    .fetch_all(conn)
    .await?;

    rows.into_iter()
        .map(|row| {
            let outcome = outcome(row.outcome, row.seq, row.at_millis)?;
            Ok(Appended {
                outcome,
                members_version: row.members_version,
            })
        })
        .collect()
}

fn outcome(code: i16, sequence: Option<i64>, at_millis: i64) -> Result<Outcome, StoreError> {
    let sequence = || Sequence::new(sequence.unwrap_or_default()).map_err(StoreError::corrupt);
    match code {
        0 => Ok(Outcome::Stored {
            sequence: sequence()?,
            at_millis,
        }),
        1 => Ok(Outcome::Duplicate {
            sequence: sequence()?,
        }),
        2 => Ok(Outcome::NoConversation),
        3 => Ok(Outcome::NotParticipant),
        other => Err(StoreError::corrupt(format!(
            "append_batch answered {other}"
        ))),
    }
}

/// The entries after a sequence that the user may see, at most `limit`, oldest first.
pub async fn read_after(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    after: i64,
    limit: i64,
) -> Result<Vec<SharedEntry>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"select m.seq, m.sender_device, m.client_message_id, m.type as kind, m.body, m.extra,
                  m.ref_seq, m.at_millis as "at_millis!", u.subject as sender
           from participants p
           cross join lateral (
               select m.*, (extract(epoch from m.created_at) * 1000)::bigint as at_millis
               from messages m
               where m.conversation_id = $1 and m.seq > greatest($3, p.joined_seq - 1)
                 and m.seq <= coalesce(p.left_seq, 9223372036854775807)
               order by m.seq limit $4
           ) m
           join users u on u.user_id = m.sender_id
           where p.conversation_id = $1 and p.user_id = $2
           order by m.seq"#,
        conversation.0,
        user.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| row.into_entry(conversation))
    .collect()
}

/// The entries before a sequence that the user may see, at most the last `limit`, oldest first.
pub async fn read_before(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    before: i64,
    limit: i64,
) -> Result<Vec<SharedEntry>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"select m.seq, m.sender_device, m.client_message_id, m.type as kind, m.body, m.extra,
                  m.ref_seq, m.at_millis as "at_millis!", u.subject as sender
           from participants p
           cross join lateral (
               select m.*, (extract(epoch from m.created_at) * 1000)::bigint as at_millis
               from messages m
               where m.conversation_id = $1 and m.seq >= p.joined_seq and m.seq < $3
                 and m.seq <= coalesce(p.left_seq, 9223372036854775807)
               order by m.seq desc limit $4
           ) m
           join users u on u.user_id = m.sender_id
           where p.conversation_id = $1 and p.user_id = $2
           order by m.seq"#,
        conversation.0,
        user.0,
        before,
        limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| row.into_entry(conversation))
    .collect()
}

/// When an entry was committed, in milliseconds since 1970; none if there is no such entry, or
/// none that the user may see.
pub async fn committed_at_millis(
    conn: &mut PgConnection,
    conversation: ConversationId,
    sequence: Sequence,
    visible_to: Option<UserId>,
) -> Result<Option<i64>, StoreError> {
    let millis = sqlx::query_scalar!(
        r#"select (extract(epoch from m.created_at) * 1000)::bigint as "millis!"
           from messages m
           where m.conversation_id = $1 and m.seq = $2 and ($3::bigint is null or exists (
               select from participants p
               where p.conversation_id = $1 and p.user_id = $3
                 and m.seq between p.joined_seq and coalesce(p.left_seq, m.seq)
           ))"#,
        conversation.0,
        sequence.get(),
        visible_to.map(|user| user.0),
    )
    .fetch_optional(conn)
    .await?;
    Ok(millis)
}

struct Row {
    seq: i64,
    sender_device: Option<i64>,
    client_message_id: String,
    kind: String,
    body: Vec<u8>,
    extra: Option<Vec<u8>>,
    ref_seq: Option<i64>,
    at_millis: i64,
    sender: String,
}

impl Row {
    fn into_entry(self, conversation: ConversationId) -> Result<SharedEntry, StoreError> {
        let sequence = Sequence::new(self.seq).map_err(StoreError::corrupt)?;
        let from = Subject::new(&self.sender).map_err(StoreError::corrupt)?;
        let content = Content {
            id: ClientMessageId::new(self.client_message_id).map_err(StoreError::corrupt)?,
            kind: self.kind,
            body: self.body.into(),
            reply_to: self
                .ref_seq
                .map(Sequence::new)
                .transpose()
                .map_err(StoreError::corrupt)?,
            extra: self.extra.map_or_else(Bytes::new, Bytes::from),
        };
        let stamp = Stamp {
            sequence,
            from: &from,
            at_millis: self.at_millis,
        };
        Ok(Arc::new(LogEntry {
            position: Position {
                conversation,
                sequence,
            },
            sender_device: self.sender_device.map(DeviceId),
            payload: entry_json(stamp, &content),
        }))
    }
}
