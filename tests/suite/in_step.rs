//! What the cache of the SDK asks to get in step, and what it makes of the answers.

use homing::{
    client::cache::{
        Applied, Inbox, Members, Next, Question, Reconcile, Thread, Threads, Told, Wrong,
    },
    domain::ids::{ConversationId, Subject},
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

/// Asks over MQTT until nothing is left; the answers, and what they told.
async fn reconcile(
    wire: &mut Wire,
    inbox: &mut Inbox,
    threads: &mut Threads,
) -> (usize, Vec<Told>) {
    let mut reconcile = Reconcile::new(inbox);
    let (mut answers, mut all) = (0, Vec::new());
    while let Some(question) = reconcile.question(inbox, threads) {
        let (topic, arguments) = match question {
            Question::Differences(arguments) => ("q/reconcile", arguments),
            Question::Changed(arguments) => ("q/inbox", arguments),
        };
        let arguments = Value::Object(arguments).to_string();
        wire.publish(topic, arguments.as_bytes()).await;
        let answer = wire.delivery_of("me/device").await.json();
        wire.puback().await;
        assert_eq!(answer["status"], 200, "{answer}");
        let told = reconcile.answer(members(&answer["body"]), inbox, threads);
        all.extend(told.unwrap());
        answers += 1;
    }
    (answers, all)
}

/// Goal: whoever holds the entries of the log has their hash, and whoever holds another one finds
/// out.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_that_holds_another_entry_drops_what_it_holds(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut alice = broker.device("alice", "laptop").await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let id: ConversationId = group.parse().unwrap();
    let new = || {
        let mut thread = Thread::new(Subject::new("bob").unwrap());
        thread.page(0);
        thread
    };
    let (mut sound, mut other) = (new(), new());
    for name in ["a", "b", "c"] {
        alice.say(group, name).await;
        let delivery = phone.delivery_of("/messages").await;
        phone.acknowledge(delivery.packet_id).await;
        let mut entry = members(&delivery.json());
        sound.entry(entry.clone());
        if name == "b" {
            entry["id"] = "x".into();
        }
        other.entry(entry);
    }
    let hash = get(&broker, &format!("/v1/conversations/{group}/hash")).await;
    assert_eq!(sound.hash(9).unwrap().json(), hash);
    let row = get(&broker, &format!("/v1/conversations/{group}/inbox")).await;
    let mut inbox = Inbox::default();
    inbox.apply(members(&row));
    for (thread, next) in [(sound, Next::Nothing), (other, Next::Anew(Wrong::Mismatch))] {
        let mut threads = Threads::from([(id, thread)]);
        let (_, told) = reconcile(&mut phone, &mut inbox, &mut threads).await;
        assert_eq!((told.len(), told[0].next), (1, next));
        assert_eq!(threads.contains_key(&id), next == Next::Nothing);
    }
    broker.stop().await;
}

/// Goal: more conversations than one request names, and more differences than one answer holds.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_of_many_conversations_gets_in_step_over_mqtt(pool: PgPool) {
    let settings = [("limits.requests_per_second", "0")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let mut phone = broker.listener("bob", "phone").await;
    let (mut inbox, title) = (Inbox::default(), "title ".repeat(40));
    for number in 0..200 {
        let body = json!({"participants": ["bob", "alice"], "kind": "group", "title": title});
        let (_, made) = broker.rest(Method::POST, "admin", "", Some(body)).await;
        if number % 2 == 0 {
            let row = json!({"conversation": made["id"], "version": -1, "epoch": 1, "activity_at": number});
            assert_eq!(inbox.apply(members(&row)), Applied::Changed);
        }
    }
    for _ in 0..500 {
        let row = json!({"conversation": ConversationId::random(), "version": 1, "epoch": 1});
        inbox.apply(members(&row));
    }
    inbox.begun(0);
    let (answers, told) = reconcile(&mut phone, &mut inbox, &mut Threads::new()).await;
    assert!(answers > 3, "{answers}");
    assert!(told.len() >= 700, "{}", told.len());
    assert_eq!(inbox.rows().len(), 200);
    let is_right = |row: &Value| row["title"] == title;
    let rows = inbox.rows();
    assert!(
        rows.iter()
            .all(|(_, row)| is_right(&Value::Object(row.fields.clone())))
    );
    assert!(inbox.as_of() > Some(0));
    let (answers, told) = reconcile(&mut phone, &mut inbox, &mut Threads::new()).await;
    assert!(answers < 3, "{answers}");
    assert!(told.iter().all(|told| told.applied == Applied::Stale));
    broker.stop().await;
}
