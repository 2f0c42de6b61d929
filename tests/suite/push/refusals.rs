//! What providers say about a token.

use sqlx::PgPool;

use super::{Stage, apns, apns_token, told};
use crate::providers::{Fault, Gate, Kind, Seen, script::Refusal};

/// The end of time, in milliseconds since 1970: later than any registration.
const LATER: i64 = 4_102_444_800_000;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_dead_token_is_used_no_more_until_it_is_registered_again(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let pixel = stage.fcm("bob", "pixel").await;
    stage.web("bob", "browser", "en").await;
    let sentinel = stage.apns("carol", "phone").await;
    for (token, fault) in [
        (&*phone, Fault::gone("Unregistered", LATER)),
        (&pixel, Fault::refuse(404, "UNREGISTERED")),
        ("bob-browser", Fault::refuse(410, "gone")),
    ] {
        stage.providers.script(token, [fault]);
    }
    let first = stage.say("1").await;
    stage.pushed(&sentinel, 1).await;
    stage.settle().await;
    let ledger = stage.ledger("bob", first).await;
    assert_eq!(
        ledger[..2],
        ["phone dead Unregistered", "pixel dead UNREGISTERED"]
    );
    assert!(ledger[2].starts_with("browser dead"), "{ledger:?}");

    let second = stage.say("2").await;
    stage.pushed(&sentinel, 2).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", second).await,
        ["phone no_token", "pixel no_token", "browser no_token"]
    );
    assert_eq!(stage.providers.seen().accepted.len(), 2, "carol's");

    // What a device registers is what it is woken by, whatever was thought of it.
    stage.apns("bob", "phone").await;
    stage.fcm("bob", "pixel").await;
    let third = stage.say("3").await;
    assert_eq!(told(&stage.pushed(&phone, 1).await[0]), (third, 3));
    stage.pushed(&pixel, 1).await;
    stage.stop().await;
}

/// Goal: Apple tells when a token died; if it was registered after that, it lives again.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_died_before_it_was_registered_lives(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    stage
        .providers
        .script(&phone, [Fault::gone("Unregistered", 1_000)]);
    let first = stage.say("1").await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", first).await,
        ["phone dropped Unregistered"]
    );
    let second = stage.say("2").await;
    assert_eq!(told(&stage.pushed(&phone, 1).await[0]), (second, 2));
    stage.stop().await;
}

/// Goal: the death of the old token is not that of the new one, and the message arrives.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_is_replaced_in_flight_takes_over(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let old = stage.apns("bob", "phone").await;
    let (gate, other) = (Gate::new(), Gate::new());
    let mut refusal = Refusal::new(410, "Unregistered");
    refusal.since_millis = Some(LATER);
    let faults = [
        Fault::HoldAndRefuse(gate.clone(), refusal),
        Fault::Hold(other),
    ];
    stage.providers.script(&old, faults);
    let first = stage.say("1").await;
    let arrived = |seen: &Seen| seen.arrived.contains_key(&Kind::Apns).then_some(());
    stage.providers.until("a request", arrived).await;
    let new = apns_token("bob", "new phone");
    stage.register("bob", "phone", apns(&new)).await;
    gate.open();

    let pushed = stage.pushed(&new, 1).await.remove(0);
    assert_eq!(told(&pushed), (first, 1));
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", first).await,
        ["phone retry Unregistered", "phone sent accepted"]
    );
    let ids = notification_ids(&stage, first).await;
    assert!(
        ids.iter().all(|id| *id == pushed.id),
        "{ids:?} {}",
        pushed.id
    );
    let second = stage.say("2").await;
    assert_eq!(told(&stage.pushed(&new, 2).await[1]), (second, 2));
    stage.stop().await;
}

/// Goal: who is told to wait waits as long, and the notification keeps its id.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn too_many_requests_are_repeated_when_the_provider_says(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let pixel = stage.fcm("bob", "pixel").await;
    stage
        .providers
        .script(&phone, [Fault::retry_after(429, "TooManyRequests", "3600")]);
    stage
        .providers
        .script(&pixel, [Fault::retry_after(429, "QUOTA_EXCEEDED", "3600")]);
    let first = stage.say("1").await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", first).await,
        [
            "phone retry TooManyRequests",
            "phone waits backoff",
            "pixel retry QUOTA_EXCEEDED",
            "pixel waits backoff"
        ]
    );
    // What comes meanwhile does not go round the wait, and is told of along with the first.
    let second = stage.say("2").await;
    stage.settle().await;
    assert!(stage.providers.seen().accepted.is_empty());
    stage.pass(1).await;
    let pushed = stage.pushed(&phone, 1).await.remove(0);
    assert_eq!(told(&pushed), (second, 2));
    let message = stage.pushed(&pixel, 1).await.remove(0).payload;
    assert_eq!(message["data"]["seq"], "2");
    stage.settle().await;
    let ids = notification_ids(&stage, first).await;
    assert_eq!(
        ids.iter().filter(|id| **id == pushed.id).count(),
        2,
        "{ids:?}"
    );
    assert_eq!(stage.providers.seen().accepted.len(), 2);
    stage.stop().await;
}

/// The ids under which a message was tried on bob's devices.
async fn notification_ids(stage: &Stage, sequence: i64) -> Vec<String> {
    let devices = stage.explain("bob", sequence).await;
    devices
        .iter()
        .flat_map(|device| device["decisions"].as_array().unwrap())
        .map(|decision| decision["notification_id"].as_str().unwrap().to_owned())
        .collect()
}
