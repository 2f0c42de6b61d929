//! Several devices of one user: where somebody looks, the others wait.

use serde_json::json;
use sqlx::PgPool;

use super::{Stage, told};
use crate::harness::until;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_says_it_is_away_is_woken_at_once(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let token = stage.apns("bob", "phone").await;
    let mut phone = stage.broker.listener("bob", "phone").await;
    phone.ask("me/state", b"away").await;
    until("the state", async || {
        let away = "select exists (select from sessions where activity = 'away')";
        sqlx::query_scalar(away)
            .fetch_one(&stage.pool)
            .await
            .unwrap()
    })
    .await;
    stage.say("1").await;
    assert_eq!(told(&stage.pushed(&token, 1).await[0]), (1, 1));
    assert_eq!(
        phone.drain(1, 1).await,
        ["1"],
        "it is connected all the same"
    );
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn while_another_device_is_active_the_push_waits_and_reading_there_ends_it(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let token = stage.apns("bob", "phone").await;
    let mut tablet = stage.broker.listener("bob", "tablet").await;
    stage.say("1").await;
    tablet.drain(1, 1).await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", 1).await[0],
        "phone waits armed",
        "what the tablet acknowledges is not read"
    );
    let topic = format!("c/{}/receipts", stage.conversation);
    assert_eq!(tablet.ask(&topic, br#"{"read":1}"#).await.code, 0);
    until("the receipt", async || {
        let read = "select max(read_seq) = 1 from participants";
        sqlx::query_scalar(read)
            .fetch_one(&stage.pool)
            .await
            .unwrap()
    })
    .await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(stage.ledger("bob", 1).await[0], "phone cancelled read");
    assert!(stage.seen(&token).is_empty());

    // What is not read is pushed in the end; and what nobody looks at is not waited for.
    stage.say("2").await;
    tablet.drain(2, 2).await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert!(stage.seen(&token).is_empty());
    stage.pass(1).await;
    assert_eq!(told(&stage.pushed(&token, 1).await[0]), (2, 1));
    tablet.ask("me/state", b"background").await;
    until("the state", async || {
        let quiet = "select not exists (select from sessions where node is not null
                     and activity = 'active')";
        sqlx::query_scalar(quiet)
            .fetch_one(&stage.pool)
            .await
            .unwrap()
    })
    .await;
    stage.say("3").await;
    assert_eq!(told(&stage.pushed(&token, 2).await[1]), (3, 2));
    stage.stop().await;
}

/// Goal: what has been read elsewhere disappears from the other devices that were told of it;
/// a browser must show something for each push, and is left alone.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn reading_elsewhere_lowers_the_badge_of_who_was_told(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let pixel = stage.fcm("bob", "pixel").await;
    stage.web("bob", "browser", "en").await;
    stage.say("1").await;
    stage.say("2").await;
    for token in [&*phone, &*pixel, "bob-browser"] {
        stage
            .providers
            .until("news of both", |seen| {
                let told = |kind: &str| match kind {
                    "bob-browser" => super::of(&seen.accepted, kind).len() >= 1,
                    _ => super::of(&seen.accepted, kind).iter().any(|accepted| {
                        accepted.payload["homing"]["seq"] == 2
                            || accepted.payload["data"]["seq"] == "2"
                    }),
                };
                told(token).then_some(())
            })
            .await;
    }
    stage.settle().await;
    let before = [&*phone, &*pixel, "bob-browser"].map(|token| stage.seen(token).len());

    stage.read("bob", 1).await;
    stage.settle().await;
    let after = [&*phone, &*pixel, "bob-browser"].map(|token| stage.seen(token).len());
    assert_eq!(after, before, "2 is not read, and shown");

    stage.read("bob", 2).await;
    let cleared = stage.pushed(&phone, before[0] + 1).await.pop().unwrap();
    assert_eq!(
        cleared.payload,
        json!({
            "aps": {"content-available": 1, "badge": 0},
            "homing": {"cleared": [[stage.conversation, 2]]},
        })
    );
    let cleared = stage.pushed(&pixel, before[1] + 1).await.pop().unwrap();
    let data = &cleared.payload["data"];
    let positions = json!([[stage.conversation, 2]]).to_string();
    assert_eq!(
        (&data["badge"], &data["cleared"]),
        (&json!("0"), &json!(positions))
    );
    stage.settle().await;
    assert_eq!(stage.seen("bob-browser").len(), before[2]);
    let ledger = stage.ledger("bob", 2).await;
    for line in [
        "phone clear sent accepted",
        "pixel clear sent accepted",
        "browser clear suppressed webpush",
    ] {
        assert!(ledger.iter().any(|known| known == line), "{ledger:?}");
    }
    stage.stop().await;
}
