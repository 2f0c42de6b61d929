//! Contents whose time is over are erased; their rows stay, so that sequences have no gaps
//! and a repeat is recognised for ever.

use sqlx::PgConnection;

use super::StoreError;

/// Erases what has expired, at most `entries_max` entries; returns how many there were.
///
/// An entry that somebody is changing just now is left for the next time.
pub async fn erase_expired(conn: &mut PgConnection, entries_max: i64) -> Result<u64, StoreError> {
    let erased = sqlx::query_scalar!(
        r#"with due as (
             select m.conversation_id, m.seq from messages m
             where m.expires_at <= now() and m.content_format >= 0
             order by m.expires_at limit $1 for no key update skip locked
           ), erased as (
             update messages m set body = '', extra = null, content_format = -1
             from due d where m.conversation_id = d.conversation_id and m.seq = d.seq
             returning m.seq
           ), unmentioned as (
             delete from mentions m using due d
             where m.conversation_id = d.conversation_id and m.seq = d.seq
           ), unreacted as (
             delete from reactions r using due d
             where r.conversation_id = d.conversation_id and r.seq = d.seq
           )
           select count(*) as "erased!" from erased"#,
        entries_max,
    )
    .fetch_one(conn)
    .await?;
    Ok(erased.unsigned_abs())
}

/// Erases what is older than its conversation keeps it, from the oldest entry on, and moves the
/// beginning of what can be read. At most `entries_max` entries of one conversation; returns how
/// many there were.
///
/// A conversation that somebody writes to just now is left for the next time.
pub async fn erase_outdated(conn: &mut PgConnection, entries_max: i64) -> Result<u64, StoreError> {
    let erased = sqlx::query_scalar!(
        r#"with due as (
             select c.conversation_id, c.first_seq, c.last_seq,
                    now() - make_interval(secs => c.retention_seconds) as kept_since
             from conversations c
             cross join lateral (
                 select m.created_at from messages m
                 where m.conversation_id = c.conversation_id and m.seq = c.first_seq
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
             update conversations c set first_seq = o.last + 1
             from (
                 select o.conversation_id, max(o.seq) as last from outdated o group by o.conversation_id
             ) o
             where c.conversation_id = o.conversation_id
           )
           select count(*) as "erased!" from outdated"#,
        entries_max,
    )
    .fetch_one(conn)
    .await?;
    Ok(erased.unsigned_abs())
}
