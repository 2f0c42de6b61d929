//! What typing and presence must know and never write: who may say something, who may see whom.

use sqlx::PgConnection;

use crate::domain::{
    ids::{ConversationId, Subject, UserId},
    presence::PresenceSettings,
};

use super::StoreError;

/// The participants of a conversation who may not write to it now.
pub async fn silent(
    conn: &mut PgConnection,
    conversation: ConversationId,
) -> Result<Vec<UserId>, StoreError> {
    let users = sqlx::query_scalar!(
        "select p.user_id from participants p
         join conversations c on c.conversation_id = p.conversation_id
         where p.conversation_id = $1 and p.left_seq is null
           and (p.role = 'readonly' or p.is_blocked or p.silenced_until > now()
                or c.archived_at is not null)",
        conversation.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(users.into_iter().map(UserId).collect())
}

/// Whether one user may see another, and what that one lets others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub watcher: UserId,
    pub target: UserId,
    pub may_see: bool,
    pub settings: PresenceSettings,
}

/// Judges pairs (who looks, at whom): they take part in a conversation that is not closed, and
/// neither has blocked the other.
pub async fn judge(
    conn: &mut PgConnection,
    pairs: &[(UserId, UserId)],
) -> Result<Vec<Pair>, StoreError> {
    let (watchers, targets): (Vec<_>, Vec<_>) = pairs
        .iter()
        .map(|(watcher, target)| (watcher.0, target.0))
        .unzip();
    let rows = sqlx::query!(
        r#"select i.watcher as "watcher!", i.target as "target!", u.is_invisible,
                  u.last_seen = 'contacts' as "tells_last_seen!",
                  exists (
                      select from participants w
                      join participants t on t.conversation_id = w.conversation_id
                      join conversations c on c.conversation_id = w.conversation_id
                      where w.user_id = i.watcher and w.left_seq is null
                        and t.user_id = i.target and t.left_seq is null
                        and c.archived_at is null
                      limit 1
                  ) and not exists (
                      select from blocks b where b.user_id = i.watcher and b.blocked_id = i.target
                  ) and not exists (
                      select from blocks b where b.user_id = i.target and b.blocked_id = i.watcher
                  ) as "may_see!"
           from unnest($1::bigint[], $2::bigint[]) as i (watcher, target)
           join users u on u.user_id = i.target"#,
        &watchers[..],
        &targets[..],
    )
    .fetch_all(conn)
    .await?;
    let pairs = rows.into_iter().map(|row| Pair {
        watcher: UserId(row.watcher),
        target: UserId(row.target),
        may_see: row.may_see,
        settings: PresenceSettings {
            is_invisible: row.is_invisible,
            tells_last_seen: row.tells_last_seen,
        },
    });
    Ok(pairs.collect())
}

/// Writes when the last stream of users closed that others might see, in milliseconds since 1970,
/// each user at most once.
pub async fn save_seen(conn: &mut PgConnection, seen: &[(UserId, i64)]) -> Result<(), StoreError> {
    let (users, millis): (Vec<_>, Vec<_>) = seen.iter().map(|(user, at)| (user.0, *at)).unzip();
    sqlx::query!(
        "with seen as (
             select u.user_id, i.at_millis
             from unnest($1::bigint[], $2::bigint[]) as i (user_id, at_millis)
             join users u on u.user_id = i.user_id
             order by u.user_id for no key update of u
         )
         update users u
         set streamed_at = greatest(u.streamed_at, least(now(), to_timestamp(s.at_millis / 1000.0)))
         from seen s where u.user_id = s.user_id",
        &users[..],
        &millis[..],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A user, and when the last one of their devices or streams went that others might see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSeen {
    pub user: UserId,
    pub name: Subject,
    /// In milliseconds since 1970; none if nobody ever saw one go.
    pub last_seen_millis: Option<i64>,
}

/// The users of those names that there are.
pub async fn last_seen(
    conn: &mut PgConnection,
    names: &[Subject],
) -> Result<Vec<LastSeen>, StoreError> {
    let names: Vec<_> = names.iter().map(Subject::as_str).collect();
    let rows = sqlx::query!(
        r#"select u.user_id, u.subject,
                  (extract(epoch from s.last_seen_at) * 1000)::bigint as last_seen_millis
           from users u
           cross join lateral (
               select max(s.last_seen_at) as last_seen_at
               from (
                   select s.last_seen_at
                   from devices d join sessions s on s.device_id = d.device_id
                   where d.user_id = u.user_id
                   union all select u.streamed_at
               ) s
               where s.last_seen_at > coalesce(u.visible_at, '-infinity')
           ) s
           where u.subject = any($1::text[])"#,
        &names[..] as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let users = rows.into_iter().map(|row| {
        Ok(LastSeen {
            user: UserId(row.user_id),
            name: Subject::new(&row.subject).map_err(StoreError::corrupt)?,
            last_seen_millis: row.last_seen_millis,
        })
    });
    users.collect()
}
