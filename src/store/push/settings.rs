//! When a user wants to be left alone: muted conversations and quiet hours.

use sqlx::PgConnection;

use crate::domain::ids::{ConversationId, UserId};

use super::super::{
    StoreError,
    inbox_settings::{self, Changed, InboxChange},
};

/// How long a conversation is muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mute {
    /// In milliseconds since 1970.
    Until(i64),
    Forever,
}

/// What a participant wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// None if it is not muted now.
    pub mute: Option<Mute>,
    /// Whether a message that names the user is pushed all the same.
    pub mentions_break_mute: bool,
}

/// What to change of [`Notifications`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotificationsChange {
    /// `Some(None)` ends a mute.
    pub mute: Option<Option<Mute>>,
    pub mentions_break_mute: Option<bool>,
}

/// A part of the day, by the clocks of a zone; it may go over midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// In minutes since midnight.
    pub from_minute: u16,
    pub until_minute: u16,
    /// A name of `pg_timezone_names`, such as `Europe/Berlin`.
    pub zone: String,
}

/// Why quiet hours are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database knows no such time zone")]
pub struct UnknownZone;

/// What a user who takes part has set; none if the user does not.
pub async fn notifications(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
) -> Result<Option<Notifications>, StoreError> {
    let row = sqlx::query_as!(
        NotificationsRow,
        r#"select case when isfinite(muted_until) and muted_until > now()
                       then (extract(epoch from muted_until) * 1000)::bigint end as until_millis,
                  coalesce(muted_until = 'infinity', false) as "is_forever!", mentions_break_mute
           from participants
           where conversation_id = $1 and user_id = $2 and left_seq is null"#,
        conversation.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Into::into))
}

/// Changes what is given, and answers what holds now; none if the user does not take part.
pub async fn set_notifications(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    change: NotificationsChange,
) -> Result<Option<Notifications>, StoreError> {
    let change = InboxChange {
        notifications: change,
        ..InboxChange::default()
    };
    match inbox_settings::change(conn, conversation, user, change).await? {
        Changed::NotParticipant | Changed::Stale => Ok(None),
        Changed::Changed | Changed::Unchanged => notifications(conn, conversation, user).await,
    }
}

struct NotificationsRow {
    until_millis: Option<i64>,
    is_forever: bool,
    mentions_break_mute: bool,
}

impl From<NotificationsRow> for Notifications {
    fn from(row: NotificationsRow) -> Self {
        let forever = row.is_forever.then_some(Mute::Forever);
        Self {
            mute: forever.or(row.until_millis.map(Mute::Until)),
            mentions_break_mute: row.mentions_break_mute,
        }
    }
}

/// The quiet hours of a user.
pub async fn quiet_hours(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<QuietHours>, StoreError> {
    let row = sqlx::query!(
        r#"select (extract(epoch from quiet_from) / 60)::integer as "from_minute!",
                  (extract(epoch from quiet_until) / 60)::integer as "until_minute!",
                  quiet_zone as "zone!"
           from users where user_id = $1 and quiet_zone is not null"#,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(QuietHours {
            from_minute: u16::try_from(row.from_minute).map_err(StoreError::corrupt)?,
            until_minute: u16::try_from(row.until_minute).map_err(StoreError::corrupt)?,
            zone: row.zone,
        })
    })
    .transpose()
}

/// Sets the quiet hours of a user, or ends them.
pub async fn set_quiet_hours(
    conn: &mut PgConnection,
    user: UserId,
    hours: Option<&QuietHours>,
) -> Result<Result<(), UnknownZone>, StoreError> {
    let changed = sqlx::query!(
        "update users
         set quiet_from = time '00:00' + make_interval(mins => $2),
             quiet_until = time '00:00' + make_interval(mins => $3),
             quiet_zone = $4
         where user_id = $1
           and ($4::text is null or exists (select from pg_timezone_names where name = $4))",
        user.0,
        hours.map(|hours| i32::from(hours.from_minute)),
        hours.map(|hours| i32::from(hours.until_minute)),
        hours.map(|hours| hours.zone.as_str()),
    )
    .execute(conn)
    .await?;
    Ok(if changed.rows_affected() == 1 {
        Ok(())
    } else {
        Err(UnknownZone)
    })
}
