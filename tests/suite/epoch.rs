//! A log that loses its end or its beginning, and a device that holds more of it.

use homing::{
    client::cache::{Applied, Inbox, Members, Question, Reconcile, Thread},
    domain::ids::Subject,
    store::MIGRATOR,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{TestBroker, Wire};

fn members(value: &Value) -> Members {
    value.as_object().unwrap().clone()
}

async fn get(broker: &TestBroker, path: &str) -> Value {
    let (status, body) = broker.request(Method::GET, "bob", path, None).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// What a device of bob shows of one conversation.
struct Shown {
    inbox: Inbox,
    thread: Thread,
}

impl Shown {
    /// As it is now.
    async fn of(broker: &TestBroker, group: &str) -> Self {
        let mut shown = Self {
            inbox: Inbox::default(),
            thread: Thread::new(Subject::new("bob").unwrap()),
        };
        let row = get(broker, &format!("/v1/conversations/{group}/inbox")).await;
        assert_eq!(shown.inbox.apply(members(&row)), Applied::Changed);
        let thread = format!("/v1/conversations/{group}/thread");
        shown.read(&get(broker, &thread).await);
        shown
    }

    fn read(&mut self, page: &Value) {
        for message in page["messages"].as_array().unwrap() {
            self.thread.message(members(message));
        }
        self.thread.page(page["last_seq"].as_i64().unwrap());
    }

    fn ids(&self) -> Vec<&str> {
        let ids = self.thread.messages().map(|message| &message["id"]);
        ids.map(|id| id.as_str().unwrap()).collect()
    }
}

/// The answer to somebody who says what he shows.
async fn reconciled(broker: &TestBroker, shown: &Shown) -> Value {
    let rows = shown.inbox.rows();
    let threads = [(rows[0].0, shown.thread.clone())].into();
    let question = Reconcile::new(&shown.inbox).question(&shown.inbox, &threads);
    let Some(Question::Differences(body)) = question else {
        panic!("{question:?}");
    };
    let body = Some(Value::Object(body));
    let answer = broker.request(Method::POST, "bob", "/v1/reconcile", body);
    answer.await.1
}

async fn device(broker: &TestBroker) -> Wire {
    let mut wire = broker.device("bob", "phone").await;
    let filters = ["c/+/messages", "me/device", "me/inbox"];
    assert_eq!(wire.subscribe(&filters).await, [1, 1, 1]);
    wire
}

/// The next delivery of that kind; patches of the inbox may come before.
async fn entry(wire: &mut Wire) -> Members {
    let delivery = wire.delivery_of("/messages").await;
    wire.acknowledge(delivery.packet_id).await;
    members(&delivery.json())
}

/// As a promotion leaves it that lost the last two messages, and what depends on them.
const PROMOTION: [&str; 4] = [
    "delete from messages where seq > 3",
    "update conversations
     set last_seq = 3, last_ordinal = 3, last_message_seq = 3, epoch = epoch + 1",
    "update participants set read_seq = least(read_seq, 3), read_ordinal = least(read_ordinal, 3),
         delivered_seq = least(delivered_seq, 3)",
    "update device_cursors set delivered_seq = least(delivered_seq, 3)",
];

/// Goal: a device that holds what there is not any more is told so by everything it may ask or
/// hear, and shows what there is after it did what it was told.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_new_epoch_is_told_and_the_device_begins_anew(pool: PgPool) {
    let settings = [("inbox.patch_interval", "10ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    let mut phone = device(&broker).await;
    for id in ["1", "2", "3", "lost", "lost too"] {
        alice.say(group, id).await;
    }
    for _ in 0..5 {
        entry(&mut phone).await;
    }
    phone.disconnect().await;
    let mut asks = Shown::of(&broker, group).await;
    let mut hears = Shown::of(&broker, group).await;
    drop(alice);

    let place = broker.stop().await;
    for statement in PROMOTION {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let broker = place.start().await;
    let mut phone = device(&broker).await;

    // Who asks what is different.
    let difference = reconciled(&broker, &asks).await["conversations"][0].clone();
    let href = format!("/v1/conversations/{group}/thread");
    assert_eq!(
        difference["gap"],
        json!({"from": 1, "to": 3, "reason": "epoch", "href": href})
    );
    assert_eq!(asks.inbox.apply(members(&difference["row"])), Applied::Anew);
    // Who asks what has changed since the last entry it holds.
    let changed = get(&broker, &format!("{href}?changed_since=5")).await;
    assert_eq!(
        changed["gap"],
        json!({"from": 1, "to": 3, "reason": "ahead", "href": href})
    );
    assert_eq!(
        (&changed["epoch"], &changed["last_seq"]),
        (&json!(2), &json!(3))
    );
    // Who held less than was lost is told nothing of that, and sees the epoch all the same.
    let changed = get(&broker, &format!("{href}?changed_since=3")).await;
    assert_eq!((&changed["epoch"], changed.get("gap")), (&json!(2), None));

    asks.thread = Thread::new(Subject::new("bob").unwrap());
    let path = difference["gap"]["href"].as_str().unwrap();
    asks.read(&get(&broker, path).await);
    assert_eq!(asks.ids(), ["1", "2", "3"]);

    // The log goes on with sequences that had been given before.
    let mut alice = broker.device("alice", "phone").await;
    assert_eq!(alice.say(group, "new").await, 4);
    assert_eq!(asks.thread.entry(entry(&mut phone).await), Applied::Changed);
    assert_eq!(
        (asks.ids(), asks.thread.gap()),
        (vec!["1", "2", "3", "new"], None)
    );

    // Who only listens is told by the row, which is older than the one it shows.
    assert_eq!(alice.say(group, "newer").await, 5);
    let patch = phone.delivery_of("me/inbox").await.json();
    assert_eq!(hears.inbox.apply(members(&patch)), Applied::Anew);
    hears.thread = Thread::new(Subject::new("bob").unwrap());
    hears.read(&get(&broker, &href).await);
    assert_eq!(hears.ids(), ["1", "2", "3", "new", "newer"]);
    broker.stop().await;
}

/// Goal: a device that comes back to a log without its beginning is told what it will not get,
/// before the first entry that it gets; asking leads to the same end.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_cut_is_told_to_the_device_that_missed_it(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    let mut phone = broker.listener("bob", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("bob", "old")).await;
    old.subscribe(&["c/+/messages", "me/device"]).await;
    for id in ["1", "2"] {
        alice.say(group, id).await;
    }
    for wire in [&mut phone, &mut old] {
        wire.drain(1, 2).await;
    }
    phone.disconnect().await;
    old.disconnect().await;
    let mut shown = Shown::of(&broker, group).await;
    for id in ["3", "4", "5", "6"] {
        alice.say(group, id).await;
    }
    let cut = "update conversations set first_seq = 5";
    sqlx::query(cut).execute(&pool).await.unwrap();

    let (mut phone, _) = broker.connect(broker.v5("bob", "phone")).await;
    let (mut old, _) = broker.connect(broker.v3("bob", "old")).await;
    let gap = json!({"event": "gap", "conversation": group, "from": 3, "to": 4});
    let event = old.delivery().await;
    assert_eq!(
        (event.topic.as_str(), event.json()),
        ("me/device", gap.clone())
    );
    assert_eq!(old.drain(5, 6).await, ["5", "6"]);
    assert_eq!(phone.delivery().await.json(), gap);
    for id in ["5", "6"] {
        let entry = entry(&mut phone).await;
        assert_eq!(entry["id"], id);
        shown.thread.entry(entry);
    }
    // Once: what is live needs no page of the log.
    alice.say(group, "7").await;
    let delivery = phone.delivery().await;
    assert_eq!(delivery.seq(), 7);
    shown.thread.entry(members(&delivery.json()));

    // The device finds the same by itself.
    let missing = shown.thread.gap().unwrap();
    assert_eq!((missing.from, missing.to), (3, 4));
    let since = missing.from - 1;
    let path = format!("/v1/conversations/{group}/thread?changed_since={since}");
    let gap = get(&broker, &path).await["gap"].clone();
    assert_eq!(gap, json!({"from": 3, "to": 4, "reason": "retention"}));
    let reconciled = reconciled(&broker, &shown).await;
    assert_eq!(reconciled["conversations"][0]["gap"], gap, "{reconciled}");
    shown.thread.begins_at(gap["to"].as_i64().unwrap() + 1);
    assert_eq!(
        (shown.ids(), shown.thread.gap()),
        (vec!["5", "6", "7"], None)
    );
    broker.stop().await;
}
