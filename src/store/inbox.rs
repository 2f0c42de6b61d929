//! The inbox of a user: one row for each conversation, derived when it is asked for.
//!
//! ```text
//!   participants (index of the user) ──▶ conversations: order ──▶ the page ──▶ its rows
//! ```
//!
//! Everything but the order is looked up for the rows of the page alone.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{
    change::Until,
    ids::{ConversationId, Subject, UserId},
};

use super::{
    StoreError,
    conversations::{Kind, Role},
    inbox_unread::Unread,
    members,
    push::settings::Mute,
};

/// Which part of an inbox is wanted, the newest activity first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub kind: Option<Kind>,
    /// Those that are archived, or those that are not; none for all.
    pub archived: Option<bool>,
    /// Only those with unread messages.
    pub is_unread: bool,
    /// Only those that are pinned.
    pub is_pinned: bool,
    /// Only those that have changed since, in milliseconds since 1970; and the ones that the
    /// user was removed from since.
    pub since_millis: Option<i64>,
    /// Only those behind this place.
    pub after: Option<Place>,
    pub limit: i64,
}

impl Wanted {
    /// Whether the page is found faster by [`page_of_unread`].
    #[must_use]
    pub fn is_of_unread(&self) -> bool {
        let is_sought = self.archived == Some(false) && !self.is_pinned;
        self.is_unread && is_sought && self.since_millis.is_none()
    }
}

/// The place of a row in the order of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In microseconds since 1970.
    pub activity_micros: i64,
    pub conversation: ConversationId,
}

/// What a user's inbox shows of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub conversation: ConversationId,
    pub user: UserId,
    /// Rises with every change of what the row shows.
    pub version: i64,
    /// The user was removed; the rest of the row stands as it is, and means nothing.
    pub is_removed: bool,
    pub kind: Kind,
    pub title: Option<String>,
    /// The other one of a direct conversation.
    pub other: Option<Subject>,
    pub epoch: i32,
    /// The first entry that the user may read.
    pub first_seq: i64,
    /// The newest entry that the user may read; 0 while the log is empty.
    pub last_seq: i64,
    /// When the newest entry was stored, in microseconds since 1970.
    pub activity_micros: i64,
    /// None if the user may read no message.
    pub last_message: Option<LastMessage>,
    /// Messages of others that wait to be read, counted up to
    /// [`UNREAD_MAX`](super::conversations::UNREAD_MAX).
    pub unread: i64,
    /// Those of them that mention the user.
    pub mentions: i64,
    pub read: i64,
    pub role: Role,
    pub mute: Option<Mute>,
    pub mentions_break_mute: bool,
    pub silenced_until: Option<Until>,
    /// In milliseconds since 1970, as are the other times.
    pub pinned_at_millis: Option<i64>,
    pub is_archived: bool,
    pub settings: Settings,
}

/// What holds for everybody in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub receipts: bool,
    pub history_depth: Option<i64>,
    pub retention_seconds: Option<i64>,
    pub archived_at_millis: Option<i64>,
}

/// The newest message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastMessage {
    pub seq: i64,
    pub from: Subject,
    pub at_millis: i64,
    /// Its `type`.
    pub kind: String,
    /// How its newest content begins, as JSON text that may be cut off; none unless it is a text.
    pub body: Option<Vec<u8>>,
    pub is_retracted: bool,
    pub is_expired: bool,
    pub expires_at_millis: Option<i64>,
}

/// The rows of one page.
pub async fn page(
    conn: &mut PgConnection,
    user: UserId,
    wanted: &Wanted,
) -> Result<Vec<Row>, StoreError> {
    read(conn, Some((user, wanted, None)), &[]).await
}

/// The same of a page that [is of what is unread](Wanted::is_of_unread), by what is known of it.
pub async fn page_of_unread(
    conn: &mut PgConnection,
    user: UserId,
    wanted: &Wanted,
    known: &Unread,
) -> Result<Vec<Row>, StoreError> {
    let known = wanted.is_of_unread().then_some(known);
    read(conn, Some((user, wanted, known)), &[]).await
}

/// The rows of these users and conversations, in no order. There is none for a user who never
/// took part.
pub async fn rows(
    conn: &mut PgConnection,
    pairs: &[(UserId, ConversationId)],
) -> Result<Vec<Row>, StoreError> {
    read(conn, None, pairs).await
}

/// One statement for both, so that they cannot differ in what a row is.
async fn read(
    conn: &mut PgConnection,
    page: Option<(UserId, &Wanted, Option<&Unread>)>,
    pairs: &[(UserId, ConversationId)],
) -> Result<Vec<Row>, StoreError> {
    let nothing = Wanted::default();
    let wanted = page.map_or(&nothing, |(_, wanted, _)| wanted);
    let known = page.and_then(|(.., known)| {
        let (ids, is_all) = known?.behind(wanted.after, wanted.limit)?;
        Some((known?.as_of_millis, ids, is_all))
    });
    let users: Vec<i64> = pairs.iter().map(|(user, _)| user.0).collect();
    let conversations: Vec<Uuid> = pairs.iter().map(|(_, id)| id.0).collect();
    sqlx::query_as!(
        Columns,
        r#"select r.conversation_id as "conversation_id!", r.user_id as "user_id!",
                  r.is_removed as "is_removed!", r.version as "version!", r.kind as "kind!", r.title,
                  r.other, r.epoch as "epoch!", r.first_seq as "first_seq!",
                  r.last_seq as "last_seq!",
                  (extract(epoch from r.activity_at) * 1000000)::bigint as "activity_micros!",
                  r.receipts as "receipts!", r.history_depth, r.retention_seconds,
                  (extract(epoch from r.closed_at) * 1000)::bigint as closed_at_millis,
                  r.message_seq, r.message_from,
                  (extract(epoch from r.message_at) * 1000)::bigint as message_at_millis,
                  r.message_type, r.message_body, r.message_is_retracted, r.message_is_expired,
                  (extract(epoch from r.message_expires_at) * 1000)::bigint as message_expires_at_millis,
                  r.unread as "unread!", r.mentions as "mentions!", r.read_seq as "read_seq!",
                  r.role as "role!",
                  coalesce(r.muted_until = 'infinity', false) as "is_muted_forever!",
                  case when isfinite(r.muted_until)
                       then (extract(epoch from r.muted_until) * 1000)::bigint end
                      as muted_until_millis,
                  r.mentions_break_mute as "mentions_break_mute!",
                  coalesce(r.silenced_until = 'infinity', false) as "is_silenced_forever!",
                  case when isfinite(r.silenced_until)
                       then (extract(epoch from r.silenced_until) * 1000)::bigint end
                      as silenced_until_millis,
                  (extract(epoch from r.pinned_at) * 1000)::bigint as pinned_at_millis,
                  r.is_archived as "is_archived!"
           from (
               select * from inbox_page(
                   $1, $2, $3, $4, $5, to_timestamp($6::bigint / 1000.0),
                   to_timestamp($7::bigint / 1000.0), $8, $9,
                   'epoch'::timestamptz + $10::bigint * interval '1 microsecond', $11, $12)
               union all
               select * from unnest($13::bigint[], $14::uuid[])
           ) k
           cross join lateral inbox_row(k.user_id, k.conversation_id) r
           order by r.activity_at desc, r.conversation_id desc"#,
        page.map(|(user, ..)| user.0),
        wanted.kind.map(Kind::as_str),
        wanted.archived,
        wanted.is_unread,
        wanted.is_pinned,
        wanted.since_millis,
        known.as_ref().map(|(as_of, ..)| *as_of),
        known.as_ref().map(|(_, ids, _)| &ids[..]),
        known.as_ref().map(|(.., is_all)| *is_all),
        wanted.after.map(|place| place.activity_micros),
        wanted.after.map(|place| place.conversation.0),
        wanted.limit,
        &users[..],
        &conversations[..],
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Columns::into_row)
    .collect()
}

/// A time in milliseconds since 1970 from which on nothing that the *next* statement does not
/// see can have changed: [`Wanted::since_millis`] for the time after it.
///
/// Changes carry the time of their transaction, or a later one, and become visible when it
/// commits. What runs now may have begun a while ago; so this is the begin of the oldest
/// transaction that runs, and whatever is not running now begins later. The second that is
/// taken off forgives clocks that are corrected. Transactions of other roles are seen only by
/// members of `pg_read_all_stats`; Homing's own have one role.
pub async fn as_of_millis(conn: &mut PgConnection) -> Result<i64, StoreError> {
    let millis = sqlx::query_scalar!(
        r#"select (extract(epoch from least(now(), (
                       select min(a.xact_start) from pg_stat_activity a
                       where a.datname = current_database() and a.backend_type = 'client backend'
                         and a.pid <> pg_backend_pid()
                   ))) * 1000)::bigint - 1000 as "millis!""#
    )
    .fetch_one(conn)
    .await?;
    Ok(millis)
}

#[expect(clippy::struct_excessive_bools, reason = "the columns of a row")]
struct Columns {
    conversation_id: Uuid,
    user_id: i64,
    is_removed: bool,
    version: i64,
    kind: String,
    title: Option<String>,
    other: Option<String>,
    epoch: i32,
    first_seq: i64,
    last_seq: i64,
    activity_micros: i64,
    receipts: bool,
    history_depth: Option<i64>,
    retention_seconds: Option<i64>,
    closed_at_millis: Option<i64>,
    message_seq: Option<i64>,
    message_from: Option<String>,
    message_at_millis: Option<i64>,
    message_type: Option<String>,
    message_body: Option<Vec<u8>>,
    message_is_retracted: Option<bool>,
    message_is_expired: Option<bool>,
    message_expires_at_millis: Option<i64>,
    unread: i64,
    mentions: i64,
    read_seq: i64,
    role: String,
    is_muted_forever: bool,
    muted_until_millis: Option<i64>,
    mentions_break_mute: bool,
    is_silenced_forever: bool,
    silenced_until_millis: Option<i64>,
    pinned_at_millis: Option<i64>,
    is_archived: bool,
}

impl Columns {
    fn into_row(self) -> Result<Row, StoreError> {
        let subject = |name: &str| Subject::new(name).map_err(StoreError::corrupt);
        let last_message = match (self.message_seq, &self.message_from, self.message_type) {
            (Some(seq), Some(from), Some(kind)) => Some(LastMessage {
                seq,
                from: subject(from)?,
                at_millis: self.message_at_millis.unwrap_or_default(),
                kind,
                body: self.message_body,
                is_retracted: self.message_is_retracted.unwrap_or_default(),
                is_expired: self.message_is_expired.unwrap_or_default(),
                expires_at_millis: self.message_expires_at_millis,
            }),
            _ => None,
        };
        let forever = self.is_muted_forever.then_some(Mute::Forever);
        Ok(Row {
            conversation: ConversationId(self.conversation_id),
            user: UserId(self.user_id),
            version: self.version,
            is_removed: self.is_removed,
            kind: self.kind.parse().map_err(StoreError::corrupt)?,
            title: self.title,
            other: self.other.as_deref().map(subject).transpose()?,
            epoch: self.epoch,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            activity_micros: self.activity_micros,
            last_message,
            unread: self.unread,
            mentions: self.mentions,
            read: self.read_seq,
            role: self.role.parse().map_err(StoreError::corrupt)?,
            mute: forever.or(self.muted_until_millis.map(Mute::Until)),
            mentions_break_mute: self.mentions_break_mute,
            silenced_until: members::silenced(self.silenced_until_millis, self.is_silenced_forever),
            pinned_at_millis: self.pinned_at_millis,
            is_archived: self.is_archived,
            settings: Settings {
                receipts: self.receipts,
                history_depth: self.history_depth,
                retention_seconds: self.retention_seconds,
                archived_at_millis: self.closed_at_millis,
            },
        })
    }
}
