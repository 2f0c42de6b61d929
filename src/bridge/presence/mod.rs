//! Presence: who is there, told to those who watch and may know. It exists in memory only.
//!
//! A device is in the background when it connects, and active for a while after it says so; an
//! open stream of events is a device, too.
//! Rights are judged by the store when a watch begins and before each change is told: whoever
//! shares no conversation with a user any more hears nothing more.

mod board;
mod person;
mod shown;
mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashbrown::{HashMap, HashSet};
use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{mailbox::Mailbox, sessions::Held};
use crate::{
    config::PresenceConfig,
    domain::{
        ids::{DeviceId, UserId},
        presence::{PresenceSettings, StateReport},
        topic::ME_PRESENCE,
    },
    store::{StoreError, presence},
    telemetry::metrics::BridgeMetrics,
};
use board::{Board, Due, Rules, Told};
pub use shown::{PresenceShown, Word};

/// Rights judged in one statement, unless one user has more watchers.
const PAIRS_MAX: usize = 1_000;
/// How long changes wait when the store cannot say who may know them.
const RETRY: Duration = Duration::from_secs(1);

/// The presence of all users of this process.
#[derive(Debug)]
pub struct Presence {
    board: Mutex<Board<Arc<Mailbox>>>,
    is_due: Notify,
    watch_ttl: Duration,
    watched_max: usize,
    metrics: BridgeMetrics,
}

impl Presence {
    pub(super) fn new(config: &PresenceConfig, metrics: BridgeMetrics) -> Self {
        let rules = Rules {
            active_ttl: config.active_ttl,
            watch_ttl: config.watch_ttl,
            offline_delay: config.offline_delay,
            interval: config.interval,
            watchers_max: config.watchers_max.get(),
            watches_max: config.watches_max.get(),
        };
        Self {
            board: Mutex::new(Board::new(rules)),
            is_due: Notify::new(),
            watch_ttl: config.watch_ttl,
            watched_max: config.watched_max.get(),
            metrics,
        }
    }

    /// A device is connected from now on.
    pub fn connected(&self, held: Held, mailbox: Arc<Mailbox>) {
        self.change(|board, now| board.connected(held.user, held.device, mailbox, now));
    }

    /// What a connected device says of itself.
    pub(super) fn state(&self, held: Held, report: StateReport) {
        let StateReport {
            activity,
            is_invisible,
        } = report;
        self.change(|board, now| {
            board.state((held.user, held.device), activity, is_invisible, now);
        });
    }

    /// The same of the open streams of a user; false if there is none.
    pub(super) fn streams_state(&self, user: UserId, report: StateReport) -> bool {
        let StateReport {
            activity,
            is_invisible,
        } = report;
        self.change(|board, now| board.streams_state(user, activity, is_invisible, now))
    }

    /// A device or a stream is gone since `at_millis`, counted from 1970. Whether one of the
    /// user's connections, perhaps this one, hid that it was there.
    pub(super) fn disconnected(&self, user: UserId, device: DeviceId, at_millis: i64) -> bool {
        self.change(|board, now| board.disconnected(user, device, at_millis, now))
    }

    /// The user becomes invisible, or visible again: how they went is for nobody from now on.
    pub(super) fn forget_departure(&self, user: UserId) {
        self.change(|board, now| board.forget_departure(user, now));
    }

    /// A stream of events is open from now on, until [`Bridge::close_stream`]; answers what
    /// to name as the device that it is.
    ///
    /// [`Bridge::close_stream`]: super::Bridge::close_stream
    pub fn stream_opened(&self, user: UserId, mailbox: Arc<Mailbox>) -> DeviceId {
        self.change(|board, now| board.stream_opened(user, mailbox, now))
    }

    /// For how long a watch lasts.
    #[must_use]
    pub fn watch_ttl(&self) -> Duration {
        self.watch_ttl
    }

    /// What a user lets others know has changed in the store.
    pub fn settings_changed(&self, user: UserId) {
        self.change(|board, now| board.must_look(user, now));
    }

    /// Tells what changes until `stop` is cancelled.
    pub(super) async fn run(self: Arc<Self>, pool: PgPool, stop: CancellationToken) {
        loop {
            let next = self.lock().next_due();
            let wait = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.is_due.notified() => {}
                () = wait => {}
            }
            self.tell_due(&pool).await;
        }
    }

    async fn tell_due(&self, pool: &PgPool) {
        let due = self.lock().due(PAIRS_MAX, now());
        if due.is_empty() {
            return;
        }
        let judged = match judge(pool, &due).await {
            Ok(judged) => judged,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "changes of presence wait"
                );
                self.metrics.store_failures.inc();
                let mut board = self.lock();
                let later = now() + RETRY;
                for due in &due {
                    board.postpone(due, later);
                }
                return;
            }
        };
        let nobody = Judged::default();
        for due in &due {
            let Judged { settings, may_see } = judged.get(&due.target).unwrap_or(&nobody);
            let mut board = self.lock();
            let told = board.tell(due, *settings, may_see, now());
            self.count_watches(&board);
            drop(board);
            self.send(told);
        }
    }

    fn send(&self, told: Vec<Told<Arc<Mailbox>>>) {
        for told in told {
            let (mailbox, payload) = PresenceShown::payload(told);
            if mailbox.mine(ME_PRESENCE, &payload) {
                self.metrics.presence_told.inc();
            } else {
                self.metrics.events_dropped.inc();
            }
        }
    }

    /// Changes the board, and wakes the task if it must look earlier than it would.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Board<Arc<Mailbox>>, std::time::Instant) -> T,
    ) -> T {
        let mut board = self.lock();
        let before = board.next_due();
        let result = change(&mut board, now());
        let after = board.next_due();
        self.count_watches(&board);
        drop(board);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.is_due.notify_one();
        }
        result
    }

    fn count_watches(&self, board: &Board<Arc<Mailbox>>) {
        let watches = i64::try_from(board.watches()).unwrap_or(i64::MAX);
        self.metrics.watches.set(watches);
    }

    fn lock(&self) -> MutexGuard<'_, Board<Arc<Mailbox>>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What the store says of one who is watched. By default nobody may know anything.
#[derive(Debug)]
struct Judged {
    settings: PresenceSettings,
    may_see: HashSet<UserId>,
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            settings: PresenceSettings {
                is_invisible: true,
                tells_last_seen: false,
            },
            may_see: HashSet::new(),
        }
    }
}

async fn judge(pool: &PgPool, due: &[Due]) -> Result<HashMap<UserId, Judged>, StoreError> {
    let pairs = due.iter().flat_map(|due| {
        let watchers = due.watchers.iter();
        watchers.map(|watcher| (*watcher, due.target))
    });
    let pairs: Vec<_> = pairs.collect();
    let mut conn = pool.acquire().await?;
    let mut judged: HashMap<UserId, Judged> = HashMap::new();
    for pair in presence::judge(&mut conn, &pairs).await? {
        let known = judged.entry(pair.target).or_default();
        known.settings = pair.settings;
        if pair.may_see {
            known.may_see.insert(pair.watcher);
        }
    }
    Ok(judged)
}
