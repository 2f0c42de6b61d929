//! Cursors of devices, and how far participants have got.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{
    ids::{ConversationId, DeviceId, Subject, UserId},
    receipt::Standing,
};

use super::{StoreError, conversations::UNREAD_MAX};

/// The conversations whose log the subscriptions of a session cover.
#[derive(Clone, Copy, Debug)]
pub enum Coverage<'a> {
    All,
    Only(&'a [ConversationId]),
}

impl Coverage<'_> {
    /// For SQL, where null is all.
    fn ids(self) -> Option<Vec<Uuid>> {
        match self {
            Self::All => None,
            Self::Only(ids) => Some(ids.iter().map(|id| id.0).collect()),
        }
    }
}

/// A conversation in which a device has something to receive: everything after `cursor`, up
/// to and with `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub conversation: ConversationId,
    pub cursor: i64,
    pub head: i64,
}

/// How far a user has got in a conversation, as a device or a request reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whose cursor moves with `delivered`, and who keeps `read` if it has a cursor; none if it
    /// was reported over REST.
    pub device: Option<DeviceId>,
    pub user: UserId,
    pub conversation: ConversationId,
    pub delivered: Option<i64>,
    pub read: Option<i64>,
}

/// A standing that rose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub conversation: ConversationId,
    pub user: UserId,
    pub name: Subject,
    pub delivered: i64,
    pub read: i64,
    /// The user has read on, not only received.
    pub has_read: bool,
    /// Neither the user nor the conversation has receipts switched off.
    pub is_told: bool,
}

struct MovedRow {
    conversation_id: Uuid,
    user_id: i64,
    subject: String,
    delivered_seq: i64,
    read_seq: i64,
    has_read: bool,
    is_told: bool,
}

impl MovedRow {
    fn moved(self) -> Result<Moved, StoreError> {
        Ok(Moved {
            conversation: ConversationId(self.conversation_id),
            user: UserId(self.user_id),
            name: Subject::new(&self.subject).map_err(StoreError::corrupt)?,
            delivered: self.delivered_seq,
            read: self.read_seq,
            has_read: self.has_read,
            is_told: self.is_told,
        })
    }
}

/// Lets a device begin with what comes next, in each conversation that is covered now and was
/// not `before`. What was covered before goes on where it stands.
///
/// Belongs into the transaction that stores the subscription.
pub async fn begin_at_head(
    conn: &mut PgConnection,
    device: DeviceId,
    user: UserId,
    before: Coverage<'_>,
    coverage: Coverage<'_>,
) -> Result<(), StoreError> {
    let Some(before) = before.ids() else {
        return Ok(());
    };
    let covered = coverage.ids();
    // Conversations the user was removed from, too: their end is not news for this device.
    sqlx::query!(
        "insert into device_cursors (conversation_id, device_id, delivered_seq)
         select p.conversation_id, $1, least(c.last_seq, p.left_seq)
         from participants p join conversations c on c.conversation_id = p.conversation_id
         where p.user_id = $2 and ($3::uuid[] is null or p.conversation_id = any($3))
           and p.conversation_id <> all($4)
         order by p.conversation_id
         on conflict (conversation_id, device_id) do update
         set delivered_seq = greatest(device_cursors.delivered_seq, excluded.delivered_seq)",
        device.0,
        user.0,
        covered.as_deref(),
        &before[..],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the cursors of the conversations that are no longer covered.
pub async fn forget(
    conn: &mut PgConnection,
    device: DeviceId,
    keep: Coverage<'_>,
) -> Result<(), StoreError> {
    let Some(keep) = keep.ids() else {
        return Ok(());
    };
    // In the order in which settle() writes them, so that the two cannot wait in a circle.
    sqlx::query!(
        "with left_behind as (
             select d.conversation_id from device_cursors d
             where d.device_id = $1 and d.conversation_id <> all($2)
             order by d.conversation_id for update
         )
         delete from device_cursors d using left_behind l
         where d.conversation_id = l.conversation_id and d.device_id = $1",
        device.0,
        &keep[..],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The covered conversations in which something waits for the device.
pub async fn pending(
    conn: &mut PgConnection,
    device: DeviceId,
    user: UserId,
    coverage: Coverage<'_>,
) -> Result<Vec<Pending>, StoreError> {
    let covered = coverage.ids();
    // `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
    let rows = sqlx::query!(
        r#"select p.conversation_id, s.cursor as "cursor!", s.head as "head!"
           from participants p
           cross join lateral (
               select c.last_seq from conversations c
               where c.conversation_id = p.conversation_id limit 1
           ) c
           left join lateral (
               select d.delivered_seq from device_cursors d
               where d.conversation_id = p.conversation_id and d.device_id = $1 limit 1
           ) d on true
           cross join lateral (
               select greatest(d.delivered_seq, p.joined_seq - 1) as cursor,
                      least(c.last_seq, p.left_seq) as head
           ) s
           where p.user_id = $2 and ($3::uuid[] is null or p.conversation_id = any($3))
             and s.head > s.cursor"#,
        device.0,
        user.0,
        covered.as_deref(),
    )
    .fetch_all(conn)
    .await?;
    let pending = rows.into_iter().map(|row| Pending {
        conversation: ConversationId(row.conversation_id),
        cursor: row.cursor,
        head: row.head,
    });
    Ok(pending.collect())
}

/// Moves cursors and standings forward, never back and never beyond what the user may see;
/// returns the standings that rose. Whoever takes no part in a conversation moves nothing.
///
/// Use a transaction of its own: a batch without a read position is not fsynced, since its
/// loss only repeats deliveries.
pub async fn settle(conn: &mut PgConnection, batch: &[Settled]) -> Result<Vec<Moved>, StoreError> {
    let devices: Vec<_> = batch
        .iter()
        .map(|settled| settled.device.map(|id| id.0))
        .collect();
    let users: Vec<_> = batch.iter().map(|settled| settled.user.0).collect();
    let conversations: Vec<_> = batch.iter().map(|settled| settled.conversation.0).collect();
    let delivered: Vec<_> = batch.iter().map(|settled| settled.delivered).collect();
    let read: Vec<_> = batch.iter().map(|settled| settled.read).collect();
    sqlx::query_as!(
        MovedRow,
        r#"select m.conversation_id as "conversation_id!", m.user_id as "user_id!", u.subject,
                  m.delivered_seq as "delivered_seq!", m.read_seq as "read_seq!",
                  m.has_read as "has_read!", u.receipts and c.receipts as "is_told!"
           from settle($1, $2, $3, $4, $5) m
           join users u on u.user_id = m.user_id
           join conversations c on c.conversation_id = m.conversation_id"#,
        &devices[..] as &[Option<i64>],
        &users[..],
        &conversations[..],
        &delivered[..] as &[Option<i64>],
        &read[..] as &[Option<i64>],
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(MovedRow::moved)
    .collect()
}

/// Where those who settled stand, whether or not they rose: after a [`settle`] without an answer.
pub async fn settled(conn: &mut PgConnection, batch: &[Settled]) -> Result<Vec<Moved>, StoreError> {
    let users: Vec<_> = batch.iter().map(|settled| settled.user.0).collect();
    let conversations: Vec<_> = batch.iter().map(|settled| settled.conversation.0).collect();
    let read: Vec<_> = batch.iter().map(|settled| settled.read).collect();
    // `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
    sqlx::query_as!(
        MovedRow,
        r#"select i.conversation_id as "conversation_id!", i.user_id as "user_id!", u.subject,
                  p.delivered_seq, p.read_seq, u.receipts and c.receipts as "is_told!",
                  coalesce(least(i.read_seq, c.last_seq) = p.read_seq, false) as "has_read!"
           from (
               select i.conversation_id, i.user_id, max(i.read_seq) as read_seq
               from unnest($1::bigint[], $2::uuid[], $3::bigint[]) as i (user_id, conversation_id, read_seq)
               group by i.conversation_id, i.user_id
           ) i
           cross join lateral (
               select p.delivered_seq, p.read_seq from participants p
               where p.conversation_id = i.conversation_id and p.user_id = i.user_id
                 and p.left_seq is null
               limit 1
           ) p
           join users u on u.user_id = i.user_id
           join conversations c on c.conversation_id = i.conversation_id"#,
        &users[..],
        &conversations[..],
        &read[..] as &[Option<i64>],
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(MovedRow::moved)
    .collect()
}

/// Of users who have written, up to a sequence each, those who have written so much without
/// saying what they have read that they have read what stands before: as many messages after
/// their position as unread ones are counted, and that before as many of others.
///
/// With it a look for unread messages passes a bounded number of the reader's own.
pub async fn read_by_writing(
    conn: &mut PgConnection,
    written: &[(UserId, ConversationId, i64)],
) -> Result<Vec<Settled>, StoreError> {
    let users: Vec<_> = written.iter().map(|(user, ..)| user.0).collect();
    let conversations: Vec<_> = written.iter().map(|(_, id, _)| id.0).collect();
    let sequences: Vec<_> = written.iter().map(|(.., sequence)| *sequence).collect();
    // `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
    let rows = sqlx::query!(
        r#"select i.user_id as "user_id!", i.conversation_id as "conversation_id!", i.seq as "seq!"
           from unnest($1::bigint[], $2::uuid[], $3::bigint[]) as i (user_id, conversation_id, seq)
           cross join lateral (
               select p.read_seq, p.visible_from from participants p
               where p.conversation_id = i.conversation_id and p.user_id = i.user_id
                 and p.left_seq is null
               limit 1
           ) p
           cross join lateral (
               select c.first_seq from conversations c
               where c.conversation_id = i.conversation_id limit 1
           ) c
           cross join lateral (
               select greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1) as after
           ) s
           cross join lateral (
               -- One of the two sorts is there so often.
               select count(*) filter (where m.sender_id = i.user_id) as own
               from (
                   select m.sender_id from messages m
                   where i.seq - s.after >= $4 and m.conversation_id = i.conversation_id
                     and m.seq > s.after and m.seq <= i.seq and m.ordinal is not null
                   order by m.seq limit 2 * $4 - 1
               ) m
           ) w
           where w.own >= $4"#,
        &users[..],
        &conversations[..],
        &sequences[..],
        UNREAD_MAX,
    )
    .fetch_all(conn)
    .await?;
    let settled = rows.into_iter().map(|row| Settled {
        device: None,
        user: UserId(row.user_id),
        conversation: ConversationId(row.conversation_id),
        delivered: None,
        read: Some(row.seq),
    });
    Ok(settled.collect())
}

/// How far the participants of a conversation have got, as far as `viewer` is told: without
/// those who have receipts switched off, but always with the viewer. In the order in which they
/// became users, at most `limit` after the user `after`.
pub async fn standings(
    conn: &mut PgConnection,
    conversation: ConversationId,
    viewer: UserId,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<Standing>, StoreError> {
    sqlx::query!(
        "select u.subject, p.delivered_seq, p.read_seq
         from conversations c
         join participants p on p.conversation_id = c.conversation_id
         cross join lateral (select u.* from users u where u.user_id = p.user_id limit 1) u
         where c.conversation_id = $1 and p.conversation_id = $1 and p.left_seq is null
           and p.user_id > $3 and (u.receipts and c.receipts or p.user_id = $2)
         order by p.user_id limit $4",
        conversation.0,
        viewer.0,
        after.map_or(0, |user| user.0),
        limit,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        let user = Subject::new(&row.subject).map_err(StoreError::corrupt)?;
        Ok(Standing {
            user,
            delivered: row.delivered_seq,
            read: row.read_seq,
        })
    })
    .collect()
}

/// Whether each of the users takes part in the conversation beside it, in order.
pub async fn take_part(
    conn: &mut PgConnection,
    pairs: &[(UserId, ConversationId)],
) -> Result<Vec<bool>, StoreError> {
    let users: Vec<_> = pairs.iter().map(|(user, _)| user.0).collect();
    let conversations: Vec<_> = pairs
        .iter()
        .map(|(_, conversation)| conversation.0)
        .collect();
    let rows = sqlx::query_scalar!(
        r#"select exists (
               select from participants p
               where p.conversation_id = i.conversation_id and p.user_id = i.user_id
                 and p.left_seq is null
           ) as "takes_part!"
           from unnest($1::bigint[], $2::uuid[]) with ordinality
               as i (user_id, conversation_id, place)
           order by i.place"#,
        &users[..],
        &conversations[..],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}
