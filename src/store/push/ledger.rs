//! The ledger: why a device was woken, or was not.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;

use crate::{
    domain::{
        ids::{ConversationId, DeviceId, UserId},
        message::Sequence,
    },
    store::StoreError,
};

use super::{interval, jobs::JobKind};

/// How many decisions about one message are shown.
const DECISIONS_MAX: i64 = 1000;

/// Why a message did, or did not, wake a device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub device: DeviceId,
    /// The MQTT client id.
    pub client_id: String,
    /// `provider:app:environment`; none without a token.
    pub route: Option<String>,
    /// What was decided, oldest first.
    pub decisions: Vec<Decision>,
    /// What is still to be done.
    pub waiting: Option<Waiting>,
    /// If nothing was decided and nothing waits.
    pub silence: Option<Silence>,
}

/// A row of the ledger. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub kind: JobKind,
    pub from: i64,
    pub to: i64,
    /// `sent`, `cancelled`, `suppressed`, `postponed`, `retry`, `dropped` or `dead`.
    pub outcome: String,
    /// The rule, or what the provider answered.
    pub reason: String,
    pub route: Option<String>,
    pub notification_id: Option<sqlx::types::Uuid>,
    pub committed_at_millis: i64,
    pub claimed_at_millis: Option<i64>,
    pub decided_at_millis: i64,
}

/// A job that is not done. The time is in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `armed`, `in_flight` or `backoff`.
    pub state: String,
    pub due_at_millis: i64,
    pub attempts: i32,
    /// The rule that makes it wait beyond its grace.
    pub postponed: Option<String>,
}

/// Why there is no decision about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There is no such entry, or it says who came or went.
    NotMessage,
    /// It was said before the user came, or after they left.
    NotVisible,
    OwnMessage,
    /// Nothing is known by which the device could be woken.
    NoToken,
    /// The device acknowledged it before a push was due.
    Acknowledged,
    /// The user read it before a push was due.
    Read,
    /// The grace is not over, or the decision has left the ledger.
    NotArmed,
}

impl Silence {
    /// As it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotMessage => "not_a_message",
            Self::NotVisible => "not_visible",
            Self::OwnMessage => "own_message",
            Self::NoToken => "no_token",
            Self::Acknowledged => "acknowledged_before_due",
            Self::Read => "read_before_due",
            Self::NotArmed => "not_armed",
        }
    }
}

/// What became of a message on each device of a user.
pub async fn explain(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    sequence: Sequence,
) -> Result<Vec<Explanation>, StoreError> {
    let silence = silence(conn, conversation, user, sequence).await?;
    let mut decisions = decisions(conn, conversation, user, sequence).await?;
    let rows = sqlx::query!(
        r#"select d.device_id, d.client_id, t.route as "route?", t.dead_since is null as "is_alive!",
                  c.delivered_seq as "delivered_seq?", j.state as "state?",
                  (extract(epoch from j.due_at) * 1000)::bigint as due_at_millis,
                  j.attempts as "attempts?", j.postponed
           from devices d
           left join push_tokens t on t.device_id = d.device_id
           left join device_cursors c on c.conversation_id = $1 and c.device_id = d.device_id
           left join push_jobs j on j.conversation_id = $1 and j.user_id = $2
               and j.device_id = d.device_id and j.kind = 'wake' and j.due_at is not null
               and $3 between j.from_seq and j.to_seq
           where d.user_id = $2
           order by d.device_id"#,
        conversation.0,
        user.0,
        sequence.get(),
    )
    .fetch_all(conn)
    .await?;
    let explanations = rows.into_iter().map(|row| {
        let device = DeviceId(row.device_id);
        let decisions = decisions.remove(&device).unwrap_or_default();
        let waiting = match (row.state, row.due_at_millis, row.attempts) {
            (Some(state), Some(due_at_millis), Some(attempts)) => Some(Waiting {
                state,
                due_at_millis,
                attempts,
                postponed: row.postponed,
            }),
            _ => None,
        };
        let is_acknowledged = row.delivered_seq >= Some(sequence.get());
        let silence = match silence {
            _ if !decisions.is_empty() || waiting.is_some() => None,
            None | Some(Silence::Read) if row.route.is_none() => Some(Silence::NoToken),
            None if is_acknowledged => Some(Silence::Acknowledged),
            None if !row.is_alive => Some(Silence::NoToken),
            None => Some(Silence::NotArmed),
            some => some,
        };
        Explanation {
            device,
            client_id: row.client_id,
            route: row.route,
            decisions,
            waiting,
            silence,
        }
    });
    Ok(explanations.collect())
}

/// What keeps all devices of the user silent.
async fn silence(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    sequence: Sequence,
) -> Result<Option<Silence>, StoreError> {
    let row = sqlx::query!(
        r#"select m.sender_id, m.ordinal, p.read_seq as "read_seq?",
                  coalesce(m.seq between p.joined_seq and coalesce(p.left_seq, m.seq), false)
                      as "is_visible!"
           from messages m
           left join participants p on p.conversation_id = m.conversation_id and p.user_id = $2
           where m.conversation_id = $1 and m.seq = $3"#,
        conversation.0,
        user.0,
        sequence.get(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row.filter(|row| row.ordinal.is_some()) else {
        return Ok(Some(Silence::NotMessage));
    };
    Ok(if !row.is_visible {
        Some(Silence::NotVisible)
    } else if row.sender_id == user.0 {
        Some(Silence::OwnMessage)
    } else if row.read_seq >= Some(sequence.get()) {
        Some(Silence::Read)
    } else {
        None
    })
}

async fn decisions(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    sequence: Sequence,
) -> Result<HashMap<DeviceId, Vec<Decision>>, StoreError> {
    let rows = sqlx::query!(
        r#"select device_id, kind, from_seq, to_seq, outcome, reason, route, notification_id,
                  (extract(epoch from committed_at) * 1000)::bigint as "committed_at_millis!",
                  (extract(epoch from claimed_at) * 1000)::bigint as claimed_at_millis,
                  (extract(epoch from decided_at) * 1000)::bigint as "decided_at_millis!"
           from push_attempts
           where conversation_id = $1 and user_id = $2 and $3 between from_seq and to_seq
           order by attempt_id limit $4"#,
        conversation.0,
        user.0,
        sequence.get(),
        DECISIONS_MAX,
    )
    .fetch_all(conn)
    .await?;
    let mut decisions: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        let decision = Decision {
            kind: row.kind.parse().map_err(StoreError::corrupt)?,
            from: row.from_seq,
            to: row.to_seq,
            outcome: row.outcome,
            reason: row.reason,
            route: row.route,
            notification_id: row.notification_id,
            committed_at_millis: row.committed_at_millis,
            claimed_at_millis: row.claimed_at_millis,
            decided_at_millis: row.decided_at_millis,
        };
        decisions
            .entry(DeviceId(row.device_id))
            .or_default()
            .push(decision);
    }
    Ok(decisions)
}

/// Deletes decisions older than `retention`, at most `limit`; how many it were.
pub async fn prune(
    conn: &mut PgConnection,
    retention: Duration,
    limit: i64,
    at: Option<i64>,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from push_attempts a using (
             select o.conversation_id, o.user_id, o.attempt_id from push_attempts o
             where o.decided_at < coalesce(to_timestamp($3::bigint / 1000.0), now()) - $1::interval
             order by o.decided_at limit $2
         ) old
         where a.conversation_id = old.conversation_id and a.user_id = old.user_id
           and a.attempt_id = old.attempt_id",
        interval(retention),
        limit,
        at,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
