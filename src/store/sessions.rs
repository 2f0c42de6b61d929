//! Devices and their MQTT sessions: who holds which, since when, and until when.
//!
//! A generation decides takeovers: it rises with every connection, and whoever holds an
//! older one changes nothing any more.

use serde_json::Value;
use sqlx::{PgConnection, types::Json};

use crate::domain::{
    format::WireFormat,
    ids::{ConversationId, DeviceId, UserId},
    message::{Position, Sequence},
    push::Activity,
};

use super::StoreError;

/// A device connects.
#[derive(Clone, Copy, Debug)]
pub struct OpenSession<'a> {
    pub user: UserId,
    /// The MQTT client id; the device is (user, client id).
    pub client_id: &'a str,
    /// Whether an earlier session must be forgotten.
    pub clean_start: bool,
    /// How long the session outlives its connection, in seconds; 0 ends it with it.
    pub expiry_seconds: u32,
    /// The node that the device is connected to.
    pub node: &'a str,
    /// When its token was issued, in seconds since 1970; none if it does not say.
    pub issued_at: Option<i64>,
}

/// What was sent and not acknowledged, oldest first: packet ids and what they carry.
pub type Inflight = Vec<(u16, Position)>;

/// The session that a connection now holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub device: DeviceId,
    pub generation: i64,
    /// Whether an earlier session goes on: Session Present of CONNACK.
    pub is_present: bool,
    /// As [`persist`] wrote them; an empty array in a new session.
    pub subscriptions: Value,
    pub inflight: Inflight,
    /// As the device's setting has it.
    pub format: WireFormat,
}

/// Opens a session or takes it over; an absent, ended or expired one begins anew.
///
/// [`StoreError::SignedOut`] if the device was signed out after its token was issued.
///
/// Use a transaction of its own: to come back is not fsynced.
pub async fn open(
    conn: &mut PgConnection,
    session: &OpenSession<'_>,
) -> Result<Opened, StoreError> {
    let row = sqlx::query!(
        r#"select device_id as "device_id!", generation as "generation!",
                  is_present as "is_present!", subscriptions as "subscriptions!",
                  inflight as "inflight!: Json<Vec<InflightRow>>", format as "format!"
           from open_session($1, $2, $3, $4, $5, $6)"#,
        session.user.0,
        session.client_id,
        session.clean_start,
        i64::from(session.expiry_seconds),
        session.node,
        session.issued_at,
    )
    .fetch_optional(conn)
    .await?;
    let row = row.ok_or(StoreError::SignedOut)?;
    Ok(Opened {
        device: DeviceId(row.device_id),
        generation: row.generation,
        is_present: row.is_present,
        subscriptions: row.subscriptions,
        inflight: row.inflight.0.into_iter().map(from_row).collect(),
        format: row.format.parse().map_err(StoreError::corrupt)?,
    })
}

/// Ends the session of a device and refuses the tokens it had. None: there is no such device.
///
/// Use a transaction of its own.
pub async fn sign_out(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
) -> Result<Option<DeviceId>, StoreError> {
    let device = sqlx::query_scalar!(
        "update devices set signed_out_at = now()
         where user_id = $1 and client_id = $2 returning device_id",
        user.0,
        client_id,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(device) = device {
        // What its connection writes when it ends comes too late: it would bring the session back.
        sqlx::query!(
            "update sessions
             set generation = generation + 1, node = null,
                 disconnected_at = case when node is null then disconnected_at else now() end
             where device_id = $1",
            device
        )
        .execute(&mut *conn)
        .await?;
        sqlx::query_scalar!("select end_sessions(array[$1::bigint])", device)
            .fetch_one(conn)
            .await?;
    }
    Ok(device.map(DeviceId))
}

/// Refuses a token that was issued (in seconds since 1970; none is unknown) before the device it
/// would act for was signed out.
///
/// # Errors
///
/// [`StoreError::SignedOut`].
pub async fn check_signed_out(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
    issued_at: Option<i64>,
) -> Result<(), StoreError> {
    let is_signed_out = sqlx::query_scalar!(
        r#"select coalesce(to_timestamp($3::bigint) < signed_out_at, true) as "is_signed_out!"
           from devices where user_id = $1 and client_id = $2 and signed_out_at is not null"#,
        user.0,
        client_id,
        issued_at,
    )
    .fetch_optional(conn)
    .await?;
    if is_signed_out == Some(true) {
        return Err(StoreError::SignedOut);
    }
    Ok(())
}

/// Writes what must survive the connection. False: the session has been taken over.
pub async fn persist(
    conn: &mut PgConnection,
    device: DeviceId,
    generation: i64,
    subscriptions: &Value,
    expiry_seconds: i64,
    is_present: bool,
) -> Result<bool, StoreError> {
    // Not `=`: what a crash of the database forgot of `open` comes back with this.
    let done = sqlx::query!(
        "update sessions
         set generation = $2, subscriptions = $3, expiry_seconds = $4, is_present = $5
         where device_id = $1 and generation <= $2",
        device.0,
        generation,
        subscriptions,
        expiry_seconds,
        is_present,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A connection that ended, and what its session leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    pub device: DeviceId,
    pub generation: i64,
    /// Whether there is a session to come back to.
    pub keep: bool,
    pub expiry_seconds: i64,
    pub inflight: Inflight,
    /// Whether others may not know that the device was there until now.
    pub is_hidden: bool,
}

/// Disconnects devices; those that have been taken over meanwhile are left alone. Returns how
/// many were disconnected.
pub async fn close(conn: &mut PgConnection, batch: &[Closing]) -> Result<usize, StoreError> {
    let devices: Vec<_> = batch.iter().map(|closing| closing.device.0).collect();
    let generations: Vec<_> = batch.iter().map(|closing| closing.generation).collect();
    let keeps: Vec<_> = batch.iter().map(|closing| closing.keep).collect();
    let expiries: Vec<_> = batch.iter().map(|closing| closing.expiry_seconds).collect();
    let inflight: Vec<_> = batch
        .iter()
        .map(|closing| serde_json::to_value(to_rows(&closing.inflight)))
        .collect::<Result<_, _>>()
        .map_err(StoreError::corrupt)?;
    let hiddens: Vec<_> = batch.iter().map(|closing| closing.is_hidden).collect();
    let closed = sqlx::query_scalar!(
        r#"select close_sessions($1, $2, $3, $4, $5, $6) as "closed!""#,
        &devices[..],
        &generations[..],
        &keeps[..],
        &expiries[..],
        &inflight[..],
        &hiddens[..],
    )
    .fetch_one(conn)
    .await?;
    Ok(usize::try_from(closed).unwrap_or_default())
}

/// Writes the in-flight windows of connected devices, so that a crash of the broker does not
/// forget their packet ids.
///
/// Use a transaction of its own: it is not fsynced, since a loss only gives a repeat a new
/// packet id. Sessions that were closed or taken over keep theirs.
pub async fn save_inflight(
    conn: &mut PgConnection,
    windows: &[(DeviceId, i64, Inflight)],
) -> Result<(), StoreError> {
    let devices: Vec<_> = windows.iter().map(|(device, ..)| device.0).collect();
    let generations: Vec<_> = windows
        .iter()
        .map(|(_, generation, _)| *generation)
        .collect();
    let inflight: Vec<_> = windows
        .iter()
        .map(|(.., window)| Json(to_rows(window)))
        .collect();
    sqlx::query!(
        "with held as (
             select s.device_id, i.inflight
             from unnest($1::bigint[], $2::bigint[], $3::jsonb[])
                 as i (device_id, generation, inflight)
             cross join (select set_config('synchronous_commit', 'off', true)) as no_fsync
             join sessions s on s.device_id = i.device_id
             where s.generation = i.generation and s.disconnected_at is null
             order by s.device_id for no key update of s
         )
         update sessions s set inflight = h.inflight from held h where s.device_id = h.device_id",
        &devices[..],
        &generations[..],
        &inflight[..] as &[Json<Vec<InflightRow>>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a connected device says of itself, and whether it seems to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    pub device: DeviceId,
    pub generation: i64,
    /// None if it said nothing new.
    pub activity: Option<Activity>,
    /// None if nothing changed.
    pub is_suspect: Option<bool>,
}

/// Writes the signs of connected devices, each at most once. Sessions that were closed or
/// taken over keep what they have.
///
/// Use a transaction of its own: it is not fsynced, since after a crash everybody connects
/// again and begins as active.
pub async fn save_signs(conn: &mut PgConnection, signs: &[Sign]) -> Result<(), StoreError> {
    let devices: Vec<_> = signs.iter().map(|sign| sign.device.0).collect();
    let generations: Vec<_> = signs.iter().map(|sign| sign.generation).collect();
    let activities: Vec<_> = signs
        .iter()
        .map(|sign| sign.activity.map(|activity| activity.as_str().to_owned()))
        .collect();
    let suspects: Vec<_> = signs.iter().map(|sign| sign.is_suspect).collect();
    sqlx::query!(
        "with held as (
             select s.device_id, i.activity, i.is_suspect
             from unnest($1::bigint[], $2::bigint[], $3::text[], $4::boolean[])
                 as i (device_id, generation, activity, is_suspect)
             cross join (select set_config('synchronous_commit', 'off', true)) as no_fsync
             join sessions s on s.device_id = i.device_id
             where s.generation = i.generation and s.disconnected_at is null
             order by s.device_id for no key update of s
         )
         update sessions s
         set activity = coalesce(h.activity, s.activity),
             suspected_at = case h.is_suspect
                 when true then coalesce(s.suspected_at, now())
                 when false then null
                 else s.suspected_at
             end
         from held h where s.device_id = h.device_id",
        &devices[..],
        &generations[..],
        &activities[..] as &[Option<String>],
        &suspects[..] as &[Option<bool>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets the format of payloads that a device of a user begins with; false if there is no such
/// device.
pub async fn set_format(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
    format: WireFormat,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "update devices set format = $3 where user_id = $1 and client_id = $2",
        user.0,
        client_id,
        format.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The device of a user with this MQTT client id.
pub async fn device(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
) -> Result<Option<DeviceId>, StoreError> {
    let device = sqlx::query_scalar!(
        "select device_id from devices where user_id = $1 and client_id = $2",
        user.0,
        client_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(device.map(DeviceId))
}

/// The MQTT client id of a device; none if there is no such device.
pub async fn client_id(
    conn: &mut PgConnection,
    device: DeviceId,
) -> Result<Option<String>, StoreError> {
    let client_id = sqlx::query_scalar!(
        "select client_id from devices where device_id = $1",
        device.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(client_id)
}

/// Ends sessions whose devices stayed away too long, at most `limit`; how many it were.
pub async fn remove_expired(conn: &mut PgConnection, limit: i64) -> Result<u64, StoreError> {
    let ended = sqlx::query_scalar!(
        r#"select end_sessions(array(
               select s.device_id from sessions s
               where s.expires_at <= now()
               order by s.expires_at limit $1 for update skip locked
           )) as "ended!""#,
        limit,
    )
    .fetch_one(conn)
    .await?;
    u64::try_from(ended).map_err(StoreError::corrupt)
}

/// After a crash: all devices of this node are away since now.
pub async fn disconnect_node(conn: &mut PgConnection, node: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "update sessions
         set node = null, disconnected_at = now(),
             expires_at = case when is_present
                 then now() + make_interval(secs => expiry_seconds) end
         where node = $1",
        node,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// [packet id, conversation, sequence]
type InflightRow = (u16, ConversationId, Sequence);

fn to_rows(inflight: &[(u16, Position)]) -> Vec<InflightRow> {
    inflight
        .iter()
        .map(|(id, at)| (*id, at.conversation, at.sequence))
        .collect()
}

fn from_row((id, conversation, sequence): InflightRow) -> (u16, Position) {
    (
        id,
        Position {
            conversation,
            sequence,
        },
    )
}
