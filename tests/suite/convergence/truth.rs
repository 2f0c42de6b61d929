//! What devices should show, counted anew from the tables and replayed from the log, without the
//! statements of the product.

use std::collections::{BTreeMap, BTreeSet};

use homing::{client::cache::Members, domain::ids::ConversationId};
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};

/// The fields of each row of a user's inbox, but for its newest message.
pub(crate) async fn rows(pool: &PgPool, user: &str) -> BTreeMap<ConversationId, Members> {
    let rows = sqlx::query(
        "select p.conversation_id, c.kind, c.title, c.last_seq, c.epoch, p.read_seq, p.role,
                (select o.subject from participants q join users o using (user_id)
                 where c.kind = 'direct' and q.conversation_id = p.conversation_id
                   and q.user_id <> p.user_id) as other,
                case when p.muted_until = 'infinity' then '\"forever\"'::jsonb
                     else to_jsonb((extract(epoch from p.muted_until) * 1000)::bigint) end as muted_until,
                p.mentions_break_mute,
                (extract(epoch from c.updated_at) * 1000)::bigint as activity_at,
                (extract(epoch from p.pinned_at) * 1000)::bigint as pinned_at,
                case when p.silenced_until = 'infinity' then '\"forever\"'::jsonb
                     else to_jsonb((extract(epoch from p.silenced_until) * 1000)::bigint) end as silenced_until,
                (extract(epoch from c.archived_at) * 1000)::bigint as archived_at,
                c.receipts, c.history_depth, c.retention_seconds,
                greatest(p.visible_from, c.first_seq) as first_seq,
                least(1000, (select count(*) from messages m
                 where m.conversation_id = p.conversation_id and m.seq > p.read_seq
                   and m.seq >= greatest(p.visible_from, c.first_seq) and m.ordinal is not null
                   and m.sender_id <> p.user_id and m.retract_seq is null and m.content_format >= 0)) as unread,
                least(1000, (select count(*) from messages m
                 where m.conversation_id = p.conversation_id and m.seq > p.read_seq
                   and m.seq >= greatest(p.visible_from, c.first_seq) and m.ordinal is not null
                   and m.sender_id <> p.user_id and m.retract_seq is null and m.content_format >= 0
                   and coalesce((
                           select convert_from(e.extra, 'UTF8')::jsonb -> 'mentions' from messages e
                           where e.conversation_id = m.conversation_id and e.ref_seq = m.seq
                             and e.type = 'edit' and length(e.extra) > 0
                             and convert_from(e.extra, 'UTF8')::jsonb ? 'mentions'
                           order by e.seq desc limit 1
                       ), nullif(convert_from(m.extra, 'UTF8'), '')::jsonb -> 'mentions') ? u.subject
                   and exists (select from mentions n where n.conversation_id = m.conversation_id
                               and n.seq = m.seq and n.user_id = p.user_id))) as mentions,
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
        let id = ConversationId(row.get("conversation_id"));
        let mut fields = json!({
            "conversation": id,
            "removed": false,
            "kind": row.get::<String, _>("kind"),
            "activity_at": row.get::<i64, _>("activity_at"),
            "muted_until": row.get::<Option<Value>, _>("muted_until"),
            "notify_mentions": row.get::<bool, _>("mentions_break_mute"),
            "title": row.get::<Option<String>, _>("title"),
            "last_seq": row.get::<i64, _>("last_seq"),
            "read": row.get::<i64, _>("read_seq"),
            "role": row.get::<String, _>("role"),
            "epoch": row.get::<i32, _>("epoch"),
            "pinned_at": row.get::<Option<i64>, _>("pinned_at"),
            "silenced_until": row.get::<Option<Value>, _>("silenced_until"),
            "settings": {
                "receipts": row.get::<bool, _>("receipts"),
                "history_depth": row.get::<Option<i64>, _>("history_depth"),
                "retention_seconds": row.get::<Option<i64>, _>("retention_seconds"),
                "archived_at": row.get::<Option<i64>, _>("archived_at"),
            },
            "first_seq": row.get::<i64, _>("first_seq"),
            "unread": row.get::<i64, _>("unread"),
            "mentions": row.get::<i64, _>("mentions"),
            "archived": row.get::<bool, _>("archived"),
        });
        if let Some(other) = row.get::<Option<String>, _>("other") {
            fields["with"] = other.into();
        }
        (id, members(fields))
    };
    rows.iter().map(row).collect()
}

/// The thread of a user, replayed from the log.
pub(crate) async fn thread(pool: &PgPool, id: ConversationId, user: &str) -> Vec<Members> {
    let log = sqlx::query(
        "select m.seq, m.client_message_id as id, s.subject as sender, m.type, m.ref_seq,
                case when m.body = '' then 'null'
                     when m.content_format = 1 then to_jsonb(encode(m.body, 'base64'))
                     else convert_from(m.body, 'UTF8')::jsonb end as body,
                case when m.content_format = 1 then 'bytes' else 'body' end as content,
                nullif(convert_from(m.extra, 'UTF8'), '')::jsonb as extra,
                (extract(epoch from m.created_at) * 1000)::bigint as at,
                greatest(p.visible_from, c.first_seq) as visible_from,
                m.content_format < 0 and m.retract_seq is null as has_expired
         from messages m
         join conversations c on c.conversation_id = m.conversation_id
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
    let mut expired = BTreeSet::new();
    let mut visible_from = 1;
    for row in log {
        visible_from = row.get("visible_from");
        let seq: i64 = row.get("seq");
        let (kind, sender): (String, String) = (row.get("type"), row.get("sender"));
        let (target, at): (Option<i64>, i64) = (row.get("ref_seq"), row.get("at"));
        let (content, body): (String, Value) = (row.get("content"), row.get("body"));
        if !["edit", "retract", "reaction"].contains(&kind.as_str()) {
            let entry = json!({"seq": seq, "id": row.get::<String, _>("id"), "from": sender, "at": at,
                "type": kind, "version": seq});
            let mut entry = members(entry);
            entry.insert(content, body);
            if let Some(Value::Object(extra)) = row.get::<Option<Value>, _>("extra") {
                entry.extend(extra);
            }
            thread.insert(seq, entry);
            if row.get("has_expired") {
                expired.insert(seq);
            }
            continue;
        }
        let target = target.unwrap();
        let message = thread.get_mut(&target).unwrap();
        message.insert("version".into(), seq.into());
        match kind.as_str() {
            "edit" => {
                message.retain(|name, _| !["body", "bytes"].contains(&name.as_str()));
                message.insert(content, body);
                message.insert("edited_at".into(), at.into());
                if let Some(Value::Object(extra)) = row.get::<Option<Value>, _>("extra") {
                    message.extend(extra);
                }
            }
            "retract" => {
                bury(message, "retracted");
                reactions.remove(&target);
            }
            _ => {
                let Some(key) = body["key"].as_str().map(str::to_owned) else {
                    continue; // erased with everything before it
                };
                let users = reactions.entry(target).or_default().entry(key).or_default();
                if body["remove"] == true {
                    users.remove(&sender);
                } else {
                    users.insert(sender);
                }
            }
        }
    }
    for seq in expired {
        bury(thread.get_mut(&seq).unwrap(), "expired");
        reactions.remove(&seq);
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

/// The content is gone.
fn bury(message: &mut Members, why: &str) {
    message
        .retain(|name, _| ["seq", "id", "from", "at", "type", "version"].contains(&name.as_str()));
    message.insert(why.into(), true.into());
}

pub(crate) fn members(value: Value) -> Members {
    match value {
        Value::Object(members) => members,
        other => panic!("{other}"),
    }
}
