//! What devices should show, counted anew from the tables and replayed from the log, without the
//! statements of the product.

use std::collections::{BTreeMap, BTreeSet};

use homing::{client::cache::Members, domain::ids::ConversationId};
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};

use super::client::members;

/// The fields of each row of a user's inbox that can be counted.
pub(super) async fn rows(pool: &PgPool, user: &str) -> BTreeMap<ConversationId, Members> {
    let rows = sqlx::query(
        "select p.conversation_id, c.title, c.last_seq, p.read_seq, p.role,
                p.pinned_at is not null as is_pinned,
                p.visible_from,
                (select count(*) from messages m
                 where m.conversation_id = p.conversation_id and m.seq > p.read_seq
                   and m.seq >= p.visible_from and m.ordinal is not null
                   and m.sender_id <> p.user_id and m.retract_seq is null) as unread,
                (select count(*) from messages m
                 where m.conversation_id = p.conversation_id and m.seq > p.read_seq
                   and m.seq >= p.visible_from and m.ordinal is not null
                   and m.sender_id <> p.user_id and m.retract_seq is null
                   and nullif(convert_from(m.extra, 'UTF8'), '')::jsonb -> 'mentions' ? u.subject
                   and exists (select from mentions n where n.conversation_id = m.conversation_id
                               and n.seq = m.seq and n.user_id = p.user_id)) as mentions,
                (select max(m.seq) from messages m
                 where m.conversation_id = p.conversation_id and m.ordinal is not null
                   and m.seq >= p.visible_from) as last_message,
                p.archived_seq is not null and (p.muted_until is not null or p.archived_seq >= coalesce(
                    (select max(m.seq) from messages m
                     where m.conversation_id = p.conversation_id and m.ordinal is not null), 0)) as archived
         from participants p
         join users u on u.user_id = p.user_id
         join conversations c on c.conversation_id = p.conversation_id
         where u.subject = $1 and p.left_seq is null",
    )
    .bind(user)
    .fetch_all(pool)
    .await
    .unwrap();
    let row = |row: &sqlx::postgres::PgRow| {
        let fields = json!({
            "title": row.get::<Option<String>, _>("title"),
            "last_seq": row.get::<i64, _>("last_seq"),
            "read": row.get::<i64, _>("read_seq"),
            "role": row.get::<String, _>("role"),
            "first_seq": row.get::<i64, _>("visible_from"),
            "unread": row.get::<i64, _>("unread"),
            "mentions": row.get::<i64, _>("mentions"),
            "archived": row.get::<bool, _>("archived"),
        });
        (ConversationId(row.get("conversation_id")), members(fields))
    };
    rows.iter().map(row).collect()
}

/// The thread of a user, replayed from the log.
pub(super) async fn thread(pool: &PgPool, id: ConversationId, user: &str) -> Vec<Members> {
    let log = sqlx::query(
        "select m.seq, m.client_message_id as id, s.subject as sender, m.type, m.ref_seq,
                case when m.body = '' then 'null' else convert_from(m.body, 'UTF8')::jsonb end as body,
                nullif(convert_from(m.extra, 'UTF8'), '')::jsonb as extra,
                (extract(epoch from m.created_at) * 1000)::bigint as at, p.visible_from
         from messages m
         join users s on s.user_id = m.sender_id
         join users u on u.subject = $2
         join participants p on p.conversation_id = m.conversation_id and p.user_id = u.user_id
         where m.conversation_id = $1 order by m.seq",
    )
    .bind(id.0)
    .bind(user)
    .fetch_all(pool)
    .await
    .unwrap();
    let mut thread: BTreeMap<i64, Members> = BTreeMap::new();
    let mut reactions: BTreeMap<i64, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut visible_from = 1;
    for row in log {
        visible_from = row.get("visible_from");
        let seq: i64 = row.get("seq");
        let (kind, sender): (String, String) = (row.get("type"), row.get("sender"));
        let (target, at): (Option<i64>, i64) = (row.get("ref_seq"), row.get("at"));
        let body: Value = row.get("body");
        if !["edit", "retract", "reaction"].contains(&kind.as_str()) {
            let entry = json!({"seq": seq, "id": row.get::<String, _>("id"), "from": sender, "at": at,
                "type": kind, "body": body, "version": seq});
            let mut entry = members(entry);
            if let Some(Value::Object(extra)) = row.get::<Option<Value>, _>("extra") {
                entry.extend(extra);
            }
            thread.insert(seq, entry);
            continue;
        }
        let target = target.unwrap();
        let message = thread.get_mut(&target).unwrap();
        message.insert("version".into(), seq.into());
        match kind.as_str() {
            "edit" => {
                message.insert("body".into(), body);
                message.insert("edited_at".into(), at.into());
                if let Some(Value::Object(extra)) = row.get::<Option<Value>, _>("extra") {
                    message.extend(extra);
                }
            }
            "retract" => {
                message.retain(|name, _| {
                    ["seq", "id", "from", "at", "type", "version"].contains(&name.as_str())
                });
                message.insert("retracted".into(), true.into());
                reactions.remove(&target);
            }
            _ => {
                let key = body["key"].as_str().unwrap().to_owned();
                let users = reactions.entry(target).or_default().entry(key).or_default();
                if body["remove"] == true {
                    users.remove(&sender);
                } else {
                    users.insert(sender);
                }
            }
        }
    }
    for (target, keys) in reactions {
        let counted = keys.into_iter().filter(|(_, users)| !users.is_empty());
        let counted: Members = counted
            .map(|(key, users)| {
                (
                    key,
                    json!({"count": users.len(), "mine": users.contains(user)}),
                )
            })
            .collect();
        if !counted.is_empty() {
            thread
                .get_mut(&target)
                .unwrap()
                .insert("reactions".into(), counted.into());
        }
    }
    thread.split_off(&visible_from).into_values().collect()
}
