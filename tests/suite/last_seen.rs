//! When somebody was last there: known of those who were seen to go, and of nobody who was hidden.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::TestBroker;

/// Who has gone is offline at once.
const AT_ONCE: [(&str, &str); 1] = [("presence.offline_delay", "0s")];

/// Connects a device, lets it say something on me/state, and disconnects it.
async fn come_and_go(broker: &TestBroker, user: &str, state: &str) {
    let mut wire = broker.device(user, "phone").await;
    assert_eq!(wire.ask("me/state", state.as_bytes()).await.code, 0);
    wire.disconnect().await;
    gone(broker, user).await;
}

/// Waits until nobody shows as connected to the devices' owner.
async fn gone(broker: &TestBroker, user: &str) {
    crate::harness::until("the end of the connections", async || {
        let (_, body) = broker.request(Method::GET, user, "/v1/devices", None).await;
        let devices = body["devices"].as_array().unwrap().clone();
        devices.iter().all(|device| device["last_seen"].is_i64())
    })
    .await;
}

/// What alice is shown of bob, who is offline.
async fn last_seen(broker: &TestBroker) -> Option<i64> {
    let path = "/v1/presence?users=bob";
    let (status, body) = broker.request(Method::GET, "alice", path, None).await;
    assert_eq!(status, 200, "{body}");
    let bob = &body["users"][0];
    assert_eq!(bob["presence"], "offline", "{body}");
    bob.get("last_seen").map(|at| at.as_i64().unwrap())
}

async fn set_invisible(broker: &TestBroker, is_invisible: bool) {
    let body: Value = json!({"invisible": is_invisible});
    let path = "/v1/me/settings";
    let (status, body) = broker.request(Method::PATCH, "bob", path, Some(body)).await;
    assert_eq!(status, 200, "{body}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_was_seen_to_go_is_remembered_across_a_restart(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    come_and_go(&broker, "bob", "active").await;
    let before = last_seen(&broker).await.expect("bob was seen");
    let broker = broker.restart().await;
    let after = last_seen(&broker).await.expect("it is stored");
    // What is stored is stored a moment later, and read by another clock.
    assert!((after - before).abs() < 60_000, "{before} became {after}");
    broker.stop().await;
}

/// Goal: what a hidden connection leaves behind is what was known before it came.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_went_hidden_was_not_there_after_a_restart_either(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let hidden = r#"{"state": "active", "invisible": true}"#;
    come_and_go(&broker, "bob", hidden).await;
    assert_eq!(last_seen(&broker).await, None);
    let broker = broker.restart().await;
    assert_eq!(last_seen(&broker).await, None);

    come_and_go(&broker, "bob", "active").await;
    let broker = broker.restart().await;
    let seen = last_seen(&broker).await;
    assert!(seen.is_some());
    come_and_go(&broker, "bob", hidden).await;
    let broker = broker.restart().await;
    assert_eq!(last_seen(&broker).await, seen);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_that_goes_while_another_one_hides_its_user_is_not_seen(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    let mut hider = broker.device("bob", "tablet").await;
    let hidden = br#"{"state": "active", "invisible": true}"#;
    assert_eq!(hider.ask("me/state", hidden).await.code, 0);
    let phone = broker.device("bob", "phone").await;
    phone.disconnect().await;
    crate::harness::until("the end of the phone", async || {
        let count = "select count(*) from sessions where node is not null";
        sqlx::query_scalar::<_, i64>(count)
            .fetch_one(&pool)
            .await
            .unwrap()
            == 1
    })
    .await;
    hider.disconnect().await;
    gone(&broker, "bob").await;
    let broker = broker.restart().await;
    assert_eq!(last_seen(&broker).await, None);
    broker.stop().await;
}

/// Goal: becoming visible again does not tell what happened before.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_visible_again_was_not_seen_while_invisible(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &AT_ONCE).await;
    broker.conversation(&["alice", "bob"]).await;
    set_invisible(&broker, true).await;
    come_and_go(&broker, "bob", "active").await;
    assert_eq!(last_seen(&broker).await, None);
    set_invisible(&broker, false).await;
    assert_eq!(last_seen(&broker).await, None);
    let broker = broker.restart().await;
    assert_eq!(last_seen(&broker).await, None);
    come_and_go(&broker, "bob", "active").await;
    assert!(last_seen(&broker).await.is_some());
    broker.stop().await;
}

/// Goal: nor is the moment in which somebody may come back shown, if it began while invisible.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_visible_again_is_not_there_because_of_a_connection_that_was_hidden(pool: PgPool) {
    let settings = [("presence.offline_delay", "1h")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.conversation(&["alice", "bob"]).await;
    set_invisible(&broker, true).await;
    come_and_go(&broker, "bob", "active").await;
    set_invisible(&broker, false).await;
    assert_eq!(last_seen(&broker).await, None);
    broker.stop().await;
}
