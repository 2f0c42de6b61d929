//! The log: append a batch, read after a cursor.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions, types::Uuid};

use crate::domain::{
    envelope::{Gone, Stamp, entry_json, tombstone_json},
    ids::{ClientMessageId, ConversationId, DeviceId, Subject, UserId},
    message::{Content, Format, LogEntry, NewMessage, Position, Sequence, SharedEntry},
};

use super::{StoreError, settle_plans};

/// How `messages.content_format` names the ways to write a body.
const FORMAT_JSON: i16 = 0;
const FORMAT_BYTES: i16 = 1;
pub(super) const FORMAT_ERASED: i16 = -1;

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
    /// Nothing is written to the conversation any more.
    Archived,
    /// The sender may not write for now.
    Silenced,
    /// The other one of a direct conversation has blocked the sender.
    Blocked,
    /// There is no such message to change or to answer, or none that the sender sees.
    NoMessage,
    /// The message is somebody else's.
    NotAuthor,
    /// The message was retracted, or has expired.
    Gone,
    /// The message has as many sorts of reactions as it may.
    ReactionsFull,
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
    let columns = Columns::of(batch);
    let expiries: Vec<_> = batch
        .iter()
        .map(|message| message.content.expires_at_millis)
        .collect();
    let rows = sqlx::query_as!(
        AnswerRow,
        r#"select outcome as "outcome!", seq, at_millis as "at_millis!",
                  members_version as "members_version!"
           from append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) order by item"#,
        &columns.conversations[..],
        &columns.senders[..],
        &columns.devices[..] as &[Option<i64>],
        &columns.ids[..] as &[&str],
        &columns.kinds[..] as &[&str],
        &columns.formats[..],
        &columns.bodies[..] as &[&[u8]],
        &columns.extras[..] as &[Option<&[u8]>],
        &columns.references[..] as &[Option<i64>],
        &expiries[..] as &[Option<i64>],
        &columns.mentions[..] as &[Option<String>],
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(AnswerRow::into_appended).collect()
}

/// A batch as the arrays that Postgres takes.
pub(super) struct Columns<'a> {
    pub(super) conversations: Vec<Uuid>,
    pub(super) senders: Vec<i64>,
    pub(super) devices: Vec<Option<i64>>,
    pub(super) ids: Vec<&'a str>,
    pub(super) kinds: Vec<&'a str>,
    pub(super) formats: Vec<i16>,
    pub(super) bodies: Vec<&'a [u8]>,
    pub(super) extras: Vec<Option<&'a [u8]>>,
    /// What they answer or change.
    pub(super) references: Vec<Option<i64>>,
    /// The names of users, one on a line: they have no control characters.
    pub(super) mentions: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(batch: &'a [NewMessage]) -> Self {
        let contents = || batch.iter().map(|message| &message.content);
        Self {
            conversations: batch.iter().map(|message| message.conversation.0).collect(),
            senders: batch.iter().map(|message| message.sender.0).collect(),
            devices: batch
                .iter()
                .map(|message| message.sender_device.map(|id| id.0))
                .collect(),
            ids: contents().map(|content| content.id.as_str()).collect(),
            kinds: contents().map(|content| content.kind.as_str()).collect(),
            formats: contents()
                .map(|content| match content.format {
                    Format::Json => FORMAT_JSON,
                    Format::Bytes => FORMAT_BYTES,
                })
                .collect(),
            bodies: contents().map(|content| &content.body[..]).collect(),
            extras: contents()
                .map(|content| Some(&content.extra[..]).filter(|json| !json.is_empty()))
                .collect(),
            references: contents()
                .map(|content| content.target.or(content.reply_to).map(Sequence::get))
                .collect(),
            mentions: contents()
                .map(|content| content.mentions.as_deref().map(lines))
                .collect(),
        }
    }
}

fn lines(names: &[Subject]) -> String {
    let names: Vec<_> = names.iter().map(Subject::as_str).collect();
    names.join("\n")
}

pub(super) struct AnswerRow {
    pub(super) outcome: i16,
    pub(super) seq: Option<i64>,
    pub(super) at_millis: i64,
    pub(super) members_version: i32,
}

impl AnswerRow {
    pub(super) fn into_appended(self) -> Result<Appended, StoreError> {
        Ok(Appended {
            outcome: outcome(self.outcome, self.seq, self.at_millis)?,
            members_version: self.members_version,
        })
    }
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
        4 => Ok(Outcome::Archived),
        5 => Ok(Outcome::Silenced),
        6 => Ok(Outcome::Blocked),
        7 => Ok(Outcome::NoMessage),
        8 => Ok(Outcome::NotAuthor),
        9 => Ok(Outcome::Gone),
        10 => Ok(Outcome::ReactionsFull),
        other => Err(StoreError::corrupt(format!("an append answered {other}"))),
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
        r#"select m.seq, m.sender_device, m.client_message_id, m.type as kind, m.content_format,
                  m.body, m.extra, m.ref_seq, m.ordinal, m.retract_seq,
                  coalesce(m.expires_at <= now(), false) as "has_expired!",
                  m.at_millis as "at_millis!", u.subject as sender
           from participants p
           cross join lateral (
               select c.first_seq from conversations c where c.conversation_id = $1
           ) c
           cross join lateral (
               select m.*, (extract(epoch from m.created_at) * 1000)::bigint as at_millis
               from messages m
               where m.conversation_id = $1 and m.seq > $3
                 and m.seq >= greatest(p.visible_from, c.first_seq)
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
        r#"select m.seq, m.sender_device, m.client_message_id, m.type as kind, m.content_format,
                  m.body, m.extra, m.ref_seq, m.ordinal, m.retract_seq,
                  coalesce(m.expires_at <= now(), false) as "has_expired!",
                  m.at_millis as "at_millis!", u.subject as sender
           from participants p
           cross join lateral (
               select c.first_seq from conversations c where c.conversation_id = $1
           ) c
           cross join lateral (
               select m.*, (extract(epoch from m.created_at) * 1000)::bigint as at_millis
               from messages m
               where m.conversation_id = $1 and m.seq < $3
                 and m.seq >= greatest(p.visible_from, c.first_seq)
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
               join conversations c on c.conversation_id = p.conversation_id
               where p.conversation_id = $1 and p.user_id = $3
                 and m.seq between greatest(p.visible_from, c.first_seq) and coalesce(p.left_seq, m.seq)
           ))"#,
        conversation.0,
        sequence.get(),
        visible_to.map(|user| user.0),
    )
    .fetch_optional(conn)
    .await?;
    Ok(millis)
}

pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) sender_device: Option<i64>,
    pub(super) client_message_id: String,
    pub(super) kind: String,
    pub(super) content_format: i16,
    pub(super) body: Vec<u8>,
    pub(super) extra: Option<Vec<u8>>,
    pub(super) ref_seq: Option<i64>,
    pub(super) ordinal: Option<i64>,
    pub(super) retract_seq: Option<i64>,
    pub(super) has_expired: bool,
    pub(super) at_millis: i64,
    pub(super) sender: String,
}

impl Row {
    fn into_entry(self, conversation: ConversationId) -> Result<SharedEntry, StoreError> {
        let sequence = Sequence::new(self.seq).map_err(StoreError::corrupt)?;
        let position = Position {
            conversation,
            sequence,
        };
        let sender_device = self.sender_device.map(DeviceId);
        let payload = self.into_payload()?;
        Ok(Arc::new(LogEntry::new(position, sender_device, payload)))
    }

    /// The JSON of the entry.
    pub(super) fn into_payload(self) -> Result<Bytes, StoreError> {
        let from = Subject::new(&self.sender).map_err(StoreError::corrupt)?;
        let stamp = Stamp {
            sequence: Sequence::new(self.seq).map_err(StoreError::corrupt)?,
            from: &from,
            at_millis: self.at_millis,
        };
        let id = ClientMessageId::new(self.client_message_id).map_err(StoreError::corrupt)?;
        let format = match self.content_format {
            _ if self.retract_seq.is_some() => {
                return Ok(tombstone_json(stamp, &id, &self.kind, Gone::Retracted));
            }
            FORMAT_ERASED => return Ok(tombstone_json(stamp, &id, &self.kind, Gone::Expired)),
            _ if self.has_expired => {
                return Ok(tombstone_json(stamp, &id, &self.kind, Gone::Expired));
            }
            FORMAT_JSON => Format::Json,
            FORMAT_BYTES => Format::Bytes,
            other => return Err(StoreError::corrupt(format!("content format {other}"))),
        };
        let reference = self.ref_seq.map(Sequence::new).transpose();
        let reference = reference.map_err(StoreError::corrupt)?;
        // Messages answer others; what has no place among them changes one.
        let (reply_to, target) = match self.ordinal {
            Some(_) => (reference, None),
            None => (None, reference),
        };
        let content = Content {
            id,
            kind: self.kind,
            format,
            body: self.body.into(),
            reply_to,
            target,
            extra: self.extra.map_or_else(Bytes::new, Bytes::from),
            mentions: None,
            expires_at_millis: None,
        };
        Ok(entry_json(stamp, &content))
    }
}
