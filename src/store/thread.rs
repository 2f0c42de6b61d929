//! A conversation as people read it: messages with their changes applied.
//!
//! Edits, retractions and reactions are entries of the log, but no rows of a thread: they show
//! in the message that they change. So a page looks at more entries than it shows; sequences
//! have no gaps, and the caller says from where to where.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::{PgConnection, types::Json};

use crate::domain::{
    ids::{ConversationId, UserId},
    thread::{Changes, ReactionCount, edited_extra, merged_json},
};

use super::{StoreError, messages};

/// What of a conversation a user may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readable {
    pub epoch: i32,
    /// The newest entry of the conversation that the user may read; 0 while there is none.
    pub last_seq: i64,
    /// The first entry that the user's participation covers.
    pub visible_from: i64,
    /// Contents before this entry have been erased.
    pub first_seq: i64,
    /// The entry that says that the user was removed, if so.
    pub left_seq: Option<i64>,
    pub own_version: i64,
}

impl Readable {
    /// The first entry that is there to be read.
    #[must_use]
    pub fn low(&self) -> i64 {
        self.visible_from.max(self.first_seq)
    }
}

/// A message of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadMessage {
    pub seq: i64,
    /// The entry that changed it last, as far as the user may know; its own if none did.
    pub changed_by: i64,
    pub payload: Bytes,
}

/// From which end of a range the messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Oldest,
    Newest,
}

/// What the user may read of these conversations; those that the user never took part in, or
/// that do not exist, are not in the result.
pub async fn readable(
    conn: &mut PgConnection,
    user: UserId,
    conversations: &[ConversationId],
) -> Result<Vec<(ConversationId, Readable)>, StoreError> {
    let ids: Vec<_> = conversations.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"select p.conversation_id, c.epoch, c.first_seq, c.last_seq, p.visible_from, p.left_seq,
                  p.own_version
           from unnest($2::uuid[]) as i (conversation_id)
           cross join lateral (
               select p.* from participants p
               where p.conversation_id = i.conversation_id and p.user_id = $1 limit 1
           ) p
           cross join lateral (
               select c.* from conversations c
               where c.conversation_id = i.conversation_id limit 1
           ) c"#,
        user.0,
        &ids[..],
    )
    .fetch_all(conn)
    .await?;
    let readable = rows.into_iter().map(|row| {
        let readable = Readable {
            epoch: row.epoch,
            last_seq: row
                .left_seq
                .map_or(row.last_seq, |left| left.min(row.last_seq)),
            visible_from: row.visible_from,
            first_seq: row.first_seq,
            left_seq: row.left_seq,
            own_version: row.own_version,
        };
        (ConversationId(row.conversation_id), readable)
    });
    Ok(readable.collect())
}

/// The first entry of `low..=high` that was stored at that time or later; `high + 1` if all are
/// older.
pub async fn sequence_at(
    conn: &mut PgConnection,
    conversation: ConversationId,
    (low, high): (i64, i64),
    at_millis: i64,
) -> Result<i64, StoreError> {
    let sequence = sqlx::query_scalar!(
        r#"select sequence_at($1, $2, $3, to_timestamp($4::bigint / 1000.0)) as "sequence!""#,
        conversation.0,
        low,
        high,
        at_millis,
    )
    .fetch_one(conn)
    .await?;
    Ok(sequence)
}

/// Messages of the entries `from..=to`, at most `limit` from one end of them, oldest first.
///
/// The user must be allowed to read these entries; a change after `left_seq`, the end of the
/// user's participation, is not applied.
pub async fn between(
    conn: &mut PgConnection,
    (conversation, user): (ConversationId, UserId),
    left_seq: Option<i64>,
    (from, to): (i64, i64),
    end: End,
    limit: i64,
) -> Result<Vec<ThreadMessage>, StoreError> {
    let wanted = Wanted {
        from,
        to,
        end: Some(end),
        low: from,
        left_seq,
        limit,
    };
    let mut messages = read(conn, conversation, user, wanted).await?;
    messages.sort_unstable_by_key(|message| message.seq);
    Ok(messages)
}

/// Messages from `low` on that were changed, or stored, by the entries `from..=to`; at most
/// `limit`, in the order of their versions.
pub async fn changed(
    conn: &mut PgConnection,
    (conversation, user): (ConversationId, UserId),
    left_seq: Option<i64>,
    low: i64,
    (from, to): (i64, i64),
    limit: i64,
) -> Result<Vec<ThreadMessage>, StoreError> {
    let wanted = Wanted {
        from,
        to,
        end: None,
        low,
        left_seq,
        limit,
    };
    let mut messages = read(conn, conversation, user, wanted).await?;
    messages.sort_unstable_by_key(|message| message.changed_by);
    Ok(messages)
}

struct Wanted {
    from: i64,
    to: i64,
    /// None for what changed.
    end: Option<End>,
    low: i64,
    left_seq: Option<i64>,
    limit: i64,
}

/// One statement for all, so that they cannot differ in what a message is. In no order.
async fn read(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    wanted: Wanted,
) -> Result<Vec<ThreadMessage>, StoreError> {
    // Each of the parts is ordered by an index, and all but one are empty. A change that a
    // former participant may not see hides an older one from the index: such a message counts
    // as changed when it was stored.
    sqlx::query_as!(
        Row,
        r#"select m.seq as "seq!", m.client_message_id as "client_message_id!", m.type as "kind!",
                  coalesce(e.body, m.body) as "body!",
                  coalesce(e.content_format, m.content_format) as "content_format!",
                  case when e.seq is null then m.extra else e.extra end as extra,
                  case when e.seq is not null then coalesce(m.extra, '') end as first_extra,
                  n.extra as naming_extra,
                  m.ref_seq, m.ordinal, m.retract_seq,
                  coalesce(m.expires_at <= now(), false) as "has_expired!",
                  (extract(epoch from m.created_at) * 1000)::bigint as "at_millis!",
                  u.subject as sender, case when m.version is null then m.seq else least(m.version, $7) end as "version!",
                  case when m.version <= $7 then m.version else m.seq end as "changed_by!",
                  (extract(epoch from e.created_at) * 1000)::bigint as edited_at_millis,
                  r.reactions as "reactions: Json<BTreeMap<String, ReactionCount>>"
           from (
               (select * from messages m
                where $5 = 1 and m.conversation_id = $1 and m.seq between $3 and $4
                  and (m.ordinal is not null or m.type like 'homing.%')
                order by m.seq limit $8)
               union all
               (select * from messages m
                where $5 = 2 and m.conversation_id = $1 and m.seq between $3 and $4
                  and (m.ordinal is not null or m.type like 'homing.%')
                order by m.seq desc limit $8)
               union all
               (select * from (
                   (select * from messages m
                    where $5 = 3 and m.conversation_id = $1 and m.seq between $3 and $4
                      and (m.ordinal is not null or m.type like 'homing.%')
                      and (m.version is null or m.version > $7)
                    order by m.seq limit $8)
                   union all
                   (select * from messages m
                    where $5 = 3 and m.conversation_id = $1 and m.version between $3 and $4
                      and (m.ordinal is not null or m.type like 'homing.%')
                      and m.seq >= $6 and m.version <= $7
                    order by m.version limit $8)
                ) m
                order by case when m.version <= $7 then m.version else m.seq end limit $8)
           ) m
           join users u on u.user_id = m.sender_id
           left join lateral (
               select e.seq, e.body, e.content_format, e.extra, e.created_at
               from messages e
               where m.edit_seq is not null and m.retract_seq is null
                 and e.conversation_id = $1 and e.seq = case
                     when m.edit_seq <= $7 then m.edit_seq
                     -- For a former participant: the last one before the end.
                     else (select max(f.seq) from messages f
                           where f.conversation_id = $1 and f.type = 'edit'
                             and f.ref_seq = m.seq and f.ordinal is null and f.seq <= $7) end
               limit 1
           ) e on true
           -- The newest list of mentions, if an edit has one; it stands first in what it says.
           left join lateral (
               select n.extra from messages n
               where e.seq is not null and n.conversation_id = $1 and n.type = 'edit'
                 and n.ref_seq = m.seq and n.ordinal is null and n.seq <= e.seq
                 and substring(n.extra for 12) = '{"mentions":'::bytea
               order by n.seq desc limit 1
           ) n on true
           left join lateral (
               select jsonb_object_agg(r.key, jsonb_build_object('count', r.count, 'mine', r.mine)) as reactions
               from (
                   select r.key, count(*) as count, bool_or(r.user_id = $2) as mine
                   from reactions r
                   where m.version is not null and m.retract_seq is null
                     and r.conversation_id = $1 and r.seq = m.seq and r.at_seq <= $7
                   group by r.key
               ) r
           ) r on true"#,
        conversation.0,
        user.0,
        wanted.from,
        wanted.to,
        match wanted.end {
            Some(End::Oldest) => 1,
            Some(End::Newest) => 2,
            None => 3,
        },
        wanted.low,
        wanted.left_seq.unwrap_or(i64::MAX),
        wanted.limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Row::into_message)
    .collect()
}

struct Row {
    seq: i64,
    client_message_id: String,
    kind: String,
    body: Vec<u8>,
    content_format: i16,
    extra: Option<Vec<u8>>,
    first_extra: Option<Vec<u8>>,
    naming_extra: Option<Vec<u8>>,
    ref_seq: Option<i64>,
    ordinal: Option<i64>,
    retract_seq: Option<i64>,
    has_expired: bool,
    at_millis: i64,
    sender: String,
    version: i64,
    changed_by: i64,
    edited_at_millis: Option<i64>,
    reactions: Option<Json<BTreeMap<String, ReactionCount>>>,
}

impl Row {
    fn into_message(self) -> Result<ThreadMessage, StoreError> {
        let is_gone = self.has_expired
            || self.retract_seq.is_some()
            || self.content_format == messages::FORMAT_ERASED;
        let extra = match self.first_extra {
            None => self.extra,
            Some(first) => {
                let newest = self.extra.unwrap_or_default();
                let naming = self.naming_extra.as_deref().unwrap_or(&first);
                Some(edited_extra(&newest, &first, naming).map_err(StoreError::corrupt)?)
            }
        };
        let entry = messages::Row {
            seq: self.seq,
            sender_device: None,
            client_message_id: self.client_message_id,
            kind: self.kind,
            content_format: self.content_format,
            body: self.body,
            extra,
            ref_seq: self.ref_seq,
            ordinal: self.ordinal,
            retract_seq: self.retract_seq,
            has_expired: self.has_expired,
            at_millis: self.at_millis,
            sender: self.sender,
        };
        let mut changes = Changes {
            version: self.version,
            edited_at_millis: self.edited_at_millis,
            reactions: self.reactions.map_or_else(BTreeMap::new, |json| json.0),
        };
        if is_gone {
            changes.edited_at_millis = None;
            changes.reactions.clear();
        }
        Ok(ThreadMessage {
            seq: self.seq,
            changed_by: self.changed_by,
            payload: merged_json(&entry.into_payload()?, &changes),
        })
    }
}
