//! Jobs: what a worker takes from the store to send it.

use std::{str::FromStr, time::Duration};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::ids::{ConversationId, DeviceId, Subject, UserId},
    store::{StoreError, conversations},
};

use super::{arm::Graces, interval};

/// How many conversations one notification clears.
pub const CLEARED_MAX: usize = 20;

/// What a notification is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// There is something new.
    Wake,
    /// It has been read elsewhere.
    Clear,
}

impl JobKind {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Clear => "clear",
        }
    }
}

/// A text that names no [`JobKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job is `wake` or `clear`, not `{0}`")]
pub struct InvalidJobKind(String);

impl FromStr for JobKind {
    type Err = InvalidJobKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wake" => Ok(Self::Wake),
            "clear" => Ok(Self::Clear),
            other => Err(InvalidJobKind(other.to_owned())),
        }
    }
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Whose jobs: `provider:app:environment`.
    pub route: &'a str,
    /// How many jobs are looked at.
    pub limit: i64,
    /// How long the worker may hold them.
    pub lease: Duration,
    pub graces: Graces,
    /// Whether unread messages are counted.
    pub has_badge: bool,
    /// A device gets at most so many notifications at once, and one more per interval.
    pub budget_burst: u32,
    pub budget_interval: Duration,
    /// Messages older than this are not pushed any more.
    pub time_to_live: Duration,
}

/// What a worker holds. It ends with the lease: then whoever claims the jobs next has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub kind: JobKind,
    pub user: UserId,
    pub device: DeviceId,
    /// One conversation, or up to [`CLEARED_MAX`] to be cleared.
    pub parts: Vec<Part>,
}

/// The job of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub conversation: ConversationId,
    /// The number of this claim.
    pub claim: i64,
    /// The first and the newest message that is told of; for [`JobKind::Clear`] everything up to
    /// `to` has been read.
    pub from: i64,
    pub to: i64,
}

/// A job to be done now.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub held: Held,
    /// Stays the same for every attempt.
    pub notification_id: Uuid,
    /// Failed attempts.
    pub attempts: i32,
    pub is_urgent: bool,
    /// One of the messages names the user.
    pub is_mention: bool,
    /// When the first of the messages was committed, in milliseconds since 1970.
    pub committed_at_millis: i64,
    /// After this there is nothing to tell; none if one of the messages stays for ever.
    pub expires_at_millis: Option<i64>,
    pub address: TokenRow,
    /// What [`JobKind::Wake`] tells of.
    pub news: Option<News>,
    /// Unread messages of the user, at most 999; none unless it was asked for.
    pub badge: Option<i64>,
}

/// Where a device is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub token: String,
    pub voip_token: Option<String>,
    pub p256dh: Option<String>,
    pub auth: Option<String>,
    /// BCP 47.
    pub locale: Option<String>,
    /// In milliseconds since 1970.
    pub registered_at_millis: i64,
    /// When the last notification of the background class left, in milliseconds since 1970.
    pub background_at_millis: Option<i64>,
}

impl std::fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenRow(secret)")
    }
}

/// The newest message, and where it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub conversation_kind: conversations::Kind,
    pub title: Option<String>,
    /// The type of the message.
    pub message_type: String,
    pub sender: Subject,
    /// The first two kilobytes of the body.
    pub body: Vec<u8>,
}

/// Takes the jobs of a route that are due; the worker holds them until it finishes them, or
/// the lease ends. What has nothing to tell any more ends here, and what must wait is moved.
pub async fn claim(
    conn: &mut PgConnection,
    claim: &Claim<'_>,
    at: Option<i64>,
) -> Result<Vec<Job>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select j.conversation_id as "conversation_id!", j.user_id as "user_id!",
                  j.device_id as "device_id!", j.kind as "kind!", j.claim as "claim!",
                  j.from_seq as "from_seq!", j.to_seq as "to_seq!", j.is_urgent as "is_urgent!",
                  j.is_mention as "is_mention!",
                  (extract(epoch from j.expires_at) * 1000)::bigint as expires_at_millis,
                  (extract(epoch from j.committed_at) * 1000)::bigint as "committed_at_millis!",
                  j.attempts as "attempts!", j.notification_id as "notification_id!",
                  j.token as "token!", j.voip_token, j.p256dh, j.auth, j.locale,
                  (extract(epoch from j.registered_at) * 1000)::bigint as "registered_at_millis!",
                  (extract(epoch from j.background_at) * 1000)::bigint as background_at_millis,
                  j.conversation_kind, j.title,
                  told.type as "message_type?", sender.subject as "sender?",
                  coalesce(shown.body, ''::bytea) as body, j.badge
           from claim_push($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
                           to_timestamp($12::bigint / 1000.0)) j
           -- The newest message that is still there to be read, or the hand-over by which the user
           -- came; none if all are gone.
           left join lateral (
               select m.seq, m.type, m.sender_id, m.edit_seq from messages m
               where j.kind = 'wake' and m.conversation_id = j.conversation_id
                 and m.seq between j.from_seq and j.to_seq
                 and (is_unread(m.ordinal, m.sender_id, m.retract_seq, m.content_format, m.expires_at,
                                j.user_id, coalesce(to_timestamp($12::bigint / 1000.0), now()))
                      or is_handover(m.ordinal, m.type, m.body) and m.seq = (
                          select p.joined_seq from participants p
                          where p.conversation_id = j.conversation_id and p.user_id = j.user_id
                      ))
               order by m.seq desc limit 1
           ) told on true
           left join lateral (
               select u.subject from users u where u.user_id = told.sender_id limit 1
           ) sender on true
           -- Its newest content, if it is a text. What is left of several shows nothing.
           left join lateral (
               select substring(m.body for 2048) as body from messages m
               where told.seq = j.to_seq and m.conversation_id = j.conversation_id
                 and m.seq = coalesce(told.edit_seq, told.seq) and m.content_format = 0
               limit 1
           ) shown on true"#,
        claim.route,
        claim.limit,
        interval(claim.lease),
        interval(claim.graces.offline),
        interval(claim.graces.connected),
        interval(claim.graces.elsewhere),
        interval(claim.graces.repeat),
        f64::from(claim.budget_burst),
        interval(claim.budget_interval),
        interval(claim.time_to_live),
        claim.has_badge,
        at,
    )
    .fetch_all(conn)
    .await?;

    let mut jobs: Vec<Job> = Vec::with_capacity(rows.len());
    for row in rows {
        let job = row.into_job(claim.has_badge)?;
        let open = jobs.iter_mut().find(|earlier| {
            let held = &earlier.held;
            held.kind == JobKind::Clear
                && held.kind == job.held.kind
                && held.device == job.held.device
                && held.parts.len() < CLEARED_MAX
        });
        match open {
            Some(earlier) => earlier.held.parts.extend(job.held.parts),
            None => jobs.push(job),
        }
    }
    Ok(jobs)
}

/// Whether a route has more that is due: it did not fit, or another worker is at it.
pub async fn has_due(
    conn: &mut PgConnection,
    route: &str,
    at: Option<i64>,
) -> Result<bool, StoreError> {
    let has_due = sqlx::query_scalar!(
        r#"select exists (
               select from push_jobs j
               where j.route = $1 and j.due_at <= coalesce(to_timestamp($2::bigint / 1000.0), now())
           ) as "has_due!""#,
        route,
        at,
    )
    .fetch_one(conn)
    .await?;
    Ok(has_due)
}

/// When the next job of a route is due, in milliseconds since 1970: after `at`, since what is
/// due earlier is being claimed by somebody else, or did not fit into a claim.
pub async fn next_due_millis(
    conn: &mut PgConnection,
    route: &str,
    at: Option<i64>,
) -> Result<Option<i64>, StoreError> {
    let due = sqlx::query_scalar!(
        r#"select (extract(epoch from j.due_at) * 1000)::bigint as "due_at_millis!"
           from push_jobs j
           where j.route = $1 and j.due_at > coalesce(to_timestamp($2::bigint / 1000.0), now())
           order by j.due_at limit 1"#,
        route,
        at,
    )
    .fetch_optional(conn)
    .await?;
    Ok(due)
}

struct Row {
    conversation_id: Uuid,
    user_id: i64,
    device_id: i64,
    kind: String,
    claim: i64,
    from_seq: i64,
    to_seq: i64,
    is_urgent: bool,
    is_mention: bool,
    expires_at_millis: Option<i64>,
    committed_at_millis: i64,
    attempts: i32,
    notification_id: Uuid,
    token: String,
    voip_token: Option<String>,
    p256dh: Option<String>,
    auth: Option<String>,
    locale: Option<String>,
    registered_at_millis: i64,
    background_at_millis: Option<i64>,
    conversation_kind: Option<String>,
    title: Option<String>,
    message_type: Option<String>,
    sender: Option<String>,
    body: Option<Vec<u8>>,
    badge: Option<i64>,
}

impl Row {
    fn into_job(self, has_badge: bool) -> Result<Job, StoreError> {
        let news = match (
            self.conversation_kind,
            self.message_type,
            self.sender,
            self.body,
        ) {
            (Some(kind), Some(message_type), Some(sender), Some(body)) => Some(News {
                conversation_kind: kind.parse().map_err(StoreError::corrupt)?,
                title: self.title,
                message_type,
                sender: Subject::new(&sender).map_err(StoreError::corrupt)?,
                body,
            }),
            _ => None,
        };
        let part = Part {
            conversation: ConversationId(self.conversation_id),
            claim: self.claim,
            from: self.from_seq,
            to: self.to_seq,
        };
        Ok(Job {
            held: Held {
                kind: self.kind.parse().map_err(StoreError::corrupt)?,
                user: UserId(self.user_id),
                device: DeviceId(self.device_id),
                parts: vec![part],
            },
            notification_id: self.notification_id,
            attempts: self.attempts,
            is_urgent: self.is_urgent,
            is_mention: self.is_mention,
            committed_at_millis: self.committed_at_millis,
            expires_at_millis: self.expires_at_millis,
            address: TokenRow {
                token: self.token,
                voip_token: self.voip_token,
                p256dh: self.p256dh,
                auth: self.auth,
                locale: self.locale,
                registered_at_millis: self.registered_at_millis,
                background_at_millis: self.background_at_millis,
            },
            news,
            badge: self.badge.filter(|_| has_badge),
        })
    }
}
