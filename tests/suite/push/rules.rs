//! What keeps a notification back, and what breaks through.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};

use super::{Stage, told};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_mute_keeps_silent_and_a_mention_breaks_through_if_so_set(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let muted = stage.apns("bob", "phone").await;
    let sentinel = stage.apns("carol", "phone").await;
    stage
        .change_notifications("bob", json!({"muted_until": "forever"}))
        .await;
    let mention = json!({"mentions": ["bob"]});
    let other = json!({"mentions": ["carol"]});
    let first = stage.say_with("1", other).await;
    let second = stage.say_with("2", json!({"urgent": true})).await;
    stage.pushed(&sentinel, 1).await;
    stage.pass(1).await;
    stage.settle().await;
    for message in [first, second] {
        assert_eq!(
            stage.ledger("bob", message).await,
            ["phone suppressed muted"]
        );
    }
    let third = stage.say_with("3", mention.clone()).await;
    let pushed = stage.pushed(&muted, 1).await.remove(0);
    assert_eq!(
        told(&pushed),
        (third, 0),
        "muted conversations do not count"
    );

    stage
        .change_notifications("bob", json!({"mentions": false}))
        .await;
    let fourth = stage.say_with("4", mention).await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", fourth).await,
        ["phone suppressed muted"]
    );

    stage
        .change_notifications("bob", json!({"muted_until": null}))
        .await;
    let fifth = stage.say("5").await;
    assert_eq!(told(&stage.pushed(&muted, 2).await[1]), (fifth, 5));
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn quiet_hours_postpone_and_urgent_messages_do_not_wait(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let (bob, carol) = (
        stage.apns("bob", "phone").await,
        stage.apns("carol", "phone").await,
    );
    for user in ["bob", "carol"] {
        stage.put(user, "/v1/me/quiet-hours", quiet_now()).await;
    }
    let first = stage.say("1").await;
    stage.settle().await;
    for user in ["bob", "carol"] {
        assert_eq!(
            stage.ledger(user, first).await,
            [
                "phone postponed quiet_hours",
                "phone waits armed quiet_hours"
            ]
        );
    }
    stage.delete("bob", "/v1/me/quiet-hours").await;
    stage.pass(24).await;
    assert_eq!(told(&stage.pushed(&bob, 1).await[0]), (first, 1));
    stage.settle().await;
    assert!(stage.seen(&carol).is_empty(), "still, or again");
    assert_eq!(
        stage.ledger("carol", first).await,
        [
            "phone postponed quiet_hours",
            "phone waits armed quiet_hours"
        ],
        "it is noted once"
    );

    let second = stage.say_with("2", json!({"urgent": true})).await;
    let pushed = stage.pushed(&carol, 1).await.remove(0);
    assert_eq!(told(&pushed), (second, 2), "it tells of the other, too");
    assert_eq!(
        pushed.payload["aps"]["interruption-level"],
        "time-sensitive"
    );
    stage.settle().await;
    assert_eq!(
        stage.ledger("carol", first).await,
        ["phone postponed quiet_hours", "phone sent accepted"]
    );
    stage.stop().await;
}

/// From an hour ago to an hour ahead.
fn quiet_now() -> Value {
    let clock = |at: OffsetDateTime| format!("{:02}:{:02}", at.hour(), at.minute());
    let now = OffsetDateTime::now_utc();
    let hour = Duration::hours(1);
    json!({"from": clock(now - hour), "until": clock(now + hour), "zone": "UTC"})
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_has_expired_is_not_pushed(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let sentinel = stage.apns("carol", "phone").await;
    let stale = stage.say_with("1", json!({"expires_at": 1})).await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", stale).await,
        ["phone suppressed expired"]
    );

    // In half an hour: in time for who is away, too late for whose tablet is looked at.
    let tablet = stage.broker.device("bob", "tablet").await;
    let in_half_an_hour = OffsetDateTime::now_utc().unix_timestamp() + 1800;
    let fresh = json!({"expires_at": in_half_an_hour * 1000});
    let fresh = stage.say_with("2", fresh).await;
    let pushed = stage.pushed(&sentinel, 1).await.remove(0);
    let expires_at = pushed.headers["apns-expiration"].parse();
    assert_eq!((told(&pushed).0, expires_at), (fresh, Ok(in_half_an_hour)));
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", fresh).await[0],
        "phone cancelled expired"
    );
    assert!(stage.seen(&phone).is_empty());
    drop(tablet);
    stage.stop().await;
}

/// Goal: a storm does not reach one phone.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_budget_keeps_a_storm_from_the_device(pool: PgPool) {
    let settings = [("push.budget_burst", "2"), ("push.budget_interval", "1h")];
    let stage = Stage::set_with(pool, &settings).await;
    let phone = stage.apns("bob", "phone").await;
    for count in 1..=4 {
        let other = stage.broker.conversation(&["alice", "bob"]).await;
        stage.say_in(&other, "1", json!({})).await;
        stage.pushed(&phone, count.min(2)).await;
    }
    stage.settle().await;
    assert_eq!(stage.seen(&phone).len(), 2);
    stage.pass(1).await;
    stage.pushed(&phone, 3).await;
    stage.settle().await;
    assert_eq!(stage.seen(&phone).len(), 3);
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_is_signed_out_is_not_woken(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let sentinel = stage.apns("carol", "phone").await;
    let path = "/v1/devices/phone/push-token";
    let (status, _) = stage
        .broker
        .request(Method::DELETE, "bob", path, None)
        .await;
    assert_eq!(status, 204);
    let message = stage.say("1").await;
    stage.pushed(&sentinel, 1).await;
    stage.settle().await;
    assert_eq!(stage.ledger("bob", message).await, ["phone no_token"]);
    assert!(stage.seen(&phone).is_empty());
    stage.stop().await;
}
