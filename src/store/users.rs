//! Users: the names of tokens, and the small numbers that stand for them.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::domain::{
    ids::{Subject, UserId},
    settings::{UserSettings, UserSettingsChange},
};

use super::StoreError;

/// A number that no user has: they begin with one.
pub const NOBODY: UserId = UserId(0);

/// The ids of users, in the order of their names; whoever is unknown is made.
///
/// In a transaction that also changes conversations, call it first: it may wait for another
/// transaction that makes the same user.
pub async fn ensure(conn: &mut PgConnection, names: &[Subject]) -> Result<Vec<UserId>, StoreError> {
    let mut sorted: Vec<&str> = names.iter().map(Subject::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();

    let mut known = find(conn, &sorted).await?;
    sorted.retain(|name| !known.contains_key(*name));
    if !sorted.is_empty() {
        // Only the unknown, so that no number is wasted on a conflict; in one order, so that
        // two calls cannot wait for each other in a circle.
        sqlx::query!(
            "insert into users (subject) select n.name from unnest($1::text[]) as n (name)
             on conflict (subject) do nothing",
            &sorted[..] as &[&str],
        )
        .execute(&mut *conn)
        .await?;
        // Again, with a younger snapshot: another transaction may have been first.
        known.extend(find(conn, &sorted).await?);
    }

    let id_of = |name: &Subject| known.get(name.as_str()).copied();
    names
        .iter()
        .map(|name| id_of(name).ok_or_else(|| StoreError::corrupt(format!("no user {name}"))))
        .collect()
}

/// The ids of users, in the order of their names; [`NOBODY`] stands for who is unknown.
pub async fn known(conn: &mut PgConnection, names: &[Subject]) -> Result<Vec<UserId>, StoreError> {
    let texts: Vec<&str> = names.iter().map(Subject::as_str).collect();
    let known = find(conn, &texts).await?;
    let id_of = |name: &Subject| known.get(name.as_str()).copied().unwrap_or(NOBODY);
    Ok(names.iter().map(id_of).collect())
}

/// The user of that name, if there is one.
pub async fn id(conn: &mut PgConnection, name: &Subject) -> Result<Option<UserId>, StoreError> {
    let known = find(conn, &[name.as_str()]).await?;
    Ok(known.get(name.as_str()).copied())
}

/// The users of those names that there are.
pub(super) async fn find(
    conn: &mut PgConnection,
    names: &[&str],
) -> Result<HashMap<String, UserId>, StoreError> {
    let rows = sqlx::query!(
        "select user_id, subject from users where subject = any($1::text[])",
        names as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.subject, UserId(row.user_id)))
        .collect())
}

/// What others learn of a user.
pub async fn settings(conn: &mut PgConnection, user: UserId) -> Result<UserSettings, StoreError> {
    let row = sqlx::query!(
        "select receipts, last_seen, is_invisible from users where user_id = $1",
        user.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(UserSettings {
        receipts: row.receipts,
        last_seen: row.last_seen.parse().map_err(StoreError::corrupt)?,
        invisible: row.is_invisible,
    })
}

/// Changes what others learn of a user, and answers what it is then.
pub async fn change_settings(
    conn: &mut PgConnection,
    user: UserId,
    change: UserSettingsChange,
) -> Result<UserSettings, StoreError> {
    let default = UserSettings::default();
    let receipts = change.receipts.map(|to| to.unwrap_or(default.receipts));
    let last_seen = change.last_seen.map(|to| to.unwrap_or(default.last_seen));
    let invisible = change.invisible.map(|to| to.unwrap_or(default.invisible));
    let row = sqlx::query!(
        "update users set receipts = coalesce($2, receipts), last_seen = coalesce($3, last_seen),
                          is_invisible = coalesce($4, is_invisible),
                          visible_at = case when is_invisible then now() else visible_at end
         where user_id = $1
         returning receipts, last_seen, is_invisible",
        user.0,
        receipts,
        last_seen.map(crate::domain::settings::LastSeen::as_str),
        invisible,
    )
    .fetch_one(conn)
    .await?;
    Ok(UserSettings {
        receipts: row.receipts,
        last_seen: row.last_seen.parse().map_err(StoreError::corrupt)?,
        invisible: row.is_invisible,
    })
}
