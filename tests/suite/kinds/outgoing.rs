//! What a device shows as being sent, until it is done: also if no entry of it ever comes.

use homing::{
    client::cache::{Members, Outgoing, Thread},
    domain::{
        ids::{ClientMessageId, ConversationId, Subject},
        message::Sequence,
    },
    store::MIGRATOR,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{reaction, send, text};
use crate::harness::{TestBroker, Wire};

fn members(value: &Value) -> Members {
    value.as_object().unwrap().clone()
}

struct App {
    conversation: ConversationId,
    wire: Wire,
    thread: Thread,
    outgoing: Outgoing,
}

impl App {
    fn of(wire: Wire, conversation: &str) -> Self {
        let mut thread = Thread::new(Subject::new("alice").unwrap());
        thread.page(0);
        Self {
            conversation: conversation.parse().unwrap(),
            wire,
            thread,
            outgoing: Outgoing::default(),
        }
    }

    /// Sends, takes the entry if there is one, and the acknowledgement with the place it names.
    async fn send(&mut self, message: &Value, has_entry: bool) {
        let id = ClientMessageId::new(message["id"].as_str().unwrap().to_owned()).unwrap();
        self.outgoing
            .begin(self.conversation, &id, members(message));
        self.outgoing.handed_over(id.as_str());
        let topic = format!("c/{}/send", self.conversation);
        let puback = self.wire.ask(&topic, message.to_string().as_bytes()).await;
        let place = puback
            .properties
            .user("seq")
            .map(|seq| seq.parse().unwrap());
        let place = place.map(|seq| Sequence::new(seq).unwrap());
        self.outgoing.acknowledged(id.as_str(), place);
        if has_entry {
            let entry = self.wire.delivery_of("/messages").await;
            self.wire.acknowledge(entry.packet_id).await;
            self.outgoing.entry(&members(&entry.json()));
            self.thread.entry(members(&entry.json()));
        }
        let synced = self.thread.synced().unwrap();
        self.outgoing.in_step(self.conversation, synced);
    }

    fn shown(&self) -> Vec<&str> {
        let shown = self.outgoing.shown(self.conversation);
        shown.into_iter().map(|(id, _)| id).collect()
    }
}

fn taken_back(id: &str, key: &str) -> Value {
    json!({"id": id, "type": "reaction", "ref": 1, "body": {"key": key, "remove": true}})
}

/// Goal: the acknowledgement names a place that the thread has reached: that of the entry which
/// said so before, or that of the message.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_reaction_that_changes_nothing_is_done_when_it_is_acknowledged(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut wire = broker.device("alice", "phone").await;
    wire.subscribe(&["c/+/messages"]).await;
    let mut app = App::of(wire, &group);
    app.send(&text("1", "hi"), true).await;
    app.send(&reaction("2", 1, "👍"), true).await;
    app.send(&reaction("3", 1, "👍"), false).await;
    app.send(&taken_back("4", "👎"), false).await;
    assert_eq!(app.shown(), [] as [&str; 0]);
    broker.stop().await;
}

/// Goal: with MQTT 3.1.1, which names no place, the next answer settles it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn without_a_place_a_reaction_is_done_by_the_next_answer(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let (mut wire, _) = broker.connect(broker.v3("alice", "phone")).await;
    wire.subscribe(&["c/+/messages"]).await;
    let mut app = App::of(wire, &group);
    app.send(&text("1", "hi"), true).await;
    app.send(&reaction("2", 1, "👍"), true).await;
    app.send(&reaction("3", 1, "👍"), false).await;
    assert_eq!(app.shown(), ["3"], "nobody has said where it is");

    let mut bob = broker.device("bob", "phone").await;
    assert_eq!(send(&mut bob, &group, &text("1", "hello")).await, 3);
    let asked = app.outgoing.ask();
    let path = format!("/{group}/inbox");
    let (_, row) = broker
        .rest(reqwest::Method::GET, "alice", &path, None)
        .await;
    let last_seq = row["last_seq"].as_i64().unwrap();
    app.outgoing.answered(asked, app.conversation, last_seq);
    app.thread.heard_of(last_seq);
    app.outgoing
        .in_step(app.conversation, app.thread.synced().unwrap());
    assert_eq!(app.shown(), ["3"], "the thread has not got there");
    let entry = app.wire.delivery_of("/messages").await;
    app.thread.entry(members(&entry.json()));
    app.outgoing
        .in_step(app.conversation, app.thread.synced().unwrap());
    assert_eq!(app.shown(), [] as [&str; 0]);
    broker.stop().await;
}
