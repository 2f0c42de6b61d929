//! Acknowledgements become cursors and receipts.
//!
//! Positions gather in memory and are written together, about every second, at once when
//! somebody waits. Losing them repeats deliveries; it never skips one: cursors only rise.

mod waiting;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Refusal, sessions::Held};
use crate::{
    domain::{
        ids::{ConversationId, DeviceId, UserId},
        message::{Position, Sequence},
        push::Activity,
        receipt::Report,
    },
    store::{
        StoreError,
        conversations::UNREAD_MAX,
        cursors::{self, Moved, Settled},
        presence,
        sessions::{self, Closing, Sign},
    },
    telemetry::metrics::BridgeMetrics,
};
pub use waiting::ReportReply;
use waiting::{Waiting, answer, give_up, reports};

/// Whose position: a device's, or what a user says without one.
type Key = (UserId, Option<DeviceId>, ConversationId);

/// Packet ids in flight, as the store keeps them; 0 is acknowledged and not settled.
pub type Inflight = Vec<(u16, Position)>;

/// Sessions closed in one statement.
const CLOSING_MAX: usize = 500;

/// Positions on their way to the store.
#[derive(Debug)]
pub struct Receipts {
    gathered: Mutex<Gathered>,
    is_urgent: Notify,
    /// Something was not written in time: sessions are not opened before it is.
    is_behind: AtomicBool,
    positions_max: usize,
    metrics: BridgeMetrics,
}

#[derive(Debug, Default)]
struct Gathered {
    positions: HashMap<Key, Reached>,
    /// Positions that are being written, and come back if they are not.
    writing: usize,
    /// Who has written, and up to where: for [`cursors::read_by_writing`].
    written: HashMap<(UserId, ConversationId), i64>,
    inflight: HashMap<DeviceId, (i64, Inflight)>,
    signs: HashMap<DeviceId, Sign>,
    /// When a stream of users closed last, in milliseconds since 1970.
    seen: HashMap<UserId, i64>,
    closing: Vec<Closing>,
    waiting: Vec<Waiting>,
    /// Positions were written and no answer came: they may be stored, and nobody was told.
    is_uncertain: bool,
    /// Some of it should have been written before.
    is_late: bool,
    /// Nothing is written any more: the process stops.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    delivered: i64,
    read: i64,
}

impl Reached {
    fn raise(&mut self, other: Self) {
        self.delivered = self.delivered.max(other.delivered);
        self.read = self.read.max(other.read);
    }
}

impl Receipts {
    pub(super) fn new(positions_max: usize, metrics: BridgeMetrics) -> Self {
        Self {
            gathered: Mutex::default(),
            is_urgent: Notify::new(),
            is_behind: AtomicBool::new(false),
            positions_max,
            metrics,
        }
    }

    /// A device has acknowledged these, in order. Without a `device` only the user's own
    /// position moves: its session ends with the connection.
    pub fn settled(
        &self,
        user: UserId,
        device: Option<DeviceId>,
        positions: impl Iterator<Item = Position>,
    ) {
        let mut gathered = self.lock();
        for position in positions {
            let delivered = position.sequence.get();
            let reached = Reached { delivered, read: 0 };
            let key = (user, device, position.conversation);
            // What has no room is delivered again.
            self.gather(&mut gathered, key, reached);
        }
    }

    /// Users have written. What is forgotten of it is noted with their next message.
    pub(super) fn wrote(&self, messages: impl Iterator<Item = (UserId, ConversationId, Sequence)>) {
        let mut late = messages
            .filter(|(.., sequence)| sequence.get() >= UNREAD_MAX)
            .peekable();
        if late.peek().is_none() {
            return;
        }
        let written = &mut self.lock().written;
        for (user, id, sequence) in late {
            if written.len() < self.positions_max || written.contains_key(&(user, id)) {
                written.insert((user, id), sequence.get());
            }
        }
    }

    /// What a connected device has in flight, should the process die.
    pub fn remember(&self, device: DeviceId, generation: i64, inflight: Inflight) {
        self.lock().inflight.insert(device, (generation, inflight));
    }

    /// What a device says of itself. Who goes away is believed at once.
    pub fn state(&self, held: Held, activity: Activity) {
        let (activity, is_suspect) = (Some(activity), None);
        self.sign(held, activity, is_suspect);
        if activity == Some(Activity::Away) {
            self.is_urgent.notify_one();
        }
    }

    /// Whether a device that took messages is silent for too long.
    pub fn suspect(&self, held: Held, is_suspect: bool) {
        self.sign(held, None, Some(is_suspect));
        self.is_urgent.notify_one();
    }

    /// A stream of a user closed then, in milliseconds since 1970. What has no room is forgotten.
    pub(super) fn seen(&self, user: UserId, at_millis: i64) {
        gather_seen(&mut self.lock().seen, user, at_millis, self.positions_max);
    }

    fn sign(&self, held: Held, activity: Option<Activity>, is_suspect: Option<bool>) {
        let sign = Sign {
            device: held.device,
            generation: held.generation,
            activity,
            is_suspect,
        };
        gather_sign(&mut self.lock().signs, sign);
    }

    /// A connection could not wait until its session was closed: the next ones must.
    pub(super) fn fell_behind(&self) {
        self.lock().is_late = true;
        self.is_behind.store(true, Ordering::SeqCst);
    }

    /// Waits, after an outage, until what was gathered during it is stored.
    pub(super) async fn caught_up(&self) {
        if self.is_behind.load(Ordering::SeqCst) {
            self.flushed().await;
        }
    }

    /// A user says how far they have got, on a `device` if it is known which; the answer comes
    /// when it is stored, or at once if it will not be.
    pub fn report(
        &self,
        user: UserId,
        device: Option<DeviceId>,
        conversation: ConversationId,
        report: Report,
        reply: ReportReply,
    ) {
        let delivered = report.delivered.map_or(0, Sequence::get);
        let read = report.read.map_or(0, Sequence::get);
        let mut gathered = self.lock();
        if gathered.is_over {
            drop(gathered);
            return reply.send(conversation, Err(Refusal::Unavailable));
        }
        let mut is_kept = true;
        if read > 0 {
            let reached = Reached { delivered: 0, read };
            is_kept &= self.gather(&mut gathered, (user, device, conversation), reached);
        }
        if delivered > 0 {
            // Not of the device: its cursor moves with what it acknowledges, and only so.
            let reached = Reached { delivered, read: 0 };
            is_kept &= self.gather(&mut gathered, (user, None, conversation), reached);
        }
        if !is_kept {
            drop(gathered);
            return reply.send(conversation, Err(Refusal::Full));
        }
        gathered.waiting.push(Waiting::Report {
            user,
            conversation,
            reply,
        });
        drop(gathered);
        self.is_urgent.notify_one();
    }

    /// Closes a session, and waits until that and all that was gathered before is stored.
    pub(super) async fn close(&self, closing: Closing) {
        {
            let mut gathered = self.lock();
            gathered.inflight.remove(&closing.device);
            gathered.closing.push(closing);
        }
        self.flushed().await;
    }

    /// Waits until all that was gathered before is stored.
    async fn flushed(&self) {
        let (done, is_done) = oneshot::channel();
        {
            let mut gathered = self.lock();
            if gathered.is_over {
                return;
            }
            gathered.waiting.push(Waiting::Flush(done));
        }
        self.is_urgent.notify_one();
        // An error means that the process stops without the store: nothing more to wait for.
        drop(is_done.await);
    }

    /// Writes what gathers until `stop` is cancelled, and once more then; who waits afterwards
    /// is refused. `told` is given the standings that rose.
    pub(super) async fn run<F, R>(
        &self,
        pool: PgPool,
        interval: Duration,
        stop: CancellationToken,
        mut told: F,
    ) where
        F: FnMut(Vec<Moved>) -> R,
        R: Future<Output = ()>,
    {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.is_urgent.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
            let is_last = stop.is_cancelled();
            let mut moved = Vec::new();
            let flushed = self.flush(&pool, &mut moved).await;
            // Also if the rest failed: the next flush finds that nothing of it rises.
            told(moved).await;
            if let Err(error) = flushed {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "positions are kept until the store is back"
                );
                self.metrics.store_failures.inc();
                if !is_last {
                    tokio::time::sleep(interval).await;
                }
            }
            if is_last {
                return self.end();
            }
        }
    }

    /// Nobody waits for what is not written any more.
    fn end(&self) {
        let mut gathered = self.lock();
        gathered.is_over = true;
        let waiting = std::mem::take(&mut gathered.waiting);
        drop(gathered);
        give_up(waiting);
    }

    /// Writes what has gathered. What of it is stored is in `moved`, also if the rest is not.
    async fn flush(&self, pool: &PgPool, moved: &mut Vec<Moved>) -> Result<(), StoreError> {
        let mut gathered = {
            let mut later = self.lock();
            let gathered = std::mem::take(&mut *later);
            later.writing = gathered.positions.len();
            gathered
        };
        match write(pool, &mut gathered, moved).await {
            Ok(take_part) => {
                let mut later = self.lock();
                later.writing = 0;
                self.is_behind.store(later.is_late, Ordering::SeqCst);
                drop(later);
                answer(gathered.waiting, &take_part);
                Ok(())
            }
            Err(error) => {
                self.put_back(gathered);
                Err(error)
            }
        }
    }

    fn put_back(&self, older: Gathered) {
        let mut gathered = self.lock();
        gathered.writing = 0;
        for (key, reached) in older.positions {
            // There is room for them: it was kept.
            self.gather(&mut gathered, key, reached);
        }
        for (device, inflight) in older.inflight {
            gathered.inflight.entry(device).or_insert(inflight);
        }
        let newer = std::mem::take(&mut gathered.signs);
        gathered.signs = older.signs;
        for sign in newer.into_values() {
            gather_sign(&mut gathered.signs, sign);
        }
        for (user, at_millis) in older.seen {
            gather_seen(&mut gathered.seen, user, at_millis, self.positions_max);
        }
        let newer = std::mem::replace(&mut gathered.closing, older.closing);
        gathered.closing.extend(newer);
        gathered.is_uncertain |= older.is_uncertain;
        gathered.is_late = true;
        self.is_behind.store(true, Ordering::SeqCst);
        let newer = std::mem::replace(&mut gathered.waiting, older.waiting);
        gathered.waiting.extend(newer);
    }

    /// Whether there is room for it.
    fn gather(&self, gathered: &mut Gathered, key: Key, reached: Reached) -> bool {
        let count = gathered.positions.len();
        if let Some(known) = gathered.positions.get_mut(&key) {
            known.raise(reached);
        } else if count + gathered.writing < self.positions_max.saturating_mul(10) {
            gathered.positions.insert(key, reached);
            if count == self.positions_max {
                self.is_urgent.notify_one();
            }
        } else {
            // The store has been away for long.
            self.metrics.positions_dropped.inc();
            return false;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last word of a device counts, and nothing that an older connection of it said.
fn gather_sign(signs: &mut HashMap<DeviceId, Sign>, newer: Sign) {
    let known = signs.entry(newer.device).or_insert(newer);
    if known.generation < newer.generation {
        *known = newer;
    } else if known.generation == newer.generation {
        known.activity = newer.activity.or(known.activity);
        known.is_suspect = newer.is_suspect.or(known.is_suspect);
    }
}

/// The latest counts.
fn gather_seen(seen: &mut HashMap<UserId, i64>, user: UserId, at_millis: i64, users_max: usize) {
    if let Some(known) = seen.get_mut(&user) {
        *known = at_millis.max(*known);
    } else if seen.len() < users_max {
        seen.insert(user, at_millis);
    }
}

/// Answers, for each report that waits, whether its user takes part.
async fn write(
    pool: &PgPool,
    gathered: &mut Gathered,
    moved: &mut Vec<Moved>,
) -> Result<Vec<bool>, StoreError> {
    let mut take_part = Vec::new();
    let reports = reports(&gathered.waiting);
    let is_empty = gathered.positions.is_empty()
        && gathered.written.is_empty()
        && gathered.inflight.is_empty()
        && gathered.signs.is_empty()
        && gathered.seen.is_empty()
        && gathered.closing.is_empty()
        && reports.is_empty();
    if is_empty {
        return Ok(take_part);
    }
    let mut conn = pool.acquire().await?;
    if !reports.is_empty() {
        take_part = cursors::take_part(&mut conn, &reports).await?;
    }
    let mut settled: Vec<_> = gathered
        .positions
        .iter()
        .map(|(key, reached)| row(*key, *reached))
        .collect();
    if !gathered.written.is_empty() {
        let written = gathered.written.iter();
        let written: Vec<_> = written.map(|(key, seq)| (key.0, key.1, *seq)).collect();
        settled.extend(cursors::read_by_writing(&mut conn, &written).await?);
    }
    if !settled.is_empty() {
        let was_uncertain = std::mem::replace(&mut gathered.is_uncertain, true);
        *moved = cursors::settle(&mut conn, &settled).await?;
        if was_uncertain {
            // What rose the last time does not rise again.
            *moved = cursors::settled(&mut conn, &settled).await?;
        }
        gathered.is_uncertain = false;
    }
    let inflight: Vec<_> = gathered
        .inflight
        .iter()
        .map(|(device, (generation, inflight))| (*device, *generation, inflight.clone()))
        .collect();
    if !inflight.is_empty() {
        sessions::save_inflight(&mut conn, &inflight).await?;
    }
    let signs: Vec<_> = gathered.signs.values().copied().collect();
    if !signs.is_empty() {
        sessions::save_signs(&mut conn, &signs).await?;
    }
    if !gathered.seen.is_empty() {
        let seen: Vec<_> = gathered
            .seen
            .iter()
            .map(|(user, at)| (*user, *at))
            .collect();
        presence::save_seen(&mut conn, &seen).await?;
    }
    for closing in gathered.closing.chunks(CLOSING_MAX) {
        sessions::close(&mut conn, closing).await?;
    }
    Ok(take_part)
}

fn row((user, device, conversation): Key, reached: Reached) -> Settled {
    let some = |number: i64| (number > 0).then_some(number);
    let (delivered, read) = (some(reached.delivered), some(reached.read));
    Settled {
        device,
        user,
        conversation,
        delivered,
        read,
    }
}

#[cfg(test)]
mod tests;
