//! What is unread in an inbox with thousands of conversations, without looking at all of them
//! each time.
//!
//! ```text
//!   all looked at once ──▶ Unread: what had not been read then
//!   a page later       ──▶ those, and what was active since: the rest is still read
//! ```
//!
//! Positions only rise, and every message, and whoever comes back, is activity of the conversation.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{StoreError, inbox::Place};
use crate::domain::ids::{ConversationId, UserId};

/// Conversations that are remembered as unread; of more, the ones that were active last.
pub const UNREAD_KNOWN_MAX: usize = 2_000;

/// What was unread in somebody's inbox at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The server that was asked, by the time of its start in microseconds since 1970: another one
    /// may have been restored from an earlier time, or lack the last commits.
    pub server: i64,
    /// What is missing here was read at this time, in milliseconds since 1970.
    pub as_of_millis: i64,
    /// When all was looked at; `as_of_millis` may be much older.
    pub taken_millis: i64,
    /// The newest activity first.
    pub places: Vec<Place>,
    /// Nothing older was unread.
    pub is_all: bool,
}

impl Unread {
    /// What was unread behind this place, and whether that is all of it. None if it is neither all
    /// nor enough for a page.
    pub(super) fn behind(&self, after: Option<Place>, limit: i64) -> Option<(Vec<Uuid>, bool)> {
        let from = after.map_or(0, |after| {
            self.places.partition_point(|place| *place >= after)
        });
        let ids: Vec<_> = self.places.iter().skip(from).collect();
        let is_enough = self.is_all || usize::try_from(limit).is_ok_and(|limit| ids.len() >= limit);
        is_enough.then(|| {
            let ids = ids.into_iter().map(|place| place.conversation.0);
            (ids.collect(), self.is_all)
        })
    }
}

/// What the server says before a page of what is unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    server: i64,
    now_millis: i64,
    as_of_millis: i64,
    /// What is known is still good.
    pub is_current: bool,
    /// It is worth while to look at all.
    pub is_due: bool,
}

/// Asks whether what is `known` can be used, and whether to look at all conversations of the user.
///
/// `as_of_millis` comes from a statement before. All is looked at if nothing is known of somebody
/// with more than 2,000 conversations; and once more, after 20 minutes at the earliest, when more than
/// 500 conversations of whomever were active since.
pub async fn ask(
    conn: &mut PgConnection,
    user: UserId,
    known: Option<&Unread>,
    as_of_millis: i64,
) -> Result<Asked, StoreError> {
    let known = known.filter(|known| known.as_of_millis <= as_of_millis);
    let row = sqlx::query!(
        r#"select s.server as "server!", s.is_current as "is_current!",
                  (extract(epoch from now()) * 1000)::bigint as "now_millis!",
                  coalesce(case
                      when not s.is_current then (
                          select true from participants p where p.user_id = $1 offset 2000 limit 1)
                      when to_timestamp($4::bigint / 1000.0) < now() - interval '20 minutes' then (
                          select true from conversations c
                          where c.active_since >= date_bin(
                              '10 minutes', to_timestamp($3::bigint / 1000.0), '1970-01-01 00:00:00Z')
                          offset 500 limit 1)
                  end, false) as "is_due!"
           from (
               select b.server, coalesce(b.server = $2, false) as is_current
               from (
                   select (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint as server
               ) b
           ) s"#,
        user.0,
        known.map(|known| known.server),
        known.map(|known| known.as_of_millis),
        known.map(|known| known.taken_millis),
    )
    .fetch_one(conn)
    .await?;
    Ok(Asked {
        server: row.server,
        now_millis: row.now_millis,
        as_of_millis,
        is_current: row.is_current,
        is_due: row.is_due,
    })
}

/// Looks at all conversations of a user; or, if it is known what was unread, at those and at what
/// was active since.
pub async fn look(
    conn: &mut PgConnection,
    user: UserId,
    known: Option<&Unread>,
    asked: Asked,
) -> Result<Unread, StoreError> {
    let known = known.filter(|known| asked.is_current && known.is_all);
    let ids: Option<Vec<_>> = known.map(|known| {
        let places = known.places.iter();
        places.map(|place| place.conversation.0).collect()
    });
    let limit = i64::try_from(UNREAD_KNOWN_MAX).unwrap_or(i64::MAX);
    let rows = sqlx::query!(
        r#"select u.conversation_id as "conversation_id!",
                  (extract(epoch from u.updated_at) * 1000000)::bigint as "activity_micros!"
           from inbox_unread($1, to_timestamp($2::bigint / 1000.0), $3, $4) u
           order by u.updated_at desc, u.conversation_id desc"#,
        user.0,
        known.map(|known| known.as_of_millis),
        ids.as_deref(),
        limit.saturating_add(1),
    )
    .fetch_all(conn)
    .await?;
    let mut places: Vec<_> = rows
        .into_iter()
        .map(|row| Place {
            activity_micros: row.activity_micros,
            conversation: ConversationId(row.conversation_id),
        })
        .collect();
    let is_all = places.len() <= UNREAD_KNOWN_MAX;
    places.truncate(UNREAD_KNOWN_MAX);
    Ok(Unread {
        server: asked.server,
        as_of_millis: asked.as_of_millis,
        taken_millis: asked.now_millis,
        places,
        is_all,
    })
}
