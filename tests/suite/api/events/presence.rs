//! Presence of those whom a stream watches.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::Stream;
use crate::harness::{TestBroker, until, within};

/// Nothing waits: what changes is told at once.
pub(super) const AT_ONCE: [(&str, &str); 2] = [
    ("presence.offline_delay", "0s"),
    ("presence.interval", "0s"),
];

pub(super) async fn assert_told(stream: &mut Stream, user: &str, presence: &str) -> Value {
    let told = stream.next("presence").await.data;
    assert_eq!(
        (&told["user"], &told["presence"]),
        (&json!(user), &json!(presence))
    );
    told
}

async fn has_watches(broker: &TestBroker, count: usize) {
    let line = format!("homing_bridge_watches {count}\n");
    until(&line, async || broker.metrics().await.contains(&line)).await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stream_tells_of_those_it_watches_while_it_is_open(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut stream = Stream::at(&broker, "alice", "?watch=bob,nobody").await;
    let mut deaf = Stream::at(&broker, "alice", "").await;
    let told = assert_told(&mut stream, "bob", "offline").await;
    assert_eq!(told["expires_in"], 600);
    let told = assert_told(&mut stream, "nobody", "unknown").await;
    assert!(told.get("expires_in").is_none());
    let mut bob = broker.device("bob", "phone").await;
    assert_told(&mut stream, "bob", "background").await;
    assert_eq!(bob.ask("me/state", b"active").await.code, 0);
    assert_told(&mut stream, "bob", "active").await;

    // Who only listens is there.
    let path = "/v1/presence?users=alice";
    let (_, shown) = broker.request(Method::GET, "bob", path, None).await;
    assert_eq!(shown["users"][0]["presence"], "background", "{shown}");

    // Who shares no conversation any more is not told.
    has_watches(&broker, 1).await;
    broker.remove(&group, "bob").await;
    assert_eq!(bob.ask("me/state", b"background").await.code, 0);
    has_watches(&broker, 0).await;
    for stream in [&mut stream, &mut deaf] {
        let said = stream.next("message").await;
        assert_eq!(said.data["entry"]["seq"], 1, "and not of bob: {said:?}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_watch_lasts_as_long_as_its_stream(pool: PgPool) {
    let settings = [AT_ONCE[0], AT_ONCE[1], ("presence.watch_ttl", "1s")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut stream = Stream::at(&broker, "alice", "?watch=bob").await;
    // It is renewed before it ends, and says again what is so.
    for _ in 0..4 {
        assert_told(&mut stream, "bob", "offline").await;
    }
    let _bob = broker.device("bob", "phone").await;
    let comes = async { while stream.next("presence").await.data["presence"] != "background" {} };
    within("bob", comes).await;
    has_watches(&broker, 1).await;
    drop(stream);
    has_watches(&broker, 0).await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn watches_that_cannot_be_are_refused(pool: PgPool) {
    let settings = [
        ("presence.watched_max", "2"),
        ("http.events_per_user_max", "1"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    for (query, says) in [
        ("?watch=a,b,c", "at most 2"),
        ("?watch=a%2Fb", "`watch`"),
        ("?watch=%00", "`watch`"),
        ("?watch=a&watch=b", "watch"),
        ("?look=a", "look"),
    ] {
        let path = format!("/v1/events{query}");
        let (status, problem) = broker.request(Method::GET, "alice", &path, None).await;
        let kind = problem["type"].as_str();
        assert_eq!(
            (status.as_u16(), kind),
            (400, Some("urn:homing:problem:invalid"))
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{query}: {detail}");
    }
    // A refusal leaves its place to others.
    Stream::at(&broker, "alice", "?watch=,").await;
    broker.stop().await;
}
