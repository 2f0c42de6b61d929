//! What has become of messages: who could see them, whom they have reached, who has read them.
//!
//! Whoever has receipts switched off counts among those who could see a message, and as not
//! reached by it: nobody can tell them from a user who is away.

use sqlx::PgConnection;

use crate::domain::ids::{ConversationId, Subject, UserId};

use super::StoreError;

/// Devices shown for one user, the oldest first.
const DEVICES_MAX: i64 = 20;

/// A message, and how many others it has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub sender: UserId,
    /// When it was stored, in milliseconds since 1970.
    pub at_millis: i64,
    /// The others who could see it: they took part when it was said.
    pub participants: i64,
    pub delivered: i64,
    pub read: i64,
}

/// How far one of those has got who could see a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub user: UserId,
    pub name: Subject,
    /// 0 if the user, or the conversation, has receipts switched off.
    pub delivered_seq: i64,
    pub read_seq: i64,
    /// Empty then.
    pub devices: Vec<ReachedDevice>,
}

/// How far one device has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachedDevice {
    pub client_id: String,
    pub delivered_seq: i64,
    pub read_seq: i64,
}

/// A participant, or one who was, as far as others may count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standpoint {
    pub user: UserId,
    pub joined: i64,
    pub left: Option<i64>,
    pub delivered: i64,
    pub read: i64,
}

/// What has become of an entry; none if there is no such entry.
pub async fn of_entry(
    conn: &mut PgConnection,
    conversation: ConversationId,
    sequence: i64,
) -> Result<Option<Status>, StoreError> {
    let row = sqlx::query!(
        r#"select m.sender_id, (extract(epoch from m.created_at) * 1000)::bigint as "at_millis!",
                  n.participants as "participants!", n.delivered as "delivered!", n.read as "read!"
           from conversations c
           cross join lateral (
               select m.* from messages m where m.conversation_id = $1 and m.seq = $2 limit 1
           ) m
           cross join lateral (
               select count(*) as participants,
                      count(*) filter (where c.receipts and h.user_id is null
                                         and p.delivered_seq >= $2) as delivered,
                      count(*) filter (where c.receipts and h.user_id is null
                                         and p.read_seq >= $2) as read
               from participants p
               left join lateral (
                   select u.user_id from users u
                   where u.user_id = p.user_id and not u.receipts limit 1
               ) h on true
               where p.conversation_id = $1 and p.user_id <> m.sender_id and p.joined_seq <= $2
                 and (p.left_seq is null or p.left_seq >= $2)
           ) n
           where c.conversation_id = $1"#,
        conversation.0,
        sequence,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Status {
        sender: UserId(row.sender_id),
        at_millis: row.at_millis,
        participants: row.participants,
        delivered: row.delivered,
        read: row.read,
    }))
}

/// Whom an entry has reached: those who could see it, but its sender, in the order in which they
/// became users, at most `limit` after the user `after`.
pub async fn reached(
    conn: &mut PgConnection,
    conversation: ConversationId,
    (sequence, sender): (i64, UserId),
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<Reached>, StoreError> {
    let rows = sqlx::query!(
        r#"select p.user_id, u.subject, u.receipts and c.receipts as "is_told!",
                  p.delivered_seq, p.read_seq
           from conversations c
           join participants p on p.conversation_id = c.conversation_id
           cross join lateral (select u.* from users u where u.user_id = p.user_id limit 1) u
           where c.conversation_id = $1 and p.conversation_id = $1 and p.user_id <> $3
             and p.user_id > $4 and p.joined_seq <= $2
             and (p.left_seq is null or p.left_seq >= $2)
           order by p.user_id limit $5"#,
        conversation.0,
        sequence,
        sender.0,
        after.map_or(0, |user| user.0),
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    let told: Vec<_> = rows
        .iter()
        .filter(|row| row.is_told)
        .map(|row| UserId(row.user_id))
        .collect();
    let mut devices = devices(conn, conversation, &told)
        .await?
        .into_iter()
        .peekable();
    let mut reached = Vec::with_capacity(rows.len());
    for row in rows {
        let user = UserId(row.user_id);
        let mut own = Vec::new();
        while let Some((_, device)) = devices.next_if(|(owner, _)| *owner == user) {
            own.push(device);
        }
        let told = |sequence| if row.is_told { sequence } else { 0 };
        reached.push(Reached {
            user,
            name: Subject::new(&row.subject).map_err(StoreError::corrupt)?,
            delivered_seq: told(row.delivered_seq),
            read_seq: told(row.read_seq),
            devices: own,
        });
    }
    Ok(reached)
}

/// The devices of users that receive a conversation, in the order of the users.
async fn devices(
    conn: &mut PgConnection,
    conversation: ConversationId,
    users: &[UserId],
) -> Result<Vec<(UserId, ReachedDevice)>, StoreError> {
    let users: Vec<_> = users.iter().map(|user| user.0).collect();
    let rows = sqlx::query!(
        r#"select i.user_id as "user_id!", d.client_id as "client_id!",
                  d.delivered_seq as "delivered_seq!", d.read_seq as "read_seq!"
           from unnest($2::bigint[]) as i (user_id)
           cross join lateral (
               select d.client_id, d.device_id, k.delivered_seq, k.read_seq
               from devices d
               cross join lateral (
                   select k.* from device_cursors k
                   where k.conversation_id = $1 and k.device_id = d.device_id limit 1
               ) k
               where d.user_id = i.user_id
               order by d.device_id limit $3
           ) d
           order by i.user_id, d.device_id"#,
        conversation.0,
        &users[..],
        DEVICES_MAX,
    )
    .fetch_all(conn)
    .await?;
    let devices = rows.into_iter().map(|row| {
        let device = ReachedDevice {
            client_id: row.client_id,
            delivered_seq: row.delivered_seq,
            read_seq: row.read_seq,
        };
        (UserId(row.user_id), device)
    });
    Ok(devices.collect())
}

/// The messages among the newest `entries_max` entries, newest first, with their senders; none
/// if the conversation has receipts switched off.
pub async fn recent(
    conn: &mut PgConnection,
    conversation: ConversationId,
    entries_max: i64,
) -> Result<Vec<(UserId, i64)>, StoreError> {
    let rows = sqlx::query!(
        r#"select m.sender_id as "sender_id!", m.seq as "seq!"
           from conversations c
           cross join lateral (
               select m.* from messages m where m.conversation_id = $1 order by m.seq desc limit $2
           ) m
           where c.conversation_id = $1 and c.receipts and m.ordinal is not null
             and m.retract_seq is null
           order by m.seq desc"#,
        conversation.0,
        entries_max,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (UserId(row.sender_id), row.seq))
        .collect())
}

/// Everybody who could see the entry `first` or a later one.
pub async fn standpoints(
    conn: &mut PgConnection,
    conversation: ConversationId,
    first: i64,
) -> Result<Vec<Standpoint>, StoreError> {
    let rows = sqlx::query!(
        r#"select p.user_id, p.joined_seq, p.left_seq,
                  case when h.user_id is null then p.delivered_seq else 0 end as "delivered!",
                  case when h.user_id is null then p.read_seq else 0 end as "read!"
           from participants p
           left join lateral (
               select u.user_id from users u
               where u.user_id = p.user_id and not u.receipts limit 1
           ) h on true
           where p.conversation_id = $1 and (p.left_seq is null or p.left_seq >= $2)"#,
        conversation.0,
        first,
    )
    .fetch_all(conn)
    .await?;
    let standpoints = rows.into_iter().map(|row| Standpoint {
        user: UserId(row.user_id),
        joined: row.joined_seq,
        left: row.left_seq,
        delivered: row.delivered,
        read: row.read,
    });
    Ok(standpoints.collect())
}
