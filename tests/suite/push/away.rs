//! Devices that are not connected.

use serde_json::json;
use sqlx::PgPool;

use super::{Stage, told};

/// Goal: the push says that there is something and how much, and not what; the log does the
/// rest.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_is_away_is_woken_once_and_gets_all_messages_in_order(pool: PgPool) {
    let stage = Stage::set_with(pool, &[("push.repeat_interval", "1h")]).await;
    let phone = stage.broker.listener("bob", "phone").await;
    phone.disconnect().await;
    let token = stage.apns("bob", "phone").await;

    assert_eq!(stage.say("1").await, 1);
    let first = stage.pushed(&token, 1).await.remove(0);
    assert_eq!(
        first.payload,
        json!({
            "aps": {
                "alert": {"loc-key": "HOMING_NEW_MESSAGE"}, "badge": 1, "mutable-content": 1,
                "sound": "default", "thread-id": stage.conversation,
            },
            "homing": {"conversation": stage.conversation, "seq": 1},
        })
    );
    let header = |name: &str| first.headers[name].as_str();
    assert_eq!(header("apns-push-type"), "alert");
    assert_eq!(header("apns-priority"), "10");
    assert_eq!(header("apns-collapse-id"), stage.conversation);
    stage.settle().await;
    assert_eq!(stage.ledger("bob", 1).await, ["phone sent accepted"]);

    // What comes soon after is told of together.
    stage.say("2").await;
    stage.say("3").await;
    stage.settle().await;
    assert_eq!(stage.ledger("bob", 3).await, ["phone waits armed"]);
    stage.pass(1).await;
    let all = stage.pushed(&token, 2).await;
    stage.settle().await;
    assert_eq!(all.iter().map(told).collect::<Vec<_>>(), [(1, 1), (3, 3)]);
    for sequence in [2, 3] {
        assert_eq!(stage.ledger("bob", sequence).await, ["phone sent accepted"]);
    }

    let mut phone = stage.broker.device("bob", "phone").await;
    assert_eq!(phone.drain(1, 3).await, ["1", "2", "3"]);
    phone.assert_quiet().await;
    stage.pass(3).await;
    stage.settle().await;
    assert_eq!(stage.providers.seen().accepted.len(), 2);
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_wrote_it_is_not_woken_and_who_left_is_not_either(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let own = stage.apns("alice", "phone").await;
    let fellow = stage.apns("carol", "phone").await;
    let gone = stage.apns("bob", "phone").await;
    let late = stage.apns("dave", "phone").await;
    let quick = stage.broker.conversation(&["alice", "bob", "dave"]).await;

    // Bob leaves while his phone is still given its hour.
    let phone = stage.broker.listener("bob", "phone").await;
    stage.say_in(&quick, "1", json!({})).await;
    stage.pushed(&late, 1).await;
    stage.broker.remove(&quick, "bob").await;
    stage.broker.remove(&stage.conversation, "bob").await;
    let message = stage.say("1").await;
    stage.pushed(&fellow, 1).await;
    stage.settle().await;
    stage.pass(2).await;
    stage.settle().await;
    assert_eq!((stage.seen(&own), stage.seen(&gone)).0.len(), 0);
    assert_eq!(stage.seen(&gone).len(), 0);
    assert_eq!(stage.ledger("alice", message).await, ["phone own_message"]);
    assert_eq!(stage.providers.seen().accepted.len(), 2, "carol and dave");
    drop(phone);
    stage.stop().await;
}

/// Goal: a job that is armed already ends with the membership.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_is_removed_before_the_push_is_not_told(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let tablet = stage.broker.device("bob", "tablet").await;
    let message = stage.say("1").await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", message).await,
        ["phone waits armed", "tablet no_token"]
    );
    stage.broker.remove(&stage.conversation, "bob").await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", message).await[0],
        "phone cancelled removed"
    );
    assert!(stage.seen(&phone).is_empty());
    drop(tablet);
    stage.stop().await;
}
