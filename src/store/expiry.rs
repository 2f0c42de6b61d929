//! Contents whose time is over are erased; their rows stay, so that sequences have no gaps
//! and a repeat is recognised for ever.
//!
//! What inboxes show changes with it: the version of their rows rises, by one write for each
//! conversation and none for each participant.

use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::ids::{ConversationId, UserId};

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    pub entries: u64,
    /// Where the rows of inboxes show something else now.
    pub conversations: Vec<ConversationId>,
}

struct Row {
    conversation_id: Uuid,
    entries: i64,
}

impl FromIterator<Row> for Erased {
    fn from_iter<T: IntoIterator<Item = Row>>(rows: T) -> Self {
        let mut erased = Self::default();
        for row in rows {
            erased.entries += row.entries.unsigned_abs();
            erased
                .conversations
                .push(ConversationId(row.conversation_id));
        }
        erased
    }
}

/// Erases what has expired, at most `entries_max` entries.
pub async fn erase_expired(
    conn: &mut PgConnection,
    entries_max: i64,
) -> Result<Erased, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"with due as (
             select m.conversation_id, m.seq from messages m
             where m.expires_at <= now() and m.content_format >= 0
             order by m.expires_at limit $1
           ), locked as (
             -- Before the messages, and in the order of the ids, as whoever appends does.
             select c.conversation_id from conversations c
             where c.conversation_id in (select d.conversation_id from due d)
             order by c.conversation_id for no key update
           ), erased as (
             -- Asked once more: somebody may have retracted it before it was locked.
             update messages m set body = '', extra = null, content_format = -1
             from due d join locked l on l.conversation_id = d.conversation_id
             where m.conversation_id = d.conversation_id and m.seq = d.seq
               and m.content_format >= 0
             returning m.conversation_id, m.seq
           ), unmentioned as (
             delete from mentions m using erased e
             where m.conversation_id = e.conversation_id and m.seq = e.seq
           ), unreacted as (
             delete from reactions r using erased e
             where r.conversation_id = e.conversation_id and r.seq = e.seq
           ), told as (
             update conversations c set erasures = c.erasures + 1, erased_at = now()
             from (select distinct e.conversation_id from erased e) e
             where c.conversation_id = e.conversation_id
           )
           select e.conversation_id, count(*) as "entries!" from erased e
           group by e.conversation_id"#,
        entries_max,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Erases what is older than its conversation keeps it, from the oldest entry on, and moves the
/// beginning of what can be read. At most `entries_max` entries of one conversation.
///
/// A conversation that somebody writes to just now is left for the next time.
pub async fn erase_outdated(
    conn: &mut PgConnection,
    entries_max: i64,
) -> Result<Erased, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"with due as (
             -- `limit 1` makes a look-up of it, whatever the planner knows of the tables.
             select c.conversation_id, c.first_seq,
                    now() - make_interval(secs => c.retention_seconds) as kept_since
             from conversations c
             cross join lateral (
                 select m.created_at from messages m
                 where m.conversation_id = c.conversation_id and m.seq = c.first_seq
                 limit 1
             ) oldest
             where c.retention_seconds is not null
               and oldest.created_at < now() - make_interval(secs => c.retention_seconds)
             limit 1 for no key update of c skip locked
           ), outdated as (
             -- Times rise with the sequences: the first entries hold all the oldest.
             select m.conversation_id, m.seq from due d
             cross join lateral (
                 select m.* from messages m
                 where m.conversation_id = d.conversation_id and m.seq >= d.first_seq
                 order by m.seq limit $1
             ) m
             where m.created_at < d.kept_since
           ), erased as (
             update messages m set body = '', extra = null, content_format = -1
             from outdated o where m.conversation_id = o.conversation_id and m.seq = o.seq
           ), unmentioned as (
             delete from mentions m using outdated o
             where m.conversation_id = o.conversation_id and m.seq = o.seq
           ), unreacted as (
             delete from reactions r using outdated o
             where r.conversation_id = o.conversation_id and r.seq = o.seq
           ), begun as (
             update conversations c
             set first_seq = o.last + 1, erasures = c.erasures + 1, erased_at = now()
             from (
                 select o.conversation_id, max(o.seq) as last from outdated o group by o.conversation_id
             ) o
             where c.conversation_id = o.conversation_id
           )
           select o.conversation_id, count(*) as "entries!" from outdated o
           group by o.conversation_id"#,
        entries_max,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Ends mutes whose time is over and which kept a conversation archived, at most `rows_max`;
/// returns whose they were.
pub async fn end_mutes(
    conn: &mut PgConnection,
    rows_max: i64,
) -> Result<Vec<(UserId, ConversationId)>, StoreError> {
    let rows = sqlx::query!(
        r#"update participants p
           set muted_until = null, own_version = p.own_version + 1, changed_at = clock_timestamp()
           from (
               select p.conversation_id, p.user_id from participants p
               where p.archived_seq is not null and p.left_seq is null
                 and p.muted_until < 'infinity' and p.muted_until <= now()
               order by p.muted_until limit $1 for no key update skip locked
           ) d
           where p.conversation_id = d.conversation_id and p.user_id = d.user_id
           returning p.user_id, p.conversation_id"#,
        rows_max,
    )
    .fetch_all(conn)
    .await?;
    let ended = rows
        .into_iter()
        .map(|row| (UserId(row.user_id), ConversationId(row.conversation_id)));
    Ok(ended.collect())
}
