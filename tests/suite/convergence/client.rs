//! A model device: news that comes late, twice or not at all, and the cache of the SDK.

use std::collections::{BTreeMap, HashMap};

use homing::{
    client::cache::{Applied, Expected, Inbox, Members, Outgoing, Thread},
    domain::ids::{ClientMessageId, ConversationId, Subject},
};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    live::{Live, Way},
    truth::members,
};
use crate::harness::TestBroker;

/// Something that arrived and is not applied yet.
#[derive(Clone)]
pub(super) enum Piece {
    Entry(ConversationId, Members),
    Row(Members),
    /// The whole inbox, and as of when.
    Inbox(Vec<Members>, i64),
    /// The answer to a change of a row: the row, or none if it was refused.
    Answer(Expected, Option<Members>),
    /// Messages of a page, and where the conversation ended then.
    Page(ConversationId, Vec<Members>, i64),
    /// What has changed since the thread was in step with an entry, and up to where.
    Changes(ConversationId, Vec<Members>, i64, i64),
}

/// A change of a row that was not answered yet.
pub(super) struct Request {
    pub(super) expected: Expected,
    pub(super) conversation: ConversationId,
    pub(super) arguments: Members,
    pub(super) is_sent: bool,
}

/// A message that the user wrote.
pub(super) struct Written {
    pub(super) conversation: ConversationId,
    pub(super) id: String,
    pub(super) is_reaction: bool,
}

pub(super) struct Client {
    pub(super) user: String,
    pub(super) name: String,
    pub(super) way: Way,
    pub(super) live: Option<Live>,
    pub(super) inbox: Inbox,
    pub(super) threads: HashMap<ConversationId, Thread>,
    pub(super) outgoing: Outgoing,
    /// All that was ever written here.
    pub(super) written: Vec<Written>,
    /// Messages in flight, by packet id.
    pub(super) in_flight: HashMap<u16, String>,
    /// In the order in which they were made.
    pub(super) requests: BTreeMap<u64, Request>,
    requested: u64,
    pub(super) arrived: Vec<Piece>,
    /// Hashes that were sent.
    pub(super) hashed: usize,
}

impl Client {
    pub(super) fn new(user: &str, device: usize) -> Self {
        Self {
            user: user.to_owned(),
            name: format!("{user}-{device}"),
            way: [Way::V5, Way::V5, Way::V3, Way::Events][device],
            live: None,
            inbox: Inbox::default(),
            threads: HashMap::new(),
            outgoing: Outgoing::default(),
            written: Vec::new(),
            in_flight: HashMap::new(),
            requests: BTreeMap::new(),
            requested: 0,
            arrived: Vec::new(),
            hashed: 0,
        }
    }

    /// The user writes something, connected or not: it shows.
    pub(super) fn write(&mut self, conversation: ConversationId, envelope: &Value) {
        let id = envelope["id"].as_str().unwrap().to_owned();
        let is_reaction = envelope["type"] == "reaction";
        let message_id = ClientMessageId::new(id.clone()).unwrap();
        let envelope = members(envelope.clone());
        self.outgoing.begin(conversation, &message_id, envelope);
        let shown = self.outgoing.shown(conversation);
        assert_eq!(shown.last().map(|(id, _)| *id), Some(id.as_str()));
        self.written.push(Written {
            conversation,
            id,
            is_reaction,
        });
    }

    /// The user sets something of a row, connected or not: it shows.
    pub(super) fn set(&mut self, conversation: ConversationId, arguments: &Value) {
        let mut fields = members(arguments.clone());
        if let Some(pinned) = fields.remove("pinned") {
            let at = if pinned == true {
                json!(1)
            } else {
                Value::Null
            };
            fields.insert("pinned_at".into(), at);
        }
        if let Some(read) = fields.get("read").and_then(Value::as_i64)
            && let Some(row) = self.inbox.row(conversation)
            && row.fields["last_message"]["seq"].as_i64() <= Some(read)
        {
            fields.extend([("unread".into(), json!(0)), ("mentions".into(), json!(0))]);
        }
        let expected = self.inbox.expect(conversation, fields.clone());
        if let Some(row) = self.inbox.row(conversation) {
            for (name, value) in &fields {
                let shown = &row.fields[name];
                let is_shown = match name.as_str() {
                    "read" => shown.as_i64() >= value.as_i64(),
                    "pinned_at" => shown.is_null() == value.is_null(),
                    _ => shown == value,
                };
                assert!(is_shown, "{}: `{name}` {value}: {row:?}", self.name);
            }
        }
        self.requested += 1;
        let request = Request {
            expected,
            conversation,
            arguments: members(arguments.clone()),
            is_sent: false,
        };
        self.requests.insert(self.requested, request);
    }

    /// The application ends and begins again. What it has not applied is lost, but for answers to
    /// what the user has set: it keeps those requests until then.
    pub(super) fn restart(&mut self) {
        self.lose_connection();
        self.arrived
            .retain(|piece| matches!(piece, Piece::Answer(..)));
        self.inbox = Inbox::from_json(&self.inbox.to_json()).unwrap();
        self.outgoing = Outgoing::from_json(&self.outgoing.to_json()).unwrap();
        for thread in self.threads.values_mut() {
            *thread = Thread::from_json(&thread.to_json()).unwrap();
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

    pub(super) fn apply_all(&mut self, rng: &mut StdRng) {
        self.arrived.shuffle(rng);
        for piece in std::mem::take(&mut self.arrived) {
            self.apply(piece);
        }
    }

    fn apply(&mut self, piece: Piece) {
        match piece {
            Piece::Row(row) => assert_ne!(self.apply_row(row, None), Applied::Unreadable),
            Piece::Answer(expected, Some(row)) => {
                assert_ne!(self.apply_row(row, Some(expected)), Applied::Unreadable);
            }
            Piece::Answer(expected, None) => self.inbox.refused(expected),
            Piece::Entry(id, entry) => {
                self.own(&entry);
                assert_ne!(self.thread(id).entry(entry), Applied::Unreadable);
                self.in_step(id);
            }
            Piece::Page(id, messages, last_seq) => {
                self.apply_messages(id, messages);
                self.thread(id).page(last_seq);
                self.in_step(id);
            }
            Piece::Changes(id, messages, since, last_seq) => {
                if self.thread(id).synced() < Some(since) {
                    return; // it was dropped since
                }
                self.apply_messages(id, messages);
                self.thread(id).changed_up_to(last_seq);
                self.in_step(id);
            }
            Piece::Inbox(rows, as_of) => {
                for row in rows {
                    assert_ne!(self.apply_row(row, None), Applied::Unreadable);
                }
                self.inbox.begun(as_of);
            }
        }
    }

    /// A row has come, and the thread follows: it ends with the participation, and begins anew with
    /// an epoch.
    pub(super) fn apply_row(&mut self, row: Members, answers: Option<Expected>) -> Applied {
        let id: ConversationId = row["conversation"].as_str().unwrap().parse().unwrap();
        let last_seq = row.get("last_seq").and_then(Value::as_i64);
        let epoch = |inbox: &Inbox| Some(inbox.row(id)?.fields["epoch"].as_i64());
        let before = epoch(&self.inbox);
        let applied = match answers {
            Some(expected) => self.inbox.answered(expected, row),
            None => self.inbox.apply(row),
        };
        let after = epoch(&self.inbox);
        if after.is_none() || before.is_some_and(|before| Some(before) != after) {
            self.threads.remove(&id);
        }
        if let (Some(_), Some(last_seq)) = (after, last_seq) {
            self.thread(id).heard_of(last_seq);
        }
        applied
    }

    pub(super) fn apply_messages(&mut self, id: ConversationId, messages: Vec<Members>) {
        for message in messages {
            self.own(&message);
            assert_ne!(self.thread(id).message(message), Applied::Unreadable);
        }
    }

    /// What is the user's own has arrived, and is not on its way any more.
    fn own(&mut self, entry: &Members) {
        if entry.get("from") == Some(&json!(self.user)) {
            self.outgoing.entry(entry);
        }
    }

    pub(super) fn in_step(&mut self, id: ConversationId) {
        if let Some(synced) = self.threads.get(&id).and_then(Thread::synced) {
            self.outgoing.in_step(id, synced);
        }
    }

    pub(super) fn thread(&mut self, id: ConversationId) -> &mut Thread {
        let me = Subject::new(&self.user).unwrap();
        self.threads.entry(id).or_insert_with(|| Thread::new(me))
    }

    /// Asks for the inbox over REST, what is archived included.
    pub(super) async fn fetch_inbox(&mut self, broker: &TestBroker) {
        let (mut rows, mut as_of) = (Vec::new(), None);
        for archived in [false, true] {
            let path = format!("/v1/inbox?limit=100&archived={archived}");
            let (status, page) = broker.request(Method::GET, &self.user, &path, None).await;
            assert_eq!(status, 200, "{page}");
            // The earliest answer counts: what changed after it is asked for.
            as_of = as_of.or(page["as_of"].as_i64());
            let page = page["conversations"].as_array().unwrap();
            rows.extend(page.iter().cloned().map(members));
        }
        self.arrived.push(Piece::Inbox(rows, as_of.unwrap()));
    }

    /// Asks for the newest messages of a conversation over REST.
    pub(super) async fn fetch_thread(&mut self, broker: &TestBroker, id: ConversationId) {
        let asked = self.outgoing.ask();
        let path = format!("/v1/conversations/{id}/thread?limit=200");
        let (status, page) = broker.request(Method::GET, &self.user, &path, None).await;
        if status == 404 {
            return; // not any more
        }
        assert_eq!(status, 200, "{page}");
        let last_seq = page["last_seq"].as_i64().unwrap();
        self.outgoing.answered(asked, id, last_seq);
        let page = Piece::Page(id, messages(&page), last_seq);
        self.arrived.push(page);
    }

    /// Asks for what a gap holds.
    pub(super) async fn fetch_changes(&mut self, broker: &TestBroker, id: ConversationId) {
        let Some(gap) = self.threads.get(&id).and_then(Thread::gap) else {
            return;
        };
        let since = gap.from - 1;
        let path = format!("/v1/conversations/{id}/thread?changed_since={since}");
        if let Some((all, last_seq)) = self.read_changes(broker, &path).await {
            self.arrived.push(Piece::Changes(id, all, since, last_seq));
        }
    }

    /// All pages of changes, and where the conversation ended then; none if it cannot be read.
    pub(super) async fn read_changes(
        &mut self,
        broker: &TestBroker,
        path: &str,
    ) -> Option<(Vec<Members>, i64)> {
        let (mut all, mut path) = (Vec::new(), path.to_owned());
        loop {
            let (status, page) = broker.request(Method::GET, &self.user, &path, None).await;
            if status == 404 {
                return None;
            }
            assert_eq!(status, 200, "{page}");
            all.extend(messages(&page));
            match page["next_changed_since"].as_i64() {
                Some(next) => {
                    let (before, _) = path.rsplit_once('=').unwrap();
                    path = format!("{before}={next}");
                }
                None => return Some((all, page["last_seq"].as_i64().unwrap())),
            }
        }
    }
}

fn messages(page: &Value) -> Vec<Members> {
    let messages = page["messages"].as_array().unwrap();
    messages.iter().cloned().map(members).collect()
}
