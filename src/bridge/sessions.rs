//! The sessions of devices: opened, changed and closed in the store; the log read for them.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::{Bridge, BridgeError, receipts::Inflight};
use crate::{
    domain::{
        format::WireFormat,
        ids::{ConversationId, DeviceId, Subject, UserId},
        message::SharedEntry,
        presence::StateReport,
    },
    store::{
        StoreError,
        cursors::{self, Coverage},
        messages,
        sessions::{self, Closing, OpenSession},
        users,
    },
};

/// A device that connects.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    pub user: UserId,
    pub client_id: &'a str,
    pub clean_start: bool,
    /// How long the session outlives its connection, in seconds; 0 ends it with it.
    pub expiry_seconds: u32,
    /// When its token was issued, in seconds since 1970.
    pub issued_at: Option<u64>,
}

/// A session that a connection holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub user: UserId,
    pub device: DeviceId,
    /// Rises with every connection: an older one changes nothing any more.
    pub generation: i64,
}

/// A session as the store remembers it.
#[derive(Debug)]
pub struct OpenedSession {
    pub held: Held,
    pub is_present: bool,
    /// As [`Bridge::persist_session`] stored them.
    pub subscriptions: Value,
    pub inflight: Inflight,
    /// The format of payloads that the device is set to.
    pub format: WireFormat,
}

/// A conversation in which a device has missed something: everything after its cursor.
pub use crate::store::cursors::Pending as Missed;

/// Which conversations' messages a session wants; none stands for all of them.
pub type Wanted = Option<Vec<ConversationId>>;

fn coverage(wanted: &Wanted) -> Coverage<'_> {
    wanted
        .as_ref()
        .map_or(Coverage::All, |only| Coverage::Only(only))
}

impl Bridge {
    /// The user of a valid token, made if there is none yet.
    pub async fn user(&self, subject: &Subject) -> Result<UserId, BridgeError> {
        if let Some(user) = self.users().get(subject) {
            return Ok(user);
        }
        let mut conn = self.pool().acquire().await.map_err(StoreError::from)?;
        let ids = users::ensure(&mut conn, std::slice::from_ref(subject)).await?;
        let user = *ids.first().ok_or(BridgeError::Unavailable)?;
        self.users().put(subject.clone(), user);
        Ok(user)
    }

    /// Opens the session of a device, or takes it over from another connection.
    pub async fn open_session(
        &self,
        connecting: Connecting<'_>,
    ) -> Result<OpenedSession, BridgeError> {
        tokio::time::timeout(self.patience(), self.receipts().caught_up())
            .await
            .map_err(|_| BridgeError::Unavailable)?;
        let mut conn = self.pool().acquire().await.map_err(StoreError::from)?;
        let Connecting {
            user,
            client_id,
            clean_start,
            expiry_seconds,
            issued_at,
        } = connecting;
        let node = self.node();
        let session = OpenSession {
            user,
            client_id,
            clean_start,
            expiry_seconds,
            node,
            issued_at: issued_at.and_then(|seconds| i64::try_from(seconds).ok()),
        };
        let opened = match sessions::open(&mut conn, &session).await {
            Err(StoreError::SignedOut) => return Err(BridgeError::SignedOut),
            opened => opened?,
        };
        Ok(OpenedSession {
            held: Held {
                user,
                device: opened.device,
                generation: opened.generation,
            },
            is_present: opened.is_present,
            subscriptions: opened.subscriptions,
            inflight: opened.inflight,
            format: opened.format,
        })
    }

    /// What a device has missed in the conversations it wants.
    pub async fn pending(&self, held: Held, wanted: &Wanted) -> Result<Vec<Missed>, BridgeError> {
        let mut conn = self.pool().acquire().await.map_err(StoreError::from)?;
        Ok(cursors::pending(&mut conn, held.device, held.user, coverage(wanted)).await?)
    }

    /// Stores changed subscriptions. Conversations that are wanted now and were not before
    /// begin with what comes next; those no longer wanted are forgotten.
    pub async fn persist_session(
        &self,
        held: Held,
        subscriptions: &Value,
        expiry_seconds: u32,
        before: &Wanted,
        wanted: &Wanted,
    ) -> Result<(), BridgeError> {
        let mut conn = self.pool().acquire().await.map_err(StoreError::from)?;
        let mut tx = conn.begin().await.map_err(StoreError::from)?;
        let Held {
            user,
            device,
            generation,
        } = held;
        let expiry = i64::from(expiry_seconds);
        if !sessions::persist(&mut tx, device, generation, subscriptions, expiry, true).await? {
            return Err(BridgeError::TakenOver);
        }
        move_coverage(&mut tx, device, user, coverage(before), coverage(wanted)).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Ends a connection at `at_millis` since 1970: its session is kept if it has an expiry, and
    /// forgotten otherwise. Its positions are written before. Many connections that end together share a write.
    /// Does not wait for a store that is away: the write is done when it is back.
    pub async fn close_session(
        &self,
        held: Held,
        at_millis: i64,
        expiry_seconds: u32,
        inflight: Inflight,
    ) {
        let is_hidden = self
            .presence()
            .disconnected(held.user, held.device, at_millis);
        let Held {
            device, generation, ..
        } = held;
        let closing = Closing {
            device,
            generation,
            keep: expiry_seconds > 0,
            expiry_seconds: i64::from(expiry_seconds),
            inflight,
            is_hidden,
        };
        let closed = self.receipts().close(closing);
        if tokio::time::timeout(self.patience(), closed).await.is_err() {
            self.receipts().fell_behind();
        }
    }

    /// What a connected device says of itself: to those who watch, and for pushes.
    pub fn say_state(&self, held: Held, report: StateReport) {
        self.receipts().state(held, report.activity);
        self.presence().state(held, report);
    }

    /// What a user says of their open streams of events; false if there is none.
    #[must_use]
    pub fn say_streams_state(&self, user: UserId, report: StateReport) -> bool {
        self.presence().streams_state(user, report)
    }

    /// A stream of events of a user is over at `at_millis` since 1970. When they were last seen is
    /// written soon, or not at all if the process dies before.
    pub fn close_stream(&self, user: UserId, stream: DeviceId, at_millis: i64) {
        if !self.presence().disconnected(user, stream, at_millis) {
            self.receipts().seen(user, at_millis);
        }
    }

    /// The part of a log after a sequence that a user may see, in order.
    pub async fn log_after(
        &self,
        user: UserId,
        conversation: ConversationId,
        after: i64,
        entries_max: usize,
    ) -> Result<Vec<SharedEntry>, BridgeError> {
        let mut conn = self.pool().acquire().await.map_err(StoreError::from)?;
        let limit = i64::try_from(entries_max).unwrap_or(i64::MAX);
        Ok(messages::read_after(&mut conn, conversation, user, after, limit).await?)
    }
}

async fn move_coverage(
    conn: &mut PgConnection,
    device: DeviceId,
    user: UserId,
    before: Coverage<'_>,
    coverage: Coverage<'_>,
) -> Result<(), StoreError> {
    cursors::forget(conn, device, coverage).await?;
    cursors::begin_at_head(conn, device, user, before, coverage).await
}
