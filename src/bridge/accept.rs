//! Writers: authorize, append, commit, answer, tell.
//!
//! A conversation always has the same writer, so its notices leave in the order of its
//! sequences. A writer takes all that came while its last commit ran, and appends it in one
//! statement: one round trip and one fsync for many messages. There is no linger.
//!
//! ```text
//!   queue ──▶ fold repeats ──▶ append_batch = commit ──▶ answers ──▶ notices
//!                                   ▲      │ lost connection, full disk, …
//!                                   └─ wait ┘ nothing is answered meanwhile
//! ```
//!
//! Edits, retractions and reactions have a statement of their own, `append_changes`. A batch
//! that holds both is committed in phases, in which each conversation keeps its order.

use std::{ops::Range, sync::Arc, time::Duration};

use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Accepted, Refusal,
    batch::{Batch, Incoming},
    changes::ChangeRequest,
    receipts::Receipts,
    told::Told,
    typing::{TypingRequest, Typists},
};
use crate::{
    config::StoreConfig,
    domain::{ids::ConversationId, message::NewMessage},
    store::{
        StoreError, changes,
        cursors::Moved,
        messages::{self, Appended, Outcome},
    },
    telemetry::metrics::{BridgeMetrics, PublishLabels, PublishOutcome},
};

/// What a writer does, in the order it was asked.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of it is messages; a box would be an allocation for each"
)]
#[derive(Debug)]
pub(super) enum Work {
    Append(Incoming),
    /// Tell the participants who types.
    Typing(TypingRequest),
    Change(Box<ChangeRequest>),
    /// Tell the participants where some of them stand.
    Receipts {
        conversation: ConversationId,
        moved: Vec<Moved>,
    },
    /// Tell the participants that their inboxes show something else: contents were erased.
    Erased {
        conversation: ConversationId,
    },
    /// The outbox knows of a commit that may not have been told.
    Relay {
        conversation: ConversationId,
        from: i64,
        to: i64,
    },
}

/// One writer: its connection, its queue, and what it knows of its conversations.
pub(super) struct Writer {
    pub(super) database: Database,
    pub(super) queue: mpsc::Receiver<Work>,
    pub(super) told: Told,
    pub(super) receipts: Arc<Receipts>,
    pub(super) typists: Typists,
    pub(super) config: StoreConfig,
    pub(super) participants_max: usize,
    pub(super) reactions_max: u16,
    pub(super) metrics: BridgeMetrics,
}

/// A connection that comes back.
pub(super) struct Database {
    options: PgConnectOptions,
    conn: Option<PgConnection>,
    retry: Range<Duration>,
    wait: Duration,
    metrics: BridgeMetrics,
    stop: CancellationToken,
}

impl Database {
    pub(super) fn new(
        options: PgConnectOptions,
        config: &StoreConfig,
        metrics: BridgeMetrics,
    ) -> Self {
        let retry = config.retry_min..config.retry_max;
        Self {
            options,
            conn: None,
            wait: retry.start,
            retry,
            metrics,
            stop: CancellationToken::new(),
        }
    }

    /// Gives up waiting for the store when nobody is there any more who could wait with it.
    pub(super) fn stop_with(&mut self, stop: CancellationToken) {
        self.stop = stop;
    }

    /// The connection, opened if there is none.
    pub(super) async fn conn(&mut self) -> Result<&mut PgConnection, StoreError> {
        if self.conn.is_none() {
            self.conn = Some(messages::connect_writer(&self.options).await?);
        }
        Ok(self.conn.as_mut().expect("it was opened above"))
    }

    /// After a failure that nobody waits for: begins with a new connection the next time.
    pub(super) fn gave_up(&mut self) {
        self.conn = None;
    }

    pub(super) fn worked(&mut self) {
        self.wait = self.retry.start;
    }

    /// After a transient failure: waits, longer each time, and begins with a new connection.
    /// False: the process stops, and there is no next time.
    pub(super) async fn retry_after(&mut self, error: &StoreError) -> bool {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            wait = ?self.wait,
            "the store is away; publishes wait"
        );
        self.metrics.store_failures.inc();
        self.conn = None;
        let wait = tokio::time::sleep(self.wait);
        self.wait = (self.wait * 2).min(self.retry.end);
        self.stop.run_until_cancelled(wait).await.is_some()
    }
}

impl Writer {
    /// Works until every sender is gone and all is done, or until `hard` is cancelled.
    pub(super) async fn run(mut self, hard: CancellationToken) {
        let work = async {
            while let Some(first) = self.queue.recv().await {
                let gathered = self.gather(first);
                self.perform(gathered).await;
            }
        };
        // Cutting a commit off acknowledges nothing: whoever waits repeats it.
        hard.run_until_cancelled(work).await;
    }

    /// All that waits, up to the bounds of one commit.
    fn gather(&mut self, first: Work) -> Vec<Work> {
        let mut bytes = size(&first);
        let mut gathered = vec![first];
        while gathered.len() < self.config.batch_messages_max.get()
            && bytes < self.config.batch_bytes_max
        {
            let Ok(work) = self.queue.try_recv() else {
                break;
            };
            bytes += size(&work);
            gathered.push(work);
        }
        gathered
    }

    async fn perform(&mut self, gathered: Vec<Work>) {
        let mut incoming = Vec::with_capacity(gathered.len());
        for work in gathered {
            match work {
                Work::Append(message) => incoming.push(message),
                // At once: it neither waits for a commit nor cuts a batch in two.
                Work::Typing(request) => self.typing(request).await,
                other => {
                    self.append(std::mem::take(&mut incoming)).await;
                    self.perform_other(other).await;
                }
            }
        }
        self.append(incoming).await;
    }

    async fn perform_other(&mut self, work: Work) {
        match work {
            Work::Append(_) | Work::Typing(_) => {}
            Work::Change(request) => self.change(*request).await,
            Work::Receipts {
                conversation,
                moved,
            } => {
                self.told
                    .receipts(&mut self.database, conversation, moved)
                    .await;
            }
            Work::Erased { conversation } => {
                self.told
                    .inbox_changed(&mut self.database, conversation)
                    .await;
            }
            Work::Relay {
                conversation,
                from,
                to,
            } => {
                self.told
                    .relay(&mut self.database, conversation, from, to)
                    .await;
            }
        }
    }

    async fn append(&mut self, incoming: Vec<Incoming>) {
        if incoming.is_empty() {
            return;
        }
        let batch = Batch::fold(incoming);
        let mut answers = Vec::with_capacity(batch.messages().len());
        let mut is_uncertain = false;
        for phase in batch.phases() {
            is_uncertain |= self.commit(phase, &mut answers).await;
        }
        self.count(&batch, &answers);
        self.receipts.wrote(batch.written(&answers));
        let commits = batch.answer(&answers, is_uncertain);
        self.told.commits(&mut self.database, commits).await;
    }

    /// Appends, however long the store is away. Adds the answers in order, and says whether
    /// an earlier attempt may have committed some of them.
    async fn commit(
        &mut self,
        phase: &[NewMessage],
        answers: &mut Vec<Result<Appended, Refusal>>,
    ) -> bool {
        let mut parts = vec![phase];
        let mut is_uncertain = false;
        while let Some(part) = parts.pop() {
            match self.try_commit(part).await {
                Ok(appended) => {
                    self.database.worked();
                    answers.extend(appended.into_iter().map(Ok));
                }
                Err(error) if error.is_transient() => {
                    is_uncertain = true;
                    if self.database.retry_after(&error).await {
                        parts.push(part);
                    } else {
                        answers.extend(part.iter().map(|_| Err(Refusal::Unavailable)));
                    }
                }
                // One of them is the reason: halve until it stands alone.
                Err(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a message cannot be stored"
                    );
                    answers.push(Err(Refusal::Unstorable));
                }
            }
        }
        is_uncertain
    }

    /// One statement, so its own transaction: what it answers is committed.
    async fn try_commit(&mut self, part: &[NewMessage]) -> Result<Vec<Appended>, StoreError> {
        let conn = self.database.conn().await?;
        if part.iter().any(|message| message.content.is_change()) {
            changes::append_changes(conn, part, self.reactions_max).await
        } else {
            messages::append_batch(conn, part).await
        }
    }

    fn count(&self, batch: &Batch, answers: &[Result<Appended, Refusal>]) {
        let now = Instant::now();
        for at in batch.arrivals() {
            self.metrics
                .accept_seconds
                .observe(now.duration_since(at).as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.metrics.batch_messages.observe(answers.len() as f64);
        for (outcome, count) in outcomes(answers) {
            if count > 0 {
                self.metrics
                    .publishes
                    .get_or_create(&PublishLabels { outcome })
                    .inc_by(count);
            }
        }
    }
}

fn outcomes(answers: &[Result<Appended, Refusal>]) -> [(PublishOutcome, u64); 3] {
    let (mut stored, mut repeated, mut refused) = (0, 0, 0);
    for answer in answers {
        match answer.as_ref().map(|appended| appended.outcome) {
            Ok(Outcome::Stored { .. }) => stored += 1,
            Ok(Outcome::Duplicate { .. }) => repeated += 1,
            _ => refused += 1,
        }
    }
    [
        (PublishOutcome::Stored, stored),
        (PublishOutcome::Duplicate, repeated),
        (PublishOutcome::Refused, refused),
    ]
}

fn size(work: &Work) -> usize {
    match work {
        Work::Append(incoming) => incoming.message.content.size(),
        _ => 0,
    }
}

/// What a sender is told of an answer of the store.
pub(super) fn verdict(answer: &Result<Appended, Refusal>) -> Result<Accepted, Refusal> {
    match answer.as_ref().map_err(|refusal| *refusal)?.outcome {
        Outcome::Stored { sequence, .. } => Ok(Accepted {
            sequence,
            is_duplicate: false,
        }),
        Outcome::Duplicate { sequence } => Ok(Accepted {
            sequence,
            is_duplicate: true,
        }),
        Outcome::NoConversation => Err(Refusal::NoConversation),
        Outcome::NotParticipant => Err(Refusal::NotParticipant),
        Outcome::Archived => Err(Refusal::Archived),
        Outcome::Silenced => Err(Refusal::Silenced),
        Outcome::Blocked => Err(Refusal::Blocked),
        Outcome::NoMessage => Err(Refusal::NoMessage),
        Outcome::NotAuthor => Err(Refusal::NotAuthor),
        Outcome::Gone => Err(Refusal::Gone),
        Outcome::ReactionsFull => Err(Refusal::ReactionsFull),
    }
}
