//! A model device: a connection that breaks, news that comes late, twice or not at all, and the
//! cache of the SDK.

use std::collections::HashMap;

use homing::{
    client::cache::{Applied, Inbox, Members, Thread},
    domain::ids::{ConversationId, Subject},
};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use reqwest::Method;
use serde_json::{Value, json};

use super::truth::members;
use crate::harness::{Delivery, Received, TestBroker, Wire};

/// Something that arrived and is not applied yet.
#[derive(Clone)]
pub(super) enum Piece {
    Entry(ConversationId, Members),
    Row(Members),
    /// Messages of a page, and where the conversation ended then.
    Page(ConversationId, Vec<Members>, i64),
    /// What has changed since the thread was in step, and up to where.
    Changes(ConversationId, Vec<Members>, i64),
}

pub(super) struct Client {
    pub(super) user: String,
    name: String,
    wire: Option<Wire>,
    pub(super) inbox: Inbox,
    pub(super) threads: HashMap<ConversationId, Thread>,
    arrived: Vec<Piece>,
    /// Since when rows may have changed that are not known, as the server says.
    as_of: Option<i64>,
}

impl Client {
    pub(super) fn new(user: &str, device: usize) -> Self {
        Self {
            user: user.to_owned(),
            name: format!("{user}-{device}"),
            wire: None,
            inbox: Inbox::default(),
            threads: HashMap::new(),
            arrived: Vec::new(),
            as_of: None,
        }
    }

    pub(super) async fn connect(&mut self, broker: &TestBroker) {
        if self.wire.is_none() {
            let mut wire = broker.device(&self.user, &self.name).await;
            for packet in subscribe(&mut wire).await {
                self.take(&packet);
            }
            self.wire = Some(wire);
        }
    }

    /// The connection breaks; what was on its way may be lost.
    pub(super) fn lose_connection(&mut self) {
        self.wire = None;
    }

    /// Reads what is there. What is not acknowledged is lost, and comes again.
    pub(super) async fn pull(&mut self, rng: &mut StdRng) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        wire.send(&[0xc0, 0]).await;
        loop {
            match wire.receive().await {
                Received::Publish(_) if rng.random_ratio(1, 60) => return, // lost on the way
                Received::Publish(delivery) => {
                    let is_dropped = delivery.packet_id == 0 && rng.random_ratio(1, 4);
                    if !is_dropped {
                        self.take(&delivery);
                    }
                    if delivery.packet_id != 0 {
                        wire.acknowledge(delivery.packet_id).await;
                    }
                }
                Received::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
        self.wire = Some(wire);
    }

    fn take(&mut self, delivery: &Delivery) {
        let levels: Vec<_> = delivery.topic.split('/').collect();
        match levels[..] {
            ["c", id, "messages"] => {
                let entry = members(delivery.json());
                self.arrived.push(Piece::Entry(id.parse().unwrap(), entry));
            }
            ["me", "inbox"] => self.arrived.push(Piece::Row(members(delivery.json()))),
            _ => {}
        }
    }

    /// Applies some of what has arrived, in any order; some of it comes once more.
    pub(super) fn apply_some(&mut self, rng: &mut StdRng) {
        self.arrived.shuffle(rng);
        let count = rng.random_range(0..=self.arrived.len());
        for piece in self.arrived.split_off(self.arrived.len() - count) {
            if rng.random_ratio(1, 5) {
                self.arrived.push(piece.clone());
            }
            self.apply(piece);
        }
    }

    fn apply(&mut self, piece: Piece) {
        match piece {
            Piece::Row(row) => {
                let id: ConversationId = row["conversation"].as_str().unwrap().parse().unwrap();
                let last_seq = row.get("last_seq").and_then(Value::as_i64);
                assert_ne!(self.inbox.apply(row), Applied::Unreadable);
                match (self.inbox.row(id), last_seq) {
                    (None, _) => drop(self.threads.remove(&id)),
                    (Some(_), Some(last_seq)) => self.thread(id).heard_of(last_seq),
                    _ => {}
                }
            }
            Piece::Entry(id, entry) => {
                assert_ne!(self.thread(id).entry(entry), Applied::Unreadable);
            }
            Piece::Page(id, messages, last_seq) => {
                let thread = self.thread(id);
                for message in messages {
                    assert_ne!(thread.message(message), Applied::Unreadable);
                }
                thread.page(last_seq);
            }
            Piece::Changes(id, messages, last_seq) => {
                let thread = self.thread(id);
                for message in messages {
                    assert_ne!(thread.message(message), Applied::Unreadable);
                }
                thread.changed_up_to(last_seq);
            }
        }
    }

    fn thread(&mut self, id: ConversationId) -> &mut Thread {
        let me = Subject::new(&self.user).unwrap();
        self.threads.entry(id).or_insert_with(|| Thread::new(me))
    }

    /// Asks for the inbox over REST, what is archived included.
    pub(super) async fn fetch_inbox(&mut self, broker: &TestBroker) {
        for archived in [false, true] {
            let path = format!("/v1/inbox?limit=100&archived={archived}");
            let (status, page) = broker.request(Method::GET, &self.user, &path, None).await;
            assert_eq!(status, 200, "{page}");
            // The earliest answer counts: what changed after it is asked for.
            let as_of = page["as_of"].as_i64();
            self.as_of = self.as_of.or(as_of);
            for row in page["conversations"].as_array().unwrap() {
                self.arrived.push(Piece::Row(members(row.clone())));
            }
        }
    }

    /// Asks for the newest messages of a conversation over REST.
    pub(super) async fn fetch_thread(&mut self, broker: &TestBroker, id: ConversationId) {
        let path = format!("/v1/conversations/{id}/thread?limit=200");
        let (status, page) = broker.request(Method::GET, &self.user, &path, None).await;
        if status == 404 {
            return; // not any more
        }
        assert_eq!(status, 200, "{page}");
        let last_seq = page["last_seq"].as_i64().unwrap();
        let page = Piece::Page(id, messages(&page), last_seq);
        self.arrived.push(page);
    }

    /// Asks for what a gap holds.
    pub(super) async fn fetch_changes(&mut self, broker: &TestBroker, id: ConversationId) {
        let Some(gap) = self.threads.get(&id).and_then(Thread::gap) else {
            return;
        };
        let mut all = Vec::new();
        let mut since = gap.from - 1;
        let last_seq = loop {
            let path = format!("/v1/conversations/{id}/thread?changed_since={since}&limit=100");
            let (status, page) = broker.request(Method::GET, &self.user, &path, None).await;
            if status == 404 {
                return;
            }
            assert_eq!(status, 200, "{page}");
            all.extend(messages(&page));
            match page["next_changed_since"].as_i64() {
                Some(next) => since = next,
                None => break page["last_seq"].as_i64().unwrap(),
            }
        };
        self.arrived.push(Piece::Changes(id, all, last_seq));
    }

    /// Everything is quiet: takes all that waits, asks for what differs, until nothing does.
    pub(super) async fn settle(&mut self, broker: &TestBroker, rng: &mut StdRng) {
        self.connect(broker).await;
        let mut wire = self.wire.take().unwrap();
        wire.send(&[0xc0, 0]).await;
        loop {
            match wire.receive().await {
                Received::Publish(delivery) => {
                    self.take(&delivery);
                    if delivery.packet_id != 0 {
                        wire.acknowledge(delivery.packet_id).await;
                    }
                }
                Received::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
        self.wire = Some(wire);
        self.apply_all(rng);
        if self.as_of.is_none() {
            self.fetch_inbox(broker).await;
            self.apply_all(rng);
        }
        let differences = self.reconcile(broker).await;
        self.apply_all(rng);
        let ids: Vec<_> = self.inbox.rows().iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.fetch_thread(broker, id).await;
            self.apply_all(rng);
            self.fetch_changes(broker, id).await;
            self.apply_all(rng);
        }
        if differences > 0 {
            assert_eq!(
                self.reconcile(broker).await,
                0,
                "{}: still differs",
                self.name
            );
        }
    }

    fn apply_all(&mut self, rng: &mut StdRng) {
        self.arrived.shuffle(rng);
        for piece in std::mem::take(&mut self.arrived) {
            self.apply(piece);
        }
    }

    /// Sends what it shows; answers how much of it differs.
    async fn reconcile(&mut self, broker: &TestBroker) -> usize {
        let body = json!({"conversations": self.inbox.known(), "since": self.as_of});
        let (status, answer) = broker
            .request(Method::POST, &self.user, "/v1/reconcile", Some(body))
            .await;
        assert_eq!(status, 200, "{answer}");
        let mut differences = 0;
        for difference in answer["conversations"].as_array().unwrap() {
            let id: ConversationId = difference["conversation"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(difference["mismatch"], Value::Null, "{difference}");
            match difference.get("row") {
                // What changed since is told although it is known: versions tell.
                Some(row) => {
                    let is_news = self.inbox.apply(members(row.clone())) == Applied::Changed;
                    differences += usize::from(is_news);
                }
                None if self.inbox.row(id).is_some() => {
                    self.inbox.forget(id);
                    differences += 1;
                }
                None => {}
            }
            match self
                .inbox
                .row(id)
                .and_then(|row| row.fields["last_seq"].as_i64())
            {
                Some(last_seq) => self.thread(id).heard_of(last_seq),
                None => drop(self.threads.remove(&id)),
            }
        }
        differences
    }
}

async fn subscribe(wire: &mut Wire) -> Vec<Delivery> {
    let mut before = Vec::new();
    wire.send_subscribe(&[("c/+/messages", 1), ("me/#", 1)], &[])
        .await;
    loop {
        match wire.receive().await {
            Received::SubAck { .. } => return before,
            Received::Publish(delivery) => {
                if delivery.packet_id != 0 {
                    wire.acknowledge(delivery.packet_id).await;
                }
                before.push(delivery);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn messages(page: &Value) -> Vec<Members> {
    let messages = page["messages"].as_array().unwrap();
    messages.iter().cloned().map(members).collect()
}
