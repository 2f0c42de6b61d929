//! Presence: asked for, or watched and told on me/presence, by those who may know.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{TestBroker, Wire, until},
    writes,
};

/// Nothing waits: what changes is told at once.
const AT_ONCE: [(&str, &str); 2] = [
    ("presence.offline_delay", "0s"),
    ("presence.interval", "0s"),
];

/// A device that hears what is for its user alone.
async fn hearer(broker: &TestBroker, user: &str, client_id: &str) -> Wire {
    let mut wire = broker.device(user, client_id).await;
    let filters = ["me/device", "me/presence"];
    assert_eq!(wire.subscribe(&filters).await, [1, 1]);
    wire
}

/// Asks for something and takes the answer; nothing else arrives before it.
async fn ask(wire: &mut Wire, operation: &str, arguments: &Value) -> Value {
    let topic = format!("q/{operation}");
    let packet_id = wire.publish(&topic, arguments.to_string().as_bytes()).await;
    let answer = wire.delivery().await;
    assert_eq!(answer.topic, "me/device", "{:?}", answer.json());
    assert_eq!(wire.puback().await.packet_id, packet_id);
    answer.json()
}

async fn watch(wire: &mut Wire, users: &[&str]) -> Value {
    let answer = ask(wire, "watch", &json!({"users": users})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    answer["body"]["users"].clone()
}

/// The next word on me/presence, without its time.
async fn told(wire: &mut Wire) -> (String, String) {
    let delivery = wire.delivery().await;
    assert_eq!(
        (delivery.topic.as_str(), delivery.packet_id),
        ("me/presence", 0)
    );
    let told = delivery.json();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("user"), text("presence"))
}

async fn assert_told(wire: &mut Wire, user: &str, presence: &str) {
    assert_eq!(told(wire).await, (user.to_owned(), presence.to_owned()));
}

async fn says(wire: &mut Wire, state: &str) {
    assert_eq!(wire.ask("me/state", state.as_bytes()).await.code, 0);
}

async fn look(broker: &TestBroker, user: &str, users: &str) -> Value {
    let path = format!("/v1/presence?users={users}");
    let (status, body) = broker.request(Method::GET, user, &path, None).await;
    assert_eq!(status, 200, "{body}");
    body["users"].clone()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_watches_is_told_what_changes(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let mut tablet = hearer(&broker, "alice", "tablet").await;
    let began = json!([
        {"user": "bob", "presence": "offline", "expires_in": 600},
        {"user": "carol", "presence": "offline", "expires_in": 600},
    ]);
    assert_eq!(watch(&mut alice, &["bob", "carol", "bob"]).await, began);

    let mut bob = broker.device("bob", "phone").await;
    assert_told(&mut alice, "bob", "background").await;
    says(&mut bob, "active").await;
    assert_told(&mut alice, "bob", "active").await;
    let mut other = broker.device("bob", "other").await;
    says(&mut other, "away").await;
    assert_eq!(
        look(&broker, "alice", "bob").await,
        json!([{"user": "bob", "presence": "active"}])
    );
    says(&mut bob, "background").await;
    assert_told(&mut alice, "bob", "background").await;
    other.disconnect().await;
    bob.disconnect().await;
    let gone = alice.delivery().await.json();
    assert_eq!(
        (&gone["user"], &gone["presence"]),
        (&json!("bob"), &json!("offline"))
    );
    let last_seen = gone["last_seen"].as_i64().unwrap();
    assert!(
        gone["expires_in"]
            .as_u64()
            .is_some_and(|left| (1..=600).contains(&left))
    );
    let began: i64 = sqlx::query_scalar(
        "select (extract(epoch from max(connected_at)) * 1000)::bigint from sessions",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(last_seen >= began - 1000, "{last_seen} is before {began}");

    let _carol = broker.device("carol", "phone").await;
    assert_told(&mut alice, "carol", "background").await;
    // Who did not ask is not told, and the end of a watch is the end.
    tablet.assert_quiet().await;
    assert_eq!(watch(&mut alice, &[]).await, json!([]));
    watch(&mut tablet, &["bob"]).await;
    let _bob = broker.device("bob", "phone").await;
    assert_told(&mut tablet, "bob", "background").await;
    alice.assert_quiet().await;
    broker.stop().await;
}

/// Goal: non-participants learn nothing, not even who exists; who was removed, blocks or is
/// blocked learns nothing more.
#[sqlx::test(migrator = "MIGRATOR")]
async fn only_those_who_share_a_conversation_are_told(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    let shared = broker
        .conversation(&["alice", "bob", "carol", "dave"])
        .await;
    broker.conversation(&["mallory"]).await;
    let mut bob = broker.device("bob", "phone").await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let mut carol = hearer(&broker, "carol", "phone").await;
    let mut dave = hearer(&broker, "dave", "phone").await;
    let mut mallory = hearer(&broker, "mallory", "phone").await;
    let unknown = json!([
        {"user": "bob", "presence": "unknown"},
        {"user": "nobody", "presence": "unknown"},
    ]);
    assert_eq!(watch(&mut mallory, &["bob", "nobody"]).await, unknown);
    assert_eq!(look(&broker, "mallory", "bob,nobody").await, unknown);
    for wire in [&mut alice, &mut carol, &mut dave] {
        assert_eq!(watch(wire, &["bob"]).await[0]["presence"], "background");
    }
    says(&mut bob, "active").await;
    for wire in [&mut alice, &mut carol, &mut dave] {
        assert_told(wire, "bob", "active").await;
    }
    broker.remove(&shared, "carol").await;
    says(&mut bob, "background").await;
    assert_told(&mut alice, "bob", "background").await;
    assert_told(&mut dave, "bob", "background").await;
    carol.assert_quiet().await;
    mallory.assert_quiet().await;

    let blocks = "insert into blocks (user_id, blocked_id)
                  select a.user_id, b.user_id from users a, users b
                  where (a.subject, b.subject) = ('bob', 'dave')";
    sqlx::query(blocks).execute(&pool).await.unwrap();
    says(&mut bob, "active").await;
    assert_told(&mut alice, "bob", "active").await;
    dave.assert_quiet().await;
    let unknown = json!([{"user": "bob", "presence": "unknown"}]);
    for (wire, user) in [(&mut carol, "carol"), (&mut dave, "dave")] {
        assert_eq!(watch(wire, &["bob"]).await, unknown);
        assert_eq!(look(&broker, user, "bob").await, unknown);
    }
    let dave = json!([{"user": "dave", "presence": "unknown"}]);
    assert_eq!(
        look(&broker, "bob", "dave").await,
        dave,
        "who blocks does not watch"
    );
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_does_not_want_to_be_seen_is_offline(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker
        .conversation(&["alice", "bob", "carol", "dave"])
        .await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    for (user, set) in [
        ("bob", "is_invisible = true"),
        ("dave", "last_seen = 'nobody'"),
    ] {
        let update = format!("update users set {set} where subject = '{user}'");
        sqlx::query(sqlx::AssertSqlSafe(update))
            .execute(&pool)
            .await
            .unwrap();
    }
    watch(&mut alice, &["bob", "carol", "dave"]).await;
    let mut bob = broker.device("bob", "phone").await;
    says(&mut bob, "active").await;
    bob.disconnect().await;
    let mut carol = broker.device("carol", "phone").await;
    assert_told(&mut alice, "carol", "background").await;
    says(&mut carol, r#"{"state":"active","invisible":true}"#).await;
    let hidden = alice.delivery().await.json();
    assert_eq!(
        (&hidden["user"], &hidden["presence"]),
        (&json!("carol"), &json!("offline"))
    );
    carol.disconnect().await;
    let dave = broker.device("dave", "phone").await;
    assert_told(&mut alice, "dave", "background").await;
    dave.disconnect().await;
    let gone = alice.delivery().await.json();
    assert_eq!(
        (&gone["user"], &gone["presence"]),
        (&json!("dave"), &json!("offline"))
    );
    assert!(gone.get("last_seen").is_none() && hidden.get("last_seen").is_none());
    alice.assert_quiet().await;
    let hidden = |user| json!({"user": user, "presence": "offline"});
    let shown = look(&broker, "alice", "bob,carol,dave").await;
    assert_eq!(
        shown,
        json!([hidden("bob"), hidden("carol"), hidden("dave")])
    );
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_comes_back_soon_was_not_offline(pool: PgPool) {
    let settings = [
        ("presence.offline_delay", "1h"),
        ("presence.interval", "0s"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    watch(&mut alice, &["bob"]).await;
    for _ in 0..3 {
        broker.device("bob", "phone").await.disconnect().await;
    }
    let mut bob = broker.device("bob", "phone").await;
    says(&mut bob, "active").await;
    assert_told(&mut alice, "bob", "background").await;
    assert_told(&mut alice, "bob", "active").await;
    alice.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn being_active_ends_by_itself(pool: PgPool) {
    let settings = [("presence.active_ttl", "300ms"), AT_ONCE[0], AT_ONCE[1]];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let mut bob = broker.device("bob", "phone").await;
    watch(&mut alice, &["bob"]).await;
    for _ in 0..2 {
        says(&mut bob, "active").await;
        assert_told(&mut alice, "bob", "active").await;
        assert_told(&mut alice, "bob", "background").await;
    }
    broker.stop().await;
}

/// Goal: after a restart nobody remembers, and the store knows who was there last.
#[sqlx::test(migrator = "MIGRATOR")]
async fn last_seen_outlives_the_broker(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    broker.device("bob", "phone").await.disconnect().await;
    let remembered = look(&broker, "alice", "bob").await;
    let remembered = remembered[0]["last_seen"].as_i64().unwrap();
    let broker = broker.restart().await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let shown = watch(&mut alice, &["bob"]).await;
    assert_eq!(shown[0]["presence"], "offline");
    let stored = shown[0]["last_seen"].as_i64().unwrap();
    assert!(
        (remembered - 1000..remembered + 30_000).contains(&stored),
        "{remembered} {stored}"
    );
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn there_is_a_bound_and_it_is_visible(pool: PgPool) {
    let settings = [
        ("presence.watched_max", "2"),
        ("presence.watchers_max", "1"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let mut carol = hearer(&broker, "carol", "phone").await;
    let many = json!({"users": ["bob", "carol", "dave"]});
    let refused = ask(&mut alice, "watch", &many).await;
    assert_eq!(refused["status"], 400, "{refused}");
    assert_eq!(watch(&mut alice, &["bob"]).await[0]["expires_in"], 600);
    let answered = json!([{"user": "bob", "presence": "offline"}]);
    assert_eq!(
        watch(&mut carol, &["bob"]).await,
        answered,
        "and not watched"
    );
    let metrics = broker.metrics().await;
    for line in [
        "homing_bridge_watches 1",
        "homing_bridge_watches_refused_total 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    let body = Some(json!({"users": ["bob"]}));
    let (status, _) = broker
        .request(Method::PUT, "alice", "/v1/presence/watch", body)
        .await;
    assert_eq!(status, 400, "a watch needs a connection");
    let (status, _) = broker
        .request(Method::GET, "alice", "/v1/presence?users=a/b", None)
        .await;
    assert_eq!(status, 400);
    drop(alice);
    until("the end of the watch", async || {
        broker.metrics().await.contains("homing_bridge_watches 0")
    })
    .await;
    broker.stop().await;
}

/// Goal: what is ephemeral is never written. What a device says of itself reaches its session,
/// for push, whether anybody watches or not.
#[sqlx::test(migrator = "MIGRATOR")]
async fn presence_writes_no_row(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let mut bob = broker.device("bob", "phone").await;
    let writes = writes::watch(&pool).await;
    watch(&mut alice, &["bob"]).await;
    look(&broker, "alice", "bob").await;
    assert_eq!(writes.all().await, []);
    for _ in 0..5 {
        for state in ["active", "background"] {
            says(&mut bob, state).await;
            assert_told(&mut alice, "bob", state).await;
        }
    }
    let written = writes.all().await;
    let is_as_before = written
        .iter()
        .all(|(table, count)| table == "sessions" && *count <= 10);
    assert!(is_as_before, "{written:?}");
    broker.stop().await;
}

/// Goal: who becomes invisible is gone for those who watch, at once and until it ends.
#[sqlx::test(migrator = "MIGRATOR")]
async fn becoming_invisible_is_told_as_being_offline(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = hearer(&broker, "alice", "phone").await;
    let mut bob = broker.device("bob", "phone").await;
    watch(&mut alice, &["bob"]).await;
    let set = async |is_invisible: bool| {
        let body = Some(json!({"invisible": is_invisible}));
        let path = "/v1/me/settings";
        let (status, body) = broker.request(Method::PATCH, "bob", path, body).await;
        assert_eq!(status, 200, "{body}");
    };
    set(true).await;
    assert_told(&mut alice, "bob", "offline").await;
    says(&mut bob, "active").await;
    alice.assert_quiet().await;
    set(false).await;
    assert_told(&mut alice, "bob", "active").await;
    broker.stop().await;
}
