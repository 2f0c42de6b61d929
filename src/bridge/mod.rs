//! What a publish means: accept, commit, tell.
//!
//! The edges (MQTT, REST) call [`Bridge`]; news goes up to them through the [`mailbox`] of
//! each connected session.

mod accept;
pub mod attachments;
mod batch;
pub mod blocks;
mod changes;
pub mod commits;
pub mod condition;
pub mod conversations;
mod counts;
mod health;
mod idempotency;
pub mod identity;
pub mod inbox;
pub mod mailbox;
pub mod operations;
pub mod presence;
pub mod push_settings;
pub mod rates;
pub mod receipts;
mod relay;
pub mod sessions;
mod settings;
mod start;
mod told;
pub mod typing;
mod upkeep;
mod users;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    config::MessageConfig,
    domain::{
        envelope::ContentLimits,
        ids::{ConversationId, DeviceId, UserId},
        message::{NewMessage, Sequence},
        receipt::Report,
    },
    store::StoreError,
    telemetry::metrics::BridgeMetrics,
};
use accept::Work;
use attachments::Attachments;
use batch::Incoming;
use commits::Commits;
use condition::Turns;
use idempotency::Requests;
use inbox::Walks;
use mailbox::Reply;
use presence::Presence;
use push_settings::Apps;
use rates::Rates;
use receipts::{Receipts, ReportReply};
use users::Users;

pub use start::{Parts, Tasks};

/// The way into everything that is stored. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bridge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    writers: Writers,
    commits: Arc<Commits>,
    receipts: Arc<Receipts>,
    users: Users,
    apps: Apps,
    attachments: Attachments,
    presence: Arc<Presence>,
    metrics: BridgeMetrics,
    rates: Rates,
    message: MessageConfig,
    turns: Turns,
    walks: Walks,
    requests: Requests,
    /// How many earlier entries newcomers of a new group may see; none is all of them.
    history_depth: Option<i64>,
    /// How long a connection waits for the store at its begin and its end.
    patience: Duration,
    /// The name of this process among the nodes of a cluster.
    node: String,
}

/// A message that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub sequence: Sequence,
    /// It was stored before, under the same sequence.
    pub is_duplicate: bool,
}

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such conversation")]
    NoConversation,
    #[error("only participants who may write publish to a conversation")]
    NotParticipant,
    #[error("the conversation is archived: nothing is written to it")]
    Archived,
    #[error("you may not write to this conversation for now")]
    Silenced,
    #[error("you may not write to this conversation: the other one does not want to hear of you")]
    Blocked,
    #[error("there is no such message; `ref` and `reply_to` are sequences that you see")]
    NoMessage,
    #[error("the message is not yours: edit your own; owners and admins also retract")]
    NotAuthor,
    #[error("the message is retracted or has expired: nothing about it can be changed")]
    Gone,
    #[error("the message has as many sorts of reactions as it may; use one of them")]
    ReactionsFull,
    #[error("too much waits for the store; say it again later")]
    Full,
    #[error("the store cannot hold this message; the log of the server says why")]
    Unstorable,
    #[error("the store is away; repeat the message later, with the same id")]
    Unavailable,
}

/// Why a request to the bridge could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error("another connection has taken the session")]
    TakenOver,
    #[error("this device was signed out; get a new token for it")]
    SignedOut,
    #[error("only participants report how far they have got")]
    NotParticipant,
    #[error("the store is away")]
    Unavailable,
    #[error("store")]
    Store(#[from] StoreError),
}

/// The queues of the writers. A conversation always has the same one.
#[derive(Clone, Debug)]
struct Writers {
    queues: Arc<[mpsc::Sender<Work>]>,
    hasher: RandomState,
}

impl Writers {
    fn of(&self, conversation: ConversationId) -> &mpsc::Sender<Work> {
        let hash = self.hasher.hash_one(conversation);
        let place = usize::try_from(hash % self.queues.len() as u64).unwrap_or(0);
        &self.queues[place]
    }

    /// Waits for room. False: the process stops.
    async fn send(&self, conversation: ConversationId, work: Work) -> bool {
        self.of(conversation).send(work).await.is_ok()
    }
}

/// The queue of the writer is full: wait for [`Bridge::publish`].
#[derive(Debug)]
pub struct QueueFull(pub NewMessage, pub Reply);

impl Bridge {
    /// Hands a message to its writer without waiting. `at` is when it arrived.
    ///
    /// # Errors
    ///
    /// [`QueueFull`] gives it back.
    pub fn try_publish(
        &self,
        message: NewMessage,
        reply: Reply,
        at: std::time::Instant,
    ) -> Result<(), Box<QueueFull>> {
        let incoming = Incoming {
            message,
            reply,
            at: at.into(),
        };
        let queue = self.0.writers.of(incoming.message.conversation);
        queue.try_send(Work::Append(incoming)).map_err(|error| {
            let (mpsc::error::TrySendError::Full(work) | mpsc::error::TrySendError::Closed(work)) =
                error;
            match work {
                Work::Append(Incoming { message, reply, .. }) => {
                    Box::new(QueueFull(message, reply))
                }
                _ => unreachable!("what was sent comes back"),
            }
        })
    }

    /// Hands a message to its writer as soon as there is room.
    pub async fn publish(&self, message: NewMessage, reply: Reply) {
        let conversation = message.conversation;
        let incoming = Incoming {
            message,
            reply,
            at: Instant::now(),
        };
        self.0
            .writers
            .send(conversation, Work::Append(incoming))
            .await;
    }

    /// Stores a message and waits for its commit.
    pub async fn send(&self, message: NewMessage) -> Result<Accepted, Refusal> {
        let (reply, verdict) = oneshot::channel();
        self.publish(message, Reply::Request(reply)).await;
        verdict.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Stores how far a user says to have got, on a device if it is known which, and waits for
    /// the commit.
    pub async fn settle_report(
        &self,
        user: UserId,
        device: Option<DeviceId>,
        conversation: ConversationId,
        report: Report,
    ) -> Result<(), BridgeError> {
        let (reply, answer) = oneshot::channel();
        let reply = ReportReply::Request(reply);
        self.receipts()
            .report(user, device, conversation, report, reply);
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Refusal::Full | Refusal::Unavailable)) | Err(_) => Err(BridgeError::Unavailable),
            Ok(Err(_)) => Err(BridgeError::NotParticipant),
        }
    }

    /// Who is told of commits.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.0.commits
    }

    /// Where acknowledgements go.
    #[must_use]
    pub fn receipts(&self) -> &Receipts {
        &self.0.receipts
    }

    /// Who is there.
    #[must_use]
    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// How fast users may be.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// How large a message may be.
    #[must_use]
    pub fn content_limits(&self) -> ContentLimits {
        let message = &self.0.message;
        ContentLimits {
            bytes_max: message.bytes_max,
            mentions_max: message.mentions_max.into(),
            attachments_max: message.attachments_max.into(),
        }
    }

    /// How many sorts of reactions one message may have.
    #[must_use]
    pub fn reactions_max(&self) -> u16 {
        self.0.message.reactions_max
    }

    pub(crate) fn participants_max(&self) -> usize {
        self.0.message.participants_max
    }

    fn requests(&self) -> &Requests {
        &self.0.requests
    }

    fn turns(&self) -> &Turns {
        &self.0.turns
    }

    fn history_depth(&self) -> Option<i64> {
        self.0.history_depth
    }

    fn patience(&self) -> Duration {
        self.0.patience
    }

    fn users(&self) -> &Users {
        &self.0.users
    }

    fn node(&self) -> &str {
        &self.0.node
    }
}
