//! Push tokens: where each device can be woken.
//!
//! Whoever changes tokens locks in this order, so that two cannot wait in a circle: the user,
//! the texts of the tokens, the jobs (to wake, then to clear), the rows of the tokens. The
//! workers lock jobs before tokens, too.

use sqlx::{Connection as _, PgConnection};

use crate::domain::{format::WireFormat, ids::UserId};

use super::super::{StoreError, sessions};

/// Devices in the answer of [`devices`].
const DEVICES_MAX: i64 = 1_000;

/// A token that a device has registered.
#[derive(Clone, Copy)]
pub struct NewPushToken<'a> {
    /// `apns`, `fcm` or `webpush`.
    pub provider: &'a str,
    pub app: &'a str,
    /// `production` or `sandbox`.
    pub environment: &'a str,
    /// APNs and FCM: the token. Web Push: the endpoint.
    pub token: &'a str,
    pub voip_token: Option<&'a str>,
    /// Web Push: `p256dh` and `auth`, base64url.
    pub keys: Option<(&'a str, &'a str)>,
    pub locale: Option<&'a str>,
}

/// What may be told of a token. The token itself stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushToken {
    pub provider: String,
    pub app: String,
    pub environment: String,
    /// The first eight hexadecimal digits of the token's SHA-256.
    pub fingerprint: String,
    pub has_voip_token: bool,
    pub locale: Option<String>,
    /// Since when it has been this token, in milliseconds since 1970.
    pub registered_at_millis: i64,
    /// Since when the provider refuses it, and why.
    pub dead: Option<(i64, String)>,
}

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub client_id: String,
    pub is_connected: bool,
    /// What it said of itself last: `active`, `background` or `away`.
    pub activity: String,
    /// What its payloads are written in, unless it says so itself.
    pub format: WireFormat,
    /// All in milliseconds since 1970.
    pub connected_at_millis: Option<i64>,
    pub disconnected_at_millis: Option<i64>,
    pub signed_out_at_millis: Option<i64>,
    pub token: Option<PushToken>,
}

/// The user has as many devices with tokens as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many devices have a push token")]
pub struct TooManyTokens;

/// Gives a device a token, and makes the device if it has never connected. Whoever else had
/// the token loses it. A token that the device has already stays as it is, unless it was dead.
///
/// # Errors
///
/// [`StoreError::SignedOut`] if the device was signed out after the caller's token was issued.
pub async fn register(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
    new: &NewPushToken<'_>,
    issued_at: Option<i64>,
    tokens_max: i64,
) -> Result<Result<PushToken, TooManyTokens>, StoreError> {
    let mut tx = conn.begin().await?;
    lock_user(&mut tx, user).await?;
    // Under the lock: a sign-out of the device comes before or after all of this.
    sessions::check_signed_out(&mut tx, user, client_id, issued_at).await?;
    if is_full(&mut tx, user, client_id, tokens_max).await? {
        return Ok(Err(TooManyTokens));
    }
    let device = ensure_device(&mut tx, user, client_id).await?;
    take_over(&mut tx, device, new).await?;
    let (p256dh, auth) = new.keys.unzip();
    // What the provider and the storms did to another token is forgotten with it.
    sqlx::query!(
        "insert into push_tokens as t (device_id, user_id, provider, app, environment, token,
                                       voip_token, p256dh, auth, locale)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (device_id) do update
         set provider = excluded.provider, app = excluded.app,
             environment = excluded.environment, token = excluded.token,
             voip_token = excluded.voip_token, p256dh = excluded.p256dh,
             auth = excluded.auth, locale = excluded.locale,
             dead_since = null, dead_reason = null,
             (registered_at, budget, budget_at, background_at) = (
                 select case when is_new then now() else t.registered_at end,
                        case when not is_new then t.budget end,
                        case when not is_new then t.budget_at end,
                        case when not is_new then t.background_at end
                 from (values (t.token <> excluded.token or t.dead_since is not null))
                     as v (is_new))",
        device,
        user.0,
        new.provider,
        new.app,
        new.environment,
        new.token,
        new.voip_token,
        p256dh,
        auth,
        new.locale,
    )
    .execute(&mut *tx)
    .await?;
    let stored = show(&mut tx, user, client_id).await?;
    tx.commit().await?;
    stored
        .map(Ok)
        .ok_or_else(|| StoreError::corrupt("a stored push token is not there"))
}

/// The token of a device.
pub async fn show(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
) -> Result<Option<PushToken>, StoreError> {
    let row = sqlx::query_as!(
        TokenRow,
        r#"select t.provider as "provider?", t.app as "app?", t.environment as "environment?",
                  left(encode(sha256(convert_to(t.token, 'UTF8')), 'hex'), 8) as fingerprint,
                  t.voip_token is not null as has_voip_token, t.locale,
                  (extract(epoch from t.registered_at) * 1000)::bigint as registered_at_millis,
                  (extract(epoch from t.dead_since) * 1000)::bigint as dead_since_millis,
                  t.dead_reason
           from devices d join push_tokens t on t.device_id = d.device_id
           where d.user_id = $1 and d.client_id = $2"#,
        user.0,
        client_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.and_then(TokenRow::into_token))
}

/// Takes a device's token away; false if it had none.
pub async fn remove(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
) -> Result<bool, StoreError> {
    let mut tx = conn.begin().await?;
    lock_user(&mut tx, user).await?;
    let device = sqlx::query_scalar!(
        "select t.device_id from devices d join push_tokens t on t.device_id = d.device_id
         where d.user_id = $1 and d.client_id = $2",
        user.0,
        client_id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(device) = device {
        lock_texts(&mut tx, device, None).await?;
        settle_jobs(&mut tx, Some(device), None).await?;
        delete(&mut tx, device).await?;
    }
    tx.commit().await?;
    Ok(device.is_some())
}

/// The devices of a user, those that connected last first; at most 1000.
pub async fn devices(conn: &mut PgConnection, user: UserId) -> Result<Vec<Device>, StoreError> {
    let rows = sqlx::query!(
        r#"select d.client_id, s.node is not null as "is_connected!", s.activity, d.format,
                  (extract(epoch from s.connected_at) * 1000)::bigint as connected_at_millis,
                  (extract(epoch from s.disconnected_at) * 1000)::bigint as disconnected_at_millis,
                  (extract(epoch from d.signed_out_at) * 1000)::bigint as signed_out_at_millis,
                  t.provider as "provider?", t.app as "app?", t.environment as "environment?",
                  left(encode(sha256(convert_to(t.token, 'UTF8')), 'hex'), 8) as fingerprint,
                  t.voip_token is not null as has_voip_token, t.locale,
                  (extract(epoch from t.registered_at) * 1000)::bigint as registered_at_millis,
                  (extract(epoch from t.dead_since) * 1000)::bigint as dead_since_millis,
                  t.dead_reason
           from devices d
           join sessions s on s.device_id = d.device_id
           left join push_tokens t on t.device_id = d.device_id
           where d.user_id = $1
           order by s.connected_at desc nulls last, d.device_id desc
           limit $2"#,
        user.0,
        DEVICES_MAX,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Device {
                client_id: row.client_id,
                is_connected: row.is_connected,
                activity: row.activity,
                format: row.format.parse().map_err(StoreError::corrupt)?,
                connected_at_millis: row.connected_at_millis,
                disconnected_at_millis: row.disconnected_at_millis,
                signed_out_at_millis: row.signed_out_at_millis,
                token: TokenRow {
                    provider: row.provider,
                    app: row.app,
                    environment: row.environment,
                    fingerprint: row.fingerprint,
                    has_voip_token: row.has_voip_token,
                    locale: row.locale,
                    registered_at_millis: row.registered_at_millis,
                    dead_since_millis: row.dead_since_millis,
                    dead_reason: row.dead_reason,
                }
                .into_token(),
            })
        })
        .collect()
}

/// A row of `push_tokens`, or the nulls of a device without one.
struct TokenRow {
    provider: Option<String>,
    app: Option<String>,
    environment: Option<String>,
    fingerprint: Option<String>,
    has_voip_token: Option<bool>,
    locale: Option<String>,
    registered_at_millis: Option<i64>,
    dead_since_millis: Option<i64>,
    dead_reason: Option<String>,
}

impl TokenRow {
    fn into_token(self) -> Option<PushToken> {
        let reason = self.dead_reason.unwrap_or_default();
        Some(PushToken {
            provider: self.provider?,
            app: self.app?,
            environment: self.environment?,
            fingerprint: self.fingerprint?,
            has_voip_token: self.has_voip_token?,
            locale: self.locale,
            registered_at_millis: self.registered_at_millis?,
            dead: self.dead_since_millis.map(|since| (since, reason)),
        })
    }
}

/// Lets the registrations of one user wait for each other.
async fn lock_user(conn: &mut PgConnection, user: UserId) -> Result<(), StoreError> {
    sqlx::query!(
        r#"select 1 as "one!" from users where user_id = $1 for no key update"#,
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Whether the user's other devices have all the tokens that there may be.
async fn is_full(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
    tokens_max: i64,
) -> Result<bool, StoreError> {
    let others = sqlx::query_scalar!(
        r#"select count(*) as "count!"
           from push_tokens t join devices d on d.device_id = t.device_id
           where t.user_id = $1 and d.client_id <> $2"#,
        user.0,
        client_id,
    )
    .fetch_one(conn)
    .await?;
    Ok(others >= tokens_max)
}

/// The device, with the session that a connection expects to find.
async fn ensure_device(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
) -> Result<i64, StoreError> {
    if let Some(device) = sessions::device(conn, user, client_id).await? {
        return Ok(device.0);
    }
    sqlx::query!(
        "insert into devices (user_id, client_id) values ($1, $2)
         on conflict (user_id, client_id) do nothing",
        user.0,
        client_id,
    )
    .execute(&mut *conn)
    .await?;
    // Again, with a younger snapshot: a connection may have been first.
    let device = sqlx::query_scalar!(
        "select device_id from devices where user_id = $1 and client_id = $2",
        user.0,
        client_id,
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into sessions (device_id) values ($1) on conflict (device_id) do nothing",
        device,
    )
    .execute(conn)
    .await?;
    Ok(device)
}

/// Takes the token from the device that has it, if it is another one.
async fn take_over(
    conn: &mut PgConnection,
    device: i64,
    new: &NewPushToken<'_>,
) -> Result<(), StoreError> {
    lock_texts(&mut *conn, device, Some(new)).await?;
    let holder = sqlx::query_scalar!(
        "select device_id from push_tokens
         where route = concat_ws(':', $2::text, $3::text, $4::text) and token = $5
           and device_id <> $1",
        device,
        new.provider,
        new.app,
        new.environment,
        new.token,
    )
    .fetch_optional(&mut *conn)
    .await?;
    settle_jobs(&mut *conn, holder, Some((device, new))).await?;
    let devices: Vec<_> = std::iter::once(device).chain(holder).collect();
    sqlx::query!(
        r#"select 1 as "one!" from push_tokens where device_id = any($1)
           order by device_id for update"#,
        &devices[..],
    )
    .fetch_all(&mut *conn)
    .await?;
    match holder {
        Some(holder) => delete(conn, holder).await,
        None => Ok(()),
    }
}

/// Of two devices that register the same token at once, one waits here for the other, and
/// whoever takes a token from a device waits until that has its next one.
async fn lock_texts(
    conn: &mut PgConnection,
    device: i64,
    new: Option<&NewPushToken<'_>>,
) -> Result<(), StoreError> {
    let text = new.map(|new| {
        format!(
            "{}:{}:{}:{}",
            new.provider, new.app, new.environment, new.token
        )
    });
    sqlx::query!(
        r#"select count(pg_advisory_xact_lock(texts.hash)) as "count!" from (
               select hashtextextended(route || ':' || token, 0) as hash
               from push_tokens where device_id = $1
               union
               select hashtextextended($2, 0) where $2::text is not null
               order by hash
           ) texts"#,
        device,
        text,
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Ends what waits for a device that loses its token, and sends what waits for another one to
/// its new token. What is in flight has left already; what is armed from now on is judged
/// when it is due.
///
/// One statement: it changes only what it has locked, in order.
async fn settle_jobs(
    conn: &mut PgConnection,
    loses: Option<i64>,
    gets: Option<(i64, &NewPushToken<'_>)>,
) -> Result<(), StoreError> {
    let route = gets.map(|(_, new)| format!("{}:{}:{}", new.provider, new.app, new.environment));
    sqlx::query!(
        "with waiting as (
             select j.conversation_id, j.user_id, j.device_id, j.kind from push_jobs j
             where j.device_id = any(array[$1::bigint, $2::bigint])
               and j.state in ('armed', 'backoff')
             order by j.kind desc, j.conversation_id, j.user_id, j.device_id for no key update
         ), moved as (
             update push_jobs j set route = $3 from waiting w
             where j.conversation_id = w.conversation_id and j.user_id = w.user_id
               and j.device_id = w.device_id and j.kind = w.kind and w.device_id = $2
         ), ended as (
             update push_jobs j set state = 'done', due_at = null from waiting w
             where j.conversation_id = w.conversation_id and j.user_id = w.user_id
               and j.device_id = w.device_id and j.kind = w.kind and w.device_id = $1
             returning j.*
         )
         insert into push_attempts (conversation_id, user_id, device_id, kind, from_seq, to_seq,
                                    outcome, reason, route, notification_id, committed_at)
         select e.conversation_id, e.user_id, e.device_id, e.kind, e.from_seq, e.to_seq,
                'cancelled', 'token_removed', e.route, e.notification_id, e.committed_at
         from ended e",
        loses,
        gets.map(|(device, _)| device),
        route,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn delete(conn: &mut PgConnection, device: i64) -> Result<(), StoreError> {
    sqlx::query!("delete from push_tokens where device_id = $1", device)
        .execute(conn)
        .await?;
    Ok(())
}
