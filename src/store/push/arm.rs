//! Arming: committed messages become jobs for the devices that did not acknowledge them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::Deserialize;
use sqlx::{Connection, PgConnection, types::Uuid};

use crate::{
    domain::ids::{Subject, UserId},
    store::{StoreError, outbox::AgedRow},
};

use super::interval;

/// More users than this in one message are not read from `mentions`.
const MENTIONS_MAX: usize = 1000;
/// Later than this is never, in milliseconds since 1970 (the year 2200).
const EXPIRY_MILLIS_MAX: i64 = 7_258_118_400_000;

/// Which devices are armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Those that are away, and whose user is active nowhere else: their grace is the shortest.
    Early,
    /// All that have not acknowledged.
    Late,
}

/// How long a message waits to be acknowledged before it is pushed.
#[derive(Clone, Copy, Debug)]
pub struct Graces {
    /// If the device is not connected.
    pub offline: Duration,
    /// If it is connected, and does not answer.
    pub connected: Duration,
    /// If another device of the user is active.
    pub elsewhere: Duration,
    /// Between two notifications about one conversation on one device.
    pub repeat: Duration,
}

/// What came of some rows of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Armed {
    /// Jobs that were made or extended.
    pub jobs: u64,
    /// Devices that a rule keeps silent; the ledger says which.
    pub suppressed: u64,
    /// Rows that the database refuses each time, and that were passed over.
    pub skipped: u64,
}

/// Arms jobs for the messages and hand-overs of some rows of the outbox, on the configured routes.
///
/// To do it twice changes nothing. A row that the database refuses alone is passed over, so
/// that it cannot stop the others for ever.
pub async fn arm(
    conn: &mut PgConnection,
    rows: &[AgedRow],
    pass: Pass,
    graces: &Graces,
    routes: &[String],
    at: Option<i64>,
) -> Result<Armed, StoreError> {
    if rows.is_empty() || routes.is_empty() {
        return Ok(Armed::default());
    }
    match arm_in_savepoint(conn, rows, pass, graces, routes, at).await {
        Err(error) if !error.is_transient() => {}
        result => return result,
    }
    let mut total = Armed::default();
    for row in rows {
        let one = std::slice::from_ref(row);
        match arm_in_savepoint(conn, one, pass, graces, routes, at).await {
            Ok(armed) => {
                total.jobs += armed.jobs;
                total.suppressed += armed.suppressed;
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                let conversation = row.conversation;
                tracing::error!(%error, %conversation, "messages of a conversation cannot be pushed");
                total.skipped += 1;
            }
        }
    }
    Ok(total)
}

async fn arm_in_savepoint(
    conn: &mut PgConnection,
    rows: &[AgedRow],
    pass: Pass,
    graces: &Graces,
    routes: &[String],
    at: Option<i64>,
) -> Result<Armed, StoreError> {
    let mut tx = conn.begin().await?;
    let messages = read_messages(&mut tx, rows, routes).await?;
    let armed = if messages.is_empty() {
        Armed::default()
    } else {
        let items = into_items(messages);
        arm_items(&mut tx, &items, pass, graces, routes, at).await?
    };
    tx.commit().await?;
    Ok(armed)
}

/// A message, as far as push is concerned; or the entry by which a conversation changed hands.
#[derive(Debug)]
struct Message {
    conversation: Uuid,
    sequence: i64,
    sender: i64,
    is_handover: bool,
    extra: Option<Vec<u8>>,
    committed_at_millis: i64,
}

/// The messages of the conversations in which somebody has a token.
async fn read_messages(
    conn: &mut PgConnection,
    rows: &[AgedRow],
    routes: &[String],
) -> Result<Vec<Message>, StoreError> {
    let conversations: Vec<_> = rows.iter().map(|row| row.conversation.0).collect();
    let (from, to): (Vec<_>, Vec<_>) = rows.iter().map(|row| (row.from, row.to)).unzip();
    // `extra` may be large, and seldom says anything about push.
    let messages = sqlx::query_as!(
        Message,
        r#"with reachable as materialized (
               select i.conversation_id
               from (select distinct c.id from unnest($1::uuid[]) as c (id)) as i (conversation_id)
               cross join lateral (
                   select from participants p cross join lateral (
                       select t.* from push_tokens t where t.user_id = p.user_id offset 0
                   ) t
                   where p.conversation_id = i.conversation_id and p.left_seq is null
                     and t.dead_since is null and t.route = any($4)
                   limit 1
               ) r
           )
           select m.conversation_id as "conversation!", m.seq as "sequence!",
                  m.sender_id as "sender!", m.ordinal is null as "is_handover!",
                  case when position('"urgent"'::bytea in m.extra) > 0
                         or position('"mentions"'::bytea in m.extra) > 0
                         or position('"expires_at"'::bytea in m.extra) > 0 then m.extra end as extra,
                  (extract(epoch from m.created_at) * 1000)::bigint as "committed_at_millis!"
           from (
               select i.* from unnest($1::uuid[], $2::bigint[], $3::bigint[])
                   as i (conversation_id, first, last)
               where i.conversation_id in (select r.conversation_id from reachable r)
               offset 0
           ) i
           cross join lateral (
               select m.* from messages m
               where m.conversation_id = i.conversation_id and m.seq between i.first and i.last
               offset 0
           ) m
           where m.content_format >= 0
             and (m.ordinal is not null or is_handover(m.ordinal, m.type, m.body))
           order by m.conversation_id, m.seq"#,
        &conversations[..],
        &from[..],
        &to[..],
        routes,
    )
    .fetch_all(conn)
    .await?;
    Ok(messages)
}

/// The members of an envelope that concern push. What does not fit is as if it were not there.
#[derive(Debug, Default)]
struct Extra {
    is_urgent: bool,
    mentions: Vec<Subject>,
    expires_at_millis: Option<i64>,
}

impl Extra {
    fn read(json: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Members {
            #[serde(default)]
            urgent: serde_json::Value,
            #[serde(default)]
            mentions: serde_json::Value,
            #[serde(default)]
            expires_at: serde_json::Value,
        }

        let Ok(members) = serde_json::from_slice::<Members>(json) else {
            return Self::default();
        };
        let names = members.mentions.as_array().into_iter().flatten();
        let mentions = names
            .filter_map(|name| Subject::new(name.as_str()?).ok())
            .take(MENTIONS_MAX)
            .collect();
        let expires_at = members.expires_at.as_i64();
        Self {
            is_urgent: members.urgent.as_bool().unwrap_or_default(),
            mentions,
            expires_at_millis: expires_at
                .filter(|millis| *millis < EXPIRY_MILLIS_MAX)
                .map(|millis| millis.max(0)),
        }
    }

    fn is_plain(&self) -> bool {
        !self.is_urgent && self.mentions.is_empty() && self.expires_at_millis.is_none()
    }
}

/// Messages of one sender in one conversation that are judged together.
#[derive(Debug)]
struct Item {
    conversation: Uuid,
    sender: i64,
    first: i64,
    last: i64,
    committed_at_millis: i64,
    extra: Extra,
}

/// Plain messages of a sender are one item; whatever is special about one counts for it alone. A
/// hand-over is for those who came by it, which the store takes from its sender below zero.
fn into_items(messages: Vec<Message>) -> Vec<Item> {
    let mut plain: BTreeMap<(Uuid, i64), Item> = BTreeMap::new();
    let mut special = Vec::new();
    for message in messages {
        let extra = message
            .extra
            .as_deref()
            .map(Extra::read)
            .unwrap_or_default();
        let is_plain = extra.is_plain() && !message.is_handover;
        let sender = if message.is_handover {
            -message.sender
        } else {
            message.sender
        };
        let item = Item {
            conversation: message.conversation,
            sender,
            first: message.sequence,
            last: message.sequence,
            committed_at_millis: message.committed_at_millis,
            extra,
        };
        if is_plain {
            plain
                .entry((item.conversation, item.sender))
                .and_modify(|earlier| earlier.last = item.last)
                .or_insert(item);
        } else {
            special.push(item);
        }
    }
    special.extend(plain.into_values());
    special
}

async fn arm_items(
    conn: &mut PgConnection,
    items: &[Item],
    pass: Pass,
    graces: &Graces,
    routes: &[String],
    at: Option<i64>,
) -> Result<Armed, StoreError> {
    let (mention_items, mention_users) = mentioned(conn, items).await?;
    let conversations: Vec<_> = items.iter().map(|item| item.conversation).collect();
    let senders: Vec<_> = items.iter().map(|item| item.sender).collect();
    let firsts: Vec<_> = items.iter().map(|item| item.first).collect();
    let lasts: Vec<_> = items.iter().map(|item| item.last).collect();
    let committed: Vec<_> = items.iter().map(|item| item.committed_at_millis).collect();
    let expiries: Vec<_> = items
        .iter()
        .map(|item| item.extra.expires_at_millis)
        .collect();
    let urgencies: Vec<_> = items.iter().map(|item| item.extra.is_urgent).collect();
    let row = sqlx::query!(
        r#"select jobs as "jobs!", suppressed as "suppressed!"
           from arm_push($1, $2, $3, $4,
               (select array_agg(to_timestamp(c.millis / 1000.0) order by c.place)
                from unnest($5::bigint[]) with ordinality as c (millis, place)),
               (select array_agg(to_timestamp(e.millis / 1000.0) order by e.place)
                from unnest($6::bigint[]) with ordinality as e (millis, place)),
               $7, $8, $9, $10, $11, $12, $13, $14, $15, to_timestamp($16::bigint / 1000.0))"#,
        &conversations[..],
        &senders[..],
        &firsts[..],
        &lasts[..],
        &committed[..],
        &expiries[..] as &[Option<i64>],
        &urgencies[..],
        &mention_items[..],
        &mention_users[..],
        pass == Pass::Late,
        routes,
        interval(graces.offline),
        interval(graces.connected),
        interval(graces.elsewhere),
        interval(graces.repeat),
        at,
    )
    .fetch_one(conn)
    .await?;
    Ok(Armed {
        jobs: row.jobs.unsigned_abs(),
        suppressed: row.suppressed.unsigned_abs(),
        skipped: 0,
    })
}

/// Who is named where: places of items, counted from 1, and users.
async fn mentioned(
    conn: &mut PgConnection,
    items: &[Item],
) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
    let names: Vec<_> = items
        .iter()
        .flat_map(|item| &item.extra.mentions)
        .map(Subject::as_str)
        .collect();
    if names.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let known: HashMap<String, UserId> = crate::store::users::find(conn, &names).await?;
    let mentions = (1..).zip(items).flat_map(|(place, item)| {
        let users = item.extra.mentions.iter();
        users.map(move |name| (place, name))
    });
    Ok(mentions
        .filter_map(|(place, name)| Some((place, known.get(name.as_str())?.0)))
        .unzip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_as_if_it_were_not_there() {
        for json in [
            &b"not json"[..],
            br#"{"urgent":"yes","mentions":"bob","expires_at":"soon"}"#,
            br#"{"mentions":["a\u0000b","",7,null],"expires_at":9223372036854775807}"#,
            br#"{"expires_at":1e300,"urgent":null,"mentions":{}}"#,
        ] {
            assert!(Extra::read(json).is_plain(), "{json:?}");
        }
    }

    #[test]
    fn members_that_concern_push_are_read() {
        let extra =
            Extra::read(br#"{"x":1,"urgent":true,"mentions":["bob","\u0000"],"expires_at":-5}"#);
        assert!(extra.is_urgent);
        assert_eq!(extra.mentions, [Subject::new("bob").unwrap()]);
        assert_eq!(extra.expires_at_millis, Some(0));
    }

    #[test]
    fn what_is_special_about_a_message_counts_for_it_alone() {
        let message = |sequence, sender, extra: Option<&[u8]>| Message {
            conversation: Uuid::nil(),
            sequence,
            sender,
            is_handover: false,
            extra: extra.map(<[u8]>::to_vec),
            committed_at_millis: sequence,
        };
        let items = into_items(vec![
            message(1, 1, None),
            message(2, 1, Some(br#"{"urgent":true}"#)),
            message(3, 2, Some(br#"{"color":"red"}"#)),
            message(4, 1, None),
        ]);

        let ranges: Vec<_> = items
            .iter()
            .map(|item| (item.sender, item.first, item.last, item.extra.is_urgent))
            .collect();
        assert_eq!(
            ranges,
            [(1, 2, 2, true), (1, 1, 4, false), (2, 3, 3, false)]
        );
        assert_eq!(items[1].committed_at_millis, 1);
    }
}
