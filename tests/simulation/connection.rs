//! One connection of the broker that the simulation stands for, and its mailbox.

use std::collections::VecDeque;

use bytes::BytesMut;
use homing::{
    domain::{ids::ConversationId, message::SharedEntry},
    mqtt::{
        codec::Decoder,
        packet::Connect,
        publishes::Verdict,
        replay::PageRequest,
        session::{Session, SubscriptionChange},
        subscriptions::Coverage,
    },
};

use crate::{invariants::Tap, log::Device};

/// Commits that wait for one session; the rest is a range.
const UNASKED_MAX: usize = 3;

#[derive(Debug)]
pub(crate) enum Event {
    Verdict {
        ticket: u64,
        verdict: Verdict,
    },
    Commit {
        conversation: ConversationId,
        from: i64,
        to: i64,
        entries: Vec<SharedEntry>,
    },
}

/// As the mailbox of the bridge.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    pub(crate) events: VecDeque<Event>,
    unasked: usize,
    behind: Vec<(ConversationId, i64, i64)>,
}

impl Mailbox {
    pub(crate) fn notice(
        &mut self,
        conversation: ConversationId,
        from: i64,
        to: i64,
        entries: &[SharedEntry],
    ) {
        let late = self.behind.iter_mut().find(|(id, ..)| *id == conversation);
        if let Some((_, _, end)) = late {
            *end = to.max(*end);
        } else if self.unasked >= UNASKED_MAX {
            self.behind.push((conversation, from, to));
        } else {
            self.unasked += 1;
            self.events.push_back(Event::Commit {
                conversation,
                from,
                to,
                entries: entries.to_vec(),
            });
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Event> {
        self.unasked = 0;
        let mut events: Vec<_> = std::mem::take(&mut self.events).into();
        let behind = std::mem::take(&mut self.behind).into_iter();
        events.extend(behind.map(|(conversation, from, to)| Event::Commit {
            conversation,
            from,
            to,
            entries: Vec::new(),
        }));
        events
    }
}

/// What a session waits for, one at a time.
#[derive(Debug)]
pub(crate) enum Operation {
    Persist(SubscriptionChange),
    Read(PageRequest),
    /// It has ended; the session does not know yet.
    Persisted {
        is_stored: bool,
        coverage: Coverage,
    },
    Page(PageRequest, Option<Vec<SharedEntry>>),
}

/// One connection, from its first byte to its end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) link: usize,
    /// Known, and listening to commits, after the CONNECT.
    pub(crate) device: Option<Device>,
    pub(crate) mailbox: Mailbox,
    pub(crate) session: Option<Session>,
    pub(crate) decoder: Decoder,
    pub(crate) inbound: BytesMut,
    pub(crate) connect: Option<Box<Connect>>,
    pub(crate) operations: VecDeque<Operation>,
    pub(crate) tap: Option<Tap>,
    pub(crate) generation: u64,
    pub(crate) coverage: Coverage,
    /// How much of the session's output was looked at.
    pub(crate) seen: usize,
    pub(crate) has_ended: bool,
}

impl Connection {
    pub(crate) fn new(id: u64, link: usize) -> Self {
        Self {
            id,
            link,
            device: None,
            mailbox: Mailbox::default(),
            session: None,
            decoder: Decoder::new(4096),
            inbound: BytesMut::new(),
            connect: None,
            operations: VecDeque::new(),
            tap: None,
            generation: 0,
            coverage: Coverage::Only(Vec::new()),
            seen: 0,
            has_ended: false,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_idle)
            && self.tap.as_ref().is_some_and(|tap| !tap.is_suspect)
            && self.mailbox.events.is_empty()
            && self.operations.is_empty()
            && self.inbound.is_empty()
    }
}
