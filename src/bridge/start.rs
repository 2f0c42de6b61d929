//! Puts the bridge together: writers, the flush of positions, the outbox relay.

use std::{hash::RandomState, sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Bridge, Inner, Writers,
    accept::{Database, Work, Writer},
    attachments::Attachments,
    commits::Commits,
    condition::Turns,
    counts::{Marks, Telling},
    idempotency::Requests,
    inbox::{Walks, bases::Bases, patches::Patches},
    presence::Presence,
    push_settings::Apps,
    rates::Rates,
    receipts::Receipts,
    relay::Relay,
    told::Told,
    typing::Typists,
    upkeep::Upkeep,
    users::Users,
};
use crate::{
    config::{
        ConversationConfig, InboxConfig, LimitsConfig, MessageConfig, PresenceConfig, PushConfig,
        StoreConfig,
    },
    store::{StoreError, cursors::Moved, idempotency, sessions},
    telemetry::metrics::BridgeMetrics,
};

/// Expired sessions, and old idempotency keys, removed by one statement.
const EXPIRED_MAX: i64 = 1_000;
/// How many flush intervals lie between two looks for what has expired.
const EXPIRED_EVERY: u32 = 60;

/// What the bridge is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub pool: PgPool,
    /// For the writers, which have their own connections.
    pub options: PgConnectOptions,
    pub store: StoreConfig,
    pub message: MessageConfig,
    pub presence: PresenceConfig,
    pub conversation: ConversationConfig,
    pub attachments: Attachments,
    pub inbox: InboxConfig,
    pub push: PushConfig,
    pub limits: LimitsConfig,
    pub metrics: BridgeMetrics,
    /// The name of this process among the nodes of a cluster.
    pub node: String,
}

/// What runs beside the bridge. Spawn each; they end in the order of their stop.
pub struct Tasks {
    writers: Vec<Writer>,
    relay: Relay,
    patches: Patches,
    telling: Telling,
    receipts: Arc<Receipts>,
    presence: Arc<Presence>,
    queues: Writers,
    pool: PgPool,
    store: StoreConfig,
    upkeep: Upkeep,
}

impl Bridge {
    /// Builds the bridge and what must run beside it. Sessions that this node held when it
    /// was killed count as disconnected from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store is away.
    pub async fn open(parts: Parts) -> Result<(Self, Tasks), StoreError> {
        let mut conn = parts.pool.acquire().await?;
        sessions::disconnect_node(&mut conn, &parts.node).await?;
        let opened = idempotency::open(&mut conn).await?;
        drop(conn);
        let commits = Arc::new(Commits::new(parts.metrics.inbox_patches_dropped.clone()));
        let marks = Arc::new(Marks::new(parts.metrics.clone()));
        let positions_max = parts.store.flush_positions_max;
        let receipts = Arc::new(Receipts::new(positions_max, parts.metrics.clone()));
        let (queues, writers) = parts.writers(&commits, &marks, &receipts);
        let Parts {
            pool,
            store,
            message,
            presence,
            conversation,
            attachments,
            inbox,
            push,
            limits,
            metrics,
            node,
            ..
        } = parts;
        let rates = Rates::new(&limits, metrics.clone());
        let relay = Relay {
            pool: pool.clone(),
            writers: queues.clone(),
            commits: commits.clone(),
            interval: store.relay_interval,
            metrics: metrics.clone(),
        };
        let patches = Patches {
            pool: pool.clone(),
            commits: commits.clone(),
            interval: inbox.patch_interval,
            metrics: metrics.clone(),
            bases: Bases::default(),
        };
        let telling = Telling::new(
            pool.clone(),
            commits.clone(),
            marks,
            message.receipts_interval,
        );
        let upkeep = Upkeep::new(&pool, &queues, &commits, message.erase_interval);
        let patience = store.acquire_timeout;
        let presence = Arc::new(Presence::new(&presence, metrics.clone()));
        let tasks = Tasks {
            writers,
            relay,
            patches,
            telling,
            receipts: receipts.clone(),
            presence: presence.clone(),
            queues: queues.clone(),
            pool: pool.clone(),
            store,
            upkeep,
        };
        let bridge = Self(Arc::new(Inner {
            pool,
            writers: queues,
            commits,
            receipts,
            users: Users::default(),
            apps: Apps::new(&push),
            attachments,
            presence,
            metrics,
            rates,
            message,
            turns: Turns::default(),
            walks: Walks::default(),
            requests: Requests::new(opened),
            history_depth: conversation.history_depth.entries(),
            patience,
            node,
        }));
        Ok((bridge, tasks))
    }
}

impl Parts {
    /// The writers, and the ways to them.
    fn writers(
        &self,
        commits: &Arc<Commits>,
        marks: &Arc<Marks>,
        receipts: &Arc<Receipts>,
    ) -> (Writers, Vec<Writer>) {
        let receipts_max = self.message.receipts_participants_max;
        let (mut queues, mut writers) = (Vec::new(), Vec::new());
        for _ in 0..self.store.writers.get() {
            let (sender, queue) = mpsc::channel(self.store.queue_messages_max.get());
            queues.push(sender);
            let metrics = self.metrics.clone();
            writers.push(Writer {
                database: Database::new(self.options.clone(), &self.store, metrics.clone()),
                queue,
                typists: Typists::new(&self.presence, receipts_max),
                told: Told::new(
                    commits.clone(),
                    receipts_max,
                    marks.clone(),
                    metrics.clone(),
                ),
                receipts: receipts.clone(),
                config: self.store.clone(),
                participants_max: self.message.participants_max,
                reactions_max: self.message.reactions_max,
                metrics,
            });
        }
        let queues = Writers {
            queues: queues.into(),
            hasher: RandomState::new(),
        };
        (queues, writers)
    }
}

impl Tasks {
    /// Hands every task to `spawn`. `stop` is cancelled when no device is connected any
    /// more: the relay and the flush end, and with the last sender the writers.
    /// Whoever waits for the store then is
    /// told so. `hard` ends the writers at once.
    pub fn spawn(
        self,
        stop: &CancellationToken,
        hard: &CancellationToken,
        mut spawn: impl FnMut(&'static str, futures_util::future::BoxFuture<'static, ()>),
    ) {
        for mut writer in self.writers {
            writer.database.stop_with(stop.clone());
            spawn("writer", Box::pin(writer.run(hard.clone())));
        }
        spawn("relay", Box::pin(self.relay.run(stop.clone())));
        let presence = self.presence.run(self.pool.clone(), stop.clone());
        spawn("presence", Box::pin(presence));
        let commits = self.patches.commits.clone();
        spawn("inbox patches", Box::pin(self.patches.run(stop.clone())));
        spawn("counts", Box::pin(self.telling.run(stop.clone())));
        let (receipts, pool, interval) = (self.receipts, self.pool, self.store.flush_interval);
        spawn(
            "expired sessions",
            Box::pin(remove_expired(
                pool.clone(),
                interval * EXPIRED_EVERY,
                stop.clone(),
            )),
        );
        spawn("expired contents", Box::pin(self.upkeep.run(stop.clone())));
        let (queues, stop) = (self.queues, stop.clone());
        spawn(
            "receipts",
            Box::pin(async move {
                let told = |moved| announce(queues.clone(), commits.clone(), moved);
                receipts.run(pool, interval, stop, told).await;
            }),
        );
    }
}

/// Receipts leave through the writer of their conversation, which knows the participants.
async fn announce(queues: Writers, commits: Arc<Commits>, mut moved: Vec<Moved>) {
    let read = moved.iter().filter(|moved| moved.has_read);
    let rows = read.map(|moved| (moved.user, moved.conversation));
    for (user, conversation) in rows {
        commits.inbox_changed(user, conversation);
    }
    moved.sort_unstable_by_key(|moved| moved.conversation);
    for moved in moved.chunk_by(|one, other| one.conversation == other.conversation) {
        let conversation = moved[0].conversation;
        let moved = moved.to_vec();
        queues
            .send(
                conversation,
                Work::Receipts {
                    conversation,
                    moved,
                },
            )
            .await;
    }
}

async fn remove_expired(pool: PgPool, interval: Duration, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(interval))
        .await
        .is_some()
    {
        let removed = async {
            let mut conn = pool.acquire().await?;
            while idempotency::remove_old(&mut conn, EXPIRED_MAX).await? > 0 {}
            let mut total = 0;
            loop {
                match sessions::remove_expired(&mut conn, EXPIRED_MAX).await? {
                    0 => return Ok::<_, StoreError>(total),
                    removed => total += removed,
                }
            }
        };
        match removed.await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "sessions have expired"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "expired sessions stay"
                );
            }
        }
    }
}
