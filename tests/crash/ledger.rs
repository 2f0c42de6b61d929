//! What the devices and the REST senders saw: the promises that the log is held against.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

/// A conversation, by its place in the list of the test.
pub(crate) type Place = usize;

/// What everybody is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Subscribe, and send nothing: who subscribes begins at the head of the log.
    Subscribe,
    /// Send as much as the window allows, go away and come back.
    Load,
    /// Send nothing new; repeat what is not acknowledged, receive what is left.
    Drain,
    End,
}

/// What the test waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) subscribed: usize,
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: usize,
    pub(crate) received: u64,
    pub(crate) violations: usize,
}

/// A message that a sender made.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) conversation: Place,
    pub(crate) sender: String,
    /// Rises with every message of the sender.
    pub(crate) number: u64,
}

/// A message that the broker promised to have stored.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) conversation: Place,
    pub(crate) id: String,
    /// MQTT 3.1.1 is not told.
    pub(crate) sequence: Option<i64>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
    counts: watch::Sender<Counts>,
    kills: AtomicU64,
}

#[derive(Default)]
struct Books {
    sent: HashMap<String, Sent>,
    acknowledged: Vec<Acknowledged>,
    violations: Vec<String>,
    is_closed: bool,
    /// The newest sequence of each device in each conversation.
    received: HashMap<(String, Place), i64>,
}

impl Ledger {
    pub(crate) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Before the broker is killed.
    pub(crate) fn kill(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    /// How often the broker was killed.
    pub(crate) fn kills(&self) -> u64 {
        self.kills.load(Ordering::SeqCst)
    }

    pub(crate) fn subscribed(&self) {
        self.counts.send_modify(|counts| counts.subscribed += 1);
    }

    /// Before its first PUBLISH. False: nothing new is to be sent.
    #[must_use]
    pub(crate) fn sent(&self, id: &str, sent: Sent) -> bool {
        let mut books = self.books();
        if books.is_closed {
            return false;
        }
        books.sent.insert(id.to_owned(), sent);
        self.counts.send_modify(|counts| counts.unacknowledged += 1);
        true
    }

    /// From now on nothing new is sent.
    pub(crate) fn close(&self) {
        self.books().is_closed = true;
    }

    pub(crate) fn acknowledged(&self, acknowledged: Acknowledged) {
        self.books().acknowledged.push(acknowledged);
        self.counts.send_modify(|counts| {
            counts.acknowledged += 1;
            counts.unacknowledged -= 1;
        });
    }

    pub(crate) fn received(&self, device: &str, conversation: Place, sequence: i64) {
        self.books()
            .received
            .insert((device.to_owned(), conversation), sequence);
        self.counts.send_modify(|counts| counts.received += 1);
    }

    pub(crate) fn violation(&self, what: String) {
        self.books().violations.push(what);
        self.counts.send_modify(|counts| counts.violations += 1);
    }

    pub(crate) fn sent_as(&self, id: &str) -> Option<Sent> {
        self.books().sent.get(id).cloned()
    }

    /// The promises after the first `known` ones.
    pub(crate) fn acknowledged_after(&self, known: usize) -> Vec<Acknowledged> {
        self.books().acknowledged[known..].to_vec()
    }

    /// Whether every device has got as far as `heads` says.
    pub(crate) fn has_received(&self, heads: &[(String, Place, i64)]) -> bool {
        let books = self.books();
        heads.iter().all(|(device, conversation, head)| {
            let key = (device.clone(), *conversation);
            books.received.get(&key).copied().unwrap_or(0) >= *head
        })
    }

    /// Who has what, for the message of a failure.
    pub(crate) fn standing(&self) -> String {
        let (counts, books) = (*self.counts.borrow(), self.books());
        let received: BTreeMap<_, _> = books.received.iter().collect();
        format!("{counts:?}, newest received: {received:?}")
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.books().violations.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }
}
