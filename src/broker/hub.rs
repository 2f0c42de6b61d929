//! Which connection holds the session of a device, and takeover.
//!
//! One device has one connection. [MQTT-3.1.4-3] A newer one asks the older to go and waits
//! until it has written its cursors, so that nothing is delivered twice without need.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::{
    bridge::mailbox::{Event, Mailbox},
    domain::ids::UserId,
};

/// A device, before the store has given it an id.
type Key = (UserId, Box<str>);

/// All connections of this process.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    connections: Mutex<HashMap<Key, Arc<Entry>>>,
    /// Cancelled under the lock, so that every connection is told or refused.
    stopping: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    has_ended: SetOnce<()>,
}

/// The place of one connection in the hub. Dropping it says that the connection has ended.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    hub: &'a Hub,
    key: Key,
    entry: Arc<Entry>,
}

/// The process stops; no connection is taken any more.
#[derive(Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub(crate) struct Stopping;

impl Hub {
    /// Takes the place of a device. Its older connection is told to go, and has gone when
    /// this returns.
    pub(crate) async fn enter(
        &self,
        user: UserId,
        client_id: &str,
        mailbox: Arc<Mailbox>,
    ) -> Result<Place<'_>, Stopping> {
        let key = (user, Box::from(client_id));
        let entry = Arc::new(Entry {
            mailbox,
            has_ended: SetOnce::new(),
        });
        let older = {
            let mut connections = self.lock();
            if self.stopping.is_cancelled() {
                return Err(Stopping);
            }
            connections.insert(key.clone(), entry.clone())
        };
        let place = Place {
            hub: self,
            key,
            entry,
        };
        if let Some(older) = older {
            older.mailbox.tell(Event::TakenOver);
            older.has_ended.wait().await;
        }
        Ok(place)
    }

    /// Tells every connection to end, and refuses new ones.
    pub(crate) fn shut_down(&self) {
        let connections = self.lock();
        self.stopping.cancel();
        for entry in connections.values() {
            entry.mailbox.tell(Event::Shutdown);
        }
    }

    /// Cancelled when the process stops: nobody new is waited for.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Entry>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut connections = self.hub.lock();
        if connections
            .get(&self.key)
            .is_some_and(|entry| Arc::ptr_eq(entry, &self.entry))
        {
            connections.remove(&self.key);
        }
        drop(connections);
        // It is set nowhere else.
        drop(self.entry.has_ended.set(()));
    }
}
