//! What a user sets for a conversation in their own inbox: pinned, archived, muted.

use sqlx::PgConnection;

use crate::domain::ids::{ConversationId, UserId};

use super::{
    StoreError,
    push::settings::{Mute, NotificationsChange},
};

/// What to change; none leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxChange {
    pub pinned: Option<bool>,
    /// Until there is another message, unless the conversation is muted.
    pub archived: Option<bool>,
    pub notifications: NotificationsChange,
    /// Only if the inbox row has this version.
    pub if_version: Option<i64>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The row shows something else now.
    Changed,
    /// It was so already.
    Unchanged,
    /// The row has another version.
    Stale,
    /// The user does not take part.
    NotParticipant,
}

/// Changes what a user has set; the version of the row rises if it shows something else then.
pub async fn change(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    change: InboxChange,
) -> Result<Changed, StoreError> {
    let mute = change.notifications.mute;
    let until_millis = match mute {
        Some(Some(Mute::Until(millis))) => Some(millis),
        _ => None,
    };
    let is_change = sqlx::query_scalar!(
        r#"update participants p
           set pinned_at = n.pinned_at, archived_seq = n.archived_seq,
               muted_until = n.muted_until, mentions_break_mute = n.mentions_break_mute,
               own_version = p.own_version + n.is_change::integer,
               changed_at = case when n.is_change then now() else p.changed_at end
           from (
               select p.conversation_id, p.user_id, n.*,
                      (p.pinned_at is null) <> (n.pinned_at is null)
                      or w.archived <> coalesce(
                             p.archived_seq >= c.last_message_seq
                             or (p.archived_seq is not null and p.muted_until > now()), false)
                      or p.muted_until is distinct from n.muted_until
                      or p.mentions_break_mute <> n.mentions_break_mute as is_change
               from participants p
               cross join lateral (
                   select c.last_seq, c.last_message_seq, c.erasures from conversations c
                   where c.conversation_id = p.conversation_id limit 1
               ) c
               cross join lateral (
                   select coalesce($4, p.archived_seq >= c.last_message_seq
                              or (p.archived_seq is not null and p.muted_until > now()), false)
                              as archived
               ) w
               cross join lateral (
                   select case when $3 then coalesce(p.pinned_at, now())
                               when $3 is null then p.pinned_at end as pinned_at,
                          case when $4 then c.last_seq
                               -- What came back by a message is not put away by a later mute.
                               when $4 is null and w.archived then p.archived_seq
                               end as archived_seq,
                          case when not $5 then p.muted_until
                               when $6 then 'infinity'
                               else to_timestamp($7::bigint / 1000.0) end as muted_until,
                          coalesce($8, p.mentions_break_mute) as mentions_break_mute
               ) n
               where p.conversation_id = $1 and p.user_id = $2 and p.left_seq is null
                 and ($9::bigint is null or row_version(c.last_seq, p.left_seq, p.own_version, c.erasures) = $9)
               for no key update of p
           ) n
           where p.conversation_id = n.conversation_id and p.user_id = n.user_id
           returning n.is_change as "is_change!""#,
        conversation.0,
        user.0,
        change.pinned,
        change.archived,
        mute.is_some(),
        mute == Some(Some(Mute::Forever)),
        until_millis,
        change.notifications.mentions_break_mute,
        change.if_version,
    )
    .fetch_optional(&mut *conn)
    .await?;
    match is_change {
        Some(true) => Ok(Changed::Changed),
        Some(false) => Ok(Changed::Unchanged),
        None if change.if_version.is_some() && takes_part(conn, conversation, user).await? => {
            Ok(Changed::Stale)
        }
        None => Ok(Changed::NotParticipant),
    }
}

async fn takes_part(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
) -> Result<bool, StoreError> {
    let answers = super::cursors::take_part(conn, &[(user, conversation)]).await?;
    Ok(answers == [true])
}
