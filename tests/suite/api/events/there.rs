//! Who follows a stream is there for those who watch, as with a device.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    Stream,
    presence::{AT_ONCE, assert_told},
};
use crate::harness::{TestBroker, now_unix, until};

/// What a user says of their streams: the status of the answer.
async fn say(broker: &TestBroker, user: &str, state: Value) -> u16 {
    let path = "/v1/me/state";
    let (status, _) = broker.request(Method::PUT, user, path, Some(state)).await;
    status.as_u16()
}

/// What alice is shown of bob.
async fn look(broker: &TestBroker) -> Value {
    let path = "/v1/presence?users=bob";
    let (status, body) = broker.request(Method::GET, "alice", path, None).await;
    assert_eq!(status, 200, "{body}");
    body["users"][0].clone()
}

async fn is_gone(broker: &TestBroker) {
    let gone = async || look(broker).await["presence"] == "offline";
    until("the end of the stream", gone).await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stream_opens_and_closes_as_a_device_does(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = Stream::at(&broker, "alice", "?watch=bob").await;
    assert_told(&mut alice, "bob", "offline").await;
    let bob = Stream::at(&broker, "bob", "").await;
    assert_told(&mut alice, "bob", "background").await;
    assert_eq!(say(&broker, "bob", json!({"state": "active"})).await, 204);
    assert_told(&mut alice, "bob", "active").await;
    assert_eq!(say(&broker, "bob", json!({"state": "away"})).await, 204);
    assert_told(&mut alice, "bob", "background").await;

    // One of two goes, and then the last one.
    let other = Stream::at(&broker, "bob", "").await;
    assert_eq!(say(&broker, "bob", json!({"state": "active"})).await, 204);
    assert_told(&mut alice, "bob", "active").await;
    drop(other);
    let since = now_unix() * 1000;
    drop(bob);
    let gone = assert_told(&mut alice, "bob", "offline").await;
    assert!(gone["last_seen"].as_u64().unwrap() >= since, "{gone}");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stream_shows_nobody_who_hides(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = Stream::at(&broker, "alice", "?watch=bob").await;
    assert_told(&mut alice, "bob", "offline").await;
    let set = async |is_invisible: bool| {
        let body = Some(json!({"invisible": is_invisible}));
        let path = "/v1/me/settings";
        let (status, body) = broker.request(Method::PATCH, "bob", path, body).await;
        assert_eq!(status, 200, "{body}");
    };
    set(true).await;
    let bob = Stream::at(&broker, "bob", "").await;
    let hidden = json!({"user": "bob", "presence": "offline"});
    assert_eq!(look(&broker).await, hidden);
    // The first thing that is told: nothing was while bob was invisible.
    set(false).await;
    assert_told(&mut alice, "bob", "background").await;
    let hides = json!({"state": "active", "invisible": true});
    assert_eq!(say(&broker, "bob", hides).await, 204);
    let told = assert_told(&mut alice, "bob", "offline").await;
    assert!(told.get("last_seen").is_none(), "{told}");

    drop(bob);
    let nobody = async || say(&broker, "bob", json!({"state": "active"})).await == 409;
    until("the end of the stream", nobody).await;
    assert_eq!(look(&broker).await, hidden);
    let broker = broker.restart().await;
    assert_eq!(look(&broker).await, hidden);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stream_that_comes_back_soon_was_not_away(pool: PgPool) {
    let settings = [("presence.offline_delay", "1h"), AT_ONCE[1]];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = Stream::at(&broker, "alice", "?watch=bob").await;
    assert_told(&mut alice, "bob", "offline").await;
    for _ in 0..3 {
        drop(Stream::at(&broker, "bob", "").await);
        let nobody = async || say(&broker, "bob", json!({"state": "away"})).await == 409;
        until("the end of the stream", nobody).await;
    }
    let _bob = Stream::at(&broker, "bob", "").await;
    assert_told(&mut alice, "bob", "background").await;
    assert_eq!(say(&broker, "bob", json!({"state": "active"})).await, 204);
    assert_told(&mut alice, "bob", "active").await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn being_active_on_a_stream_ends_by_itself(pool: PgPool) {
    let settings = [("presence.active_ttl", "300ms"), AT_ONCE[0], AT_ONCE[1]];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob"]).await;
    let _bob = Stream::at(&broker, "bob", "").await;
    let mut alice = Stream::at(&broker, "alice", "?watch=bob").await;
    assert_told(&mut alice, "bob", "background").await;
    assert_eq!(say(&broker, "bob", json!({"state": "active"})).await, 204);
    assert_told(&mut alice, "bob", "active").await;
    assert_told(&mut alice, "bob", "background").await;
    broker.stop().await;
}

/// Goal: after a restart nobody remembers, and the store knows who was there last.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_followed_a_stream_is_remembered_across_a_restart(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    drop(Stream::at(&broker, "bob", "").await);
    is_gone(&broker).await;
    let before = look(&broker).await["last_seen"].as_i64();
    let before = before.expect("bob was seen");
    let broker = broker.restart().await;
    let after = look(&broker).await["last_seen"].as_i64();
    let after = after.expect("it is stored");
    // What is stored is stored a moment later, and read by another clock.
    assert!((after - before).abs() < 60_000, "{before} became {after}");
    broker.stop().await;
}

/// Goal: over MQTT a state is of the device that asks, for those who watch and for pushes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_state_is_of_the_device_that_asks_or_of_the_streams(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut alice = Stream::at(&broker, "alice", "?watch=bob").await;
    assert_told(&mut alice, "bob", "offline").await;
    let mut phone = broker.device("bob", "phone").await;
    assert_told(&mut alice, "bob", "background").await;
    // A device is no stream.
    assert_eq!(say(&broker, "bob", json!({"state": "active"})).await, 409);
    let stream = Stream::at(&broker, "bob", "").await;
    phone.publish("q/state", br#"{"state": "active"}"#).await;
    assert_told(&mut alice, "bob", "active").await;
    assert_eq!(say(&broker, "bob", json!({"state": "away"})).await, 204);
    drop(stream);
    phone.publish("q/state", br#"{"state": "away"}"#).await;
    assert_told(&mut alice, "bob", "background").await;
    until("the word of the phone", async || {
        let (_, body) = broker
            .request(Method::GET, "bob", "/v1/devices", None)
            .await;
        body["devices"][0]["activity"] == "away"
    })
    .await;

    for wrong in [
        json!({}),
        json!({"state": "asleep"}),
        json!({"state": null}),
        json!({"state": "active", "invisible": 1}),
        json!({"state": "active", "client_id": "phone"}),
    ] {
        assert_eq!(say(&broker, "bob", wrong.clone()).await, 400, "{wrong}");
    }
    broker.stop().await;
}
