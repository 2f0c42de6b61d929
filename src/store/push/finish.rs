//! What became of the jobs that a worker held.

use std::time::Duration;

use sqlx::PgConnection;

use crate::store::StoreError;

use super::{
    interval,
    jobs::{Held, JobKind},
};

/// A job that a worker is done with.
#[derive(Clone, Debug)]
pub struct Finished {
    pub held: Held,
    /// The token that was used: of a token that died while another took its place, nothing is
    /// to be learned of the other.
    pub token: String,
    pub result: JobResult,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// The provider has it.
    Sent { is_background: bool },
    /// It is tried again, under the same id.
    Retry { reason: String, after: Duration },
    /// The token will not work again; `since_millis`: since when, if the provider says so.
    Dead {
        reason: String,
        since_millis: Option<i64>,
    },
    /// It is given up; what is newer is told of all the same.
    Dropped { reason: String },
    /// A rule that the store does not know lets nothing leave (`template`).
    Suppressed { reason: String },
    /// It was not tried, and is due again after a while.
    Released { after: Duration },
    /// A rule that the store does not know makes it wait (`background`).
    Postponed { reason: String, after: Duration },
}

impl JobResult {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Sent { .. } => "sent",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
            Self::Dropped { .. } => "dropped",
            Self::Suppressed { .. } => "suppressed",
            Self::Released { .. } => "released",
            Self::Postponed { .. } => "postponed",
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Sent { .. } | Self::Released { .. } => "accepted",
            Self::Retry { reason, .. }
            | Self::Dead { reason, .. }
            | Self::Dropped { reason }
            | Self::Suppressed { reason }
            | Self::Postponed { reason, .. } => reason,
        }
    }

    const fn after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after, .. }
            | Self::Released { after }
            | Self::Postponed { after, .. } => Some(*after),
            Self::Sent { .. }
            | Self::Dead { .. }
            | Self::Dropped { .. }
            | Self::Suppressed { .. } => None,
        }
    }
}

/// Writes what became of jobs; how many of them were still held. `repeat` is the time between
/// two notifications about one conversation on one device.
///
/// Whoever holds an older claim changes nothing. A job that the database refuses to finish, each
/// time, is passed over, so that it cannot stop the others for ever: it is due again when its
/// lease is over, and so until its messages are too old to be pushed. Not for a transaction that
/// goes on: a refusal ends it.
pub async fn finish(
    conn: &mut PgConnection,
    batch: &[Finished],
    repeat: Duration,
    at: Option<i64>,
) -> Result<u64, StoreError> {
    match finish_together(conn, batch, repeat, at).await {
        Err(error) if !error.is_transient() => {}
        result => return result,
    }
    let mut total = 0;
    for finished in batch {
        let one = std::slice::from_ref(finished);
        match finish_together(conn, one, repeat, at).await {
            Ok(count) => total += count,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                let device = finished.held.device;
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    device = device.0,
                    "what became of a notification cannot be written down"
                );
            }
        }
    }
    Ok(total)
}

async fn finish_together(
    conn: &mut PgConnection,
    batch: &[Finished],
    repeat: Duration,
    at: Option<i64>,
) -> Result<u64, StoreError> {
    if batch.is_empty() {
        return Ok(0);
    }
    let parts: Vec<_> = batch
        .iter()
        .flat_map(|finished| finished.held.parts.iter().map(move |part| (finished, part)))
        .collect();
    let conversations: Vec<_> = parts.iter().map(|(_, part)| part.conversation.0).collect();
    let claims: Vec<_> = parts.iter().map(|(_, part)| part.claim).collect();
    let of = || parts.iter().map(|(finished, _)| *finished);
    let users: Vec<_> = of().map(|finished| finished.held.user.0).collect();
    let devices: Vec<_> = of().map(|finished| finished.held.device.0).collect();
    let kinds: Vec<_> = of().map(|finished| finished.held.kind.as_str()).collect();
    let outcomes: Vec<_> = of().map(|finished| finished.result.as_str()).collect();
    // A provider's words; Postgres stores no NUL.
    let reasons: Vec<_> = of()
        .map(|finished| finished.result.reason().replace('\0', ""))
        .collect();
    let waits: Vec<_> = of()
        .map(|finished| finished.result.after().map(interval))
        .collect();
    let tokens: Vec<_> = of().map(|finished| finished.token.as_str()).collect();
    let since: Vec<_> = of()
        .map(|finished| match finished.result {
            JobResult::Dead { since_millis, .. } => since_millis.map(clamp_millis),
            _ => None,
        })
        .collect();
    let are_background: Vec<_> = of()
        .map(|finished| {
            matches!(
                finished.result,
                JobResult::Sent {
                    is_background: true
                }
            )
        })
        .collect();
    let count = sqlx::query_scalar!(
        r#"select finish_push($1, $2, $3, $4, $5, $6, $7, $8, $9,
               (select array_agg(to_timestamp(s.millis / 1000.0) order by s.place)
                from unnest($10::bigint[]) with ordinality as s (millis, place)),
               $11, $12, to_timestamp($13::bigint / 1000.0)) as "count!""#,
        &conversations[..],
        &users[..],
        &devices[..],
        &kinds[..] as &[&str],
        &claims[..],
        &outcomes[..] as &[&str],
        &reasons[..],
        &waits[..] as &[Option<sqlx::postgres::types::PgInterval>],
        &tokens[..] as &[&str],
        &since[..] as &[Option<i64>],
        &are_background[..],
        interval(repeat),
        at,
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unsigned_abs())
}

/// How many of the messages that were just told of had been acknowledged by then: those
/// notifications were needless.
pub async fn count_needless(
    conn: &mut PgConnection,
    batch: &[Finished],
) -> Result<u64, StoreError> {
    let sent = || {
        let is_sent = |finished: &&Finished| matches!(finished.result, JobResult::Sent { .. });
        batch
            .iter()
            .filter(is_sent)
            .map(|finished| &finished.held)
            .filter(|held| held.kind == JobKind::Wake)
            .flat_map(|held| held.parts.iter().map(move |part| (held.device, part)))
    };
    let devices: Vec<_> = sent().map(|(device, _)| device.0).collect();
    if devices.is_empty() {
        return Ok(0);
    }
    let conversations: Vec<_> = sent().map(|(_, part)| part.conversation.0).collect();
    let sequences: Vec<_> = sent().map(|(_, part)| part.to).collect();
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
           from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as i (conversation_id, device_id, seq)
           join device_cursors d
               on d.conversation_id = i.conversation_id and d.device_id = i.device_id
           where d.delivered_seq >= i.seq"#,
        &conversations[..],
        &devices[..],
        &sequences[..],
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unsigned_abs())
}

/// What a provider says of the time may be anything: between 1970 and the year 2200.
fn clamp_millis(millis: i64) -> i64 {
    millis.clamp(0, 7_258_118_400_000)
}
