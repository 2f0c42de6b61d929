//! The session of a connection that is still being made.
//!
//! Once the store has opened it, it counts as connected, whether anybody still waits for it or not. So it
//! is opened by a task of its own, and closed again if the connection does not come about.

use tokio_util::task::TaskTracker;

use crate::bridge::{
    Bridge, BridgeError,
    receipts::Inflight,
    sessions::{Connecting, Held, OpenedSession},
};

/// Closes the session again, unless the connection [came about](Self::done).
pub(super) struct Opening {
    bridge: Bridge,
    /// A stop waits for these.
    tasks: TaskTracker,
    held: Held,
    expiry_seconds: u32,
    /// As it was left: it is left so again.
    inflight: Inflight,
    is_done: bool,
}

/// Opens the session of a device.
pub(super) async fn open(
    bridge: &Bridge,
    tasks: &TaskTracker,
    connecting: Connecting<'_>,
) -> Result<(OpenedSession, Opening), BridgeError> {
    let (bridge, closing_tasks) = (bridge.clone(), tasks.clone());
    let client_id = connecting.client_id.to_owned();
    let Connecting {
        user,
        clean_start,
        expiry_seconds,
        issued_at,
        ..
    } = connecting;
    let opening = tasks.spawn(async move {
        let connecting = Connecting {
            user,
            client_id: &client_id,
            clean_start,
            expiry_seconds,
            issued_at,
        };
        let opened = bridge.open_session(connecting).await?;
        let opening = Opening {
            bridge,
            tasks: closing_tasks,
            held: opened.held,
            expiry_seconds,
            inflight: opened.inflight.clone(),
            is_done: false,
        };
        Ok((opened, opening))
    });
    opening.await.unwrap_or(Err(BridgeError::Unavailable))
}

impl Opening {
    /// The connection holds the session now, and will close it.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let (bridge, held, expiry_seconds) = (self.bridge.clone(), self.held, self.expiry_seconds);
        let inflight = std::mem::take(&mut self.inflight);
        let at_millis = super::handshake::now().unix_millis;
        self.tasks.spawn(async move {
            bridge
                .close_session(held, at_millis, expiry_seconds, inflight)
                .await;
        });
    }
}
