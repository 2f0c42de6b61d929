//! What the providers have seen, and waiting for a fact of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

/// Longer than anything here takes; it is waited out only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Which of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Apns,
    Fcm,
    OAuth,
    WebPush,
}

/// A notification that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) kind: Kind,
    /// The device token, or the last part of a Web Push endpoint.
    pub(crate) token: String,
    /// All of them, in lower case, with `:authority`.
    pub(crate) headers: BTreeMap<String, String>,
    /// What the device gets; of FCM the whole `message`; of Web Push null, see `body`.
    pub(crate) payload: Value,
    /// As it came.
    pub(crate) body: Vec<u8>,
    /// What the provider calls it: `apns-id`, Google's `name`, the `Location`.
    pub(crate) id: String,
    /// In seconds since 1970, by the clock of the provider.
    pub(crate) at_unix: i64,
    /// The number of the connection it came by.
    pub(crate) connection: usize,
}

/// A request that was answered, well or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) kind: Kind,
    /// As far as it could be read.
    pub(crate) token: String,
    pub(crate) status: u16,
    /// Empty if it was accepted.
    pub(crate) reason: String,
}

/// Everything, since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) accepted: Vec<Accepted>,
    /// In the order of the answers; access tokens among them.
    pub(crate) answered: Vec<Answered>,
    /// Requests whose end has arrived, answered or not, by service.
    pub(crate) arrived: BTreeMap<Kind, usize>,
    /// Connections that were opened, by port: APNs, FCM (OAuth among it), Web Push.
    pub(crate) connections: BTreeMap<Kind, usize>,
    /// Requests at work at once on one connection, the most there ever were.
    pub(crate) streams_max: usize,
    /// Different provider tokens that APNs was shown, and believed.
    pub(crate) provider_tokens: BTreeSet<String>,
}

impl Seen {
    /// How many connections served a request that was accepted. The pool of an HTTP client may
    /// begin another one in the moment in which the first one is there, and leaves it unused.
    pub(crate) fn used(&self, kind: Kind) -> usize {
        let of = self
            .accepted
            .iter()
            .filter(|accepted| accepted.kind == kind);
        of.map(|accepted| accepted.connection)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// How many requests were answered with this status.
    pub(crate) fn count(&self, kind: Kind, status: u16) -> usize {
        let of = |answered: &&Answered| (answered.kind, answered.status) == (kind, status);
        self.answered.iter().filter(of).count()
    }

    /// Access tokens handed out.
    pub(crate) fn token_fetches(&self) -> usize {
        self.count(Kind::OAuth, 200)
    }
}

/// Where all services write down what they see.
pub(crate) struct Record {
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            seen: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn write(&self, edit: impl FnOnce(&mut Seen)) {
        edit(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a fact, without a deadline.
    pub(super) async fn when<T>(&self, mut fact: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(found) = self.read(&mut fact) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    /// Waits for a fact; panics if it does not come.
    pub(super) async fn until<T>(&self, what: &str, fact: impl FnMut(&Seen) -> Option<T>) -> T {
        let Ok(found) = tokio::time::timeout(DEADLINE, self.when(fact)).await else {
            let answered = self.read(|seen| seen.answered.clone());
            panic!("{what} did not come: {answered:#?}");
        };
        found
    }
}
