//! How fast one user may be: whichever way requests and messages come, they are counted together.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::{TestBroker, Wire, until};

/// So many at once are welcome, and then one each second. If each way had as many of its own,
/// twice as many would be.
const BURST: usize = 20;

/// Asks for something over MQTT; the status of the answer.
async fn ask(wire: &mut Wire) -> u16 {
    let packet_id = wire.publish("q/blocks", b"{}").await;
    let answer = wire.delivery().await.json();
    assert_eq!(wire.puback().await.packet_id, packet_id);
    u16::try_from(answer["status"].as_i64().unwrap()).unwrap()
}

/// The same over REST.
async fn get(broker: &TestBroker, user: &str) -> u16 {
    let path = "/v1/me/blocks";
    let (status, _) = broker.request(Method::GET, user, path, None).await;
    status.as_u16()
}

/// Sends a message over REST; the status of the answer.
async fn post(broker: &TestBroker, user: &str, conversation: &str, id: &str) -> u16 {
    let path = format!("/{conversation}/messages");
    let body = Some(json!({"id": id, "body": 1}));
    let (status, _) = broker.rest(Method::POST, user, &path, body).await;
    status.as_u16()
}

/// How many messages came too fast.
async fn limited(broker: &TestBroker) -> u64 {
    let metrics = broker.metrics().await;
    let name = "homing_bridge_limited_total{kind=\"Message\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.parse().unwrap())
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn requests_of_both_ways_are_counted_together(pool: PgPool) {
    let burst = BURST.to_string();
    let settings = [
        ("limits.requests_per_second", "1"),
        ("limits.requests_burst", burst.as_str()),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/device"]).await;
    let (mut asked, mut got) = (Vec::new(), Vec::new());
    for _ in 0..BURST {
        asked.push(ask(&mut phone).await);
        got.push(get(&broker, "alice").await);
    }
    for answers in [asked, got] {
        assert_eq!(answers[0], 200);
        assert!(answers.contains(&429), "{answers:?}");
    }
    assert_eq!(get(&broker, "bob").await, 200, "another user");
    broker.stop().await;
}

/// Goal: a PUBLISH that comes too fast waits, a POST is refused.
#[sqlx::test(migrator = "MIGRATOR")]
async fn messages_of_both_ways_are_counted_together(pool: PgPool) {
    let burst = BURST.to_string();
    let settings = [
        ("limits.messages_per_second", "1"),
        ("limits.messages_burst", burst.as_str()),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    for id in 0..BURST {
        alice.say(&group, &format!("published {id}")).await;
    }
    let mut posted = Vec::new();
    for id in 0..BURST {
        posted.push(post(&broker, "alice", &group, &format!("posted {id}")).await);
    }
    assert!(posted.contains(&429), "{posted:?}");

    for id in 0..BURST {
        post(&broker, "bob", &group, &format!("posted {id}")).await;
    }
    let before = limited(&broker).await;
    let mut bob = broker.device("bob", "phone").await;
    for id in ["1", "2", "3"] {
        bob.begin_say(&group, id).await;
    }
    until("a PUBLISH that waits", async || {
        limited(&broker).await > before
    })
    .await;
    for _ in 0..3 {
        assert_eq!(bob.puback().await.code, 0);
    }
    broker.stop().await;
}
