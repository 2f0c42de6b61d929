//! Many refused tokens at once are our fault, and nobody loses theirs.

use sqlx::PgPool;

use super::{Stage, told};
use crate::{harness::until, providers::Fault};

/// Goal: a wrong environment or project does not cost the deployment its tokens, and the
/// messages are pushed after the pause.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn many_refused_tokens_pause_the_app_and_survive(pool: PgPool) {
    let settings = [
        ("push.breaker_refusals", "4"),
        ("push.breaker_pause", "100ms"),
    ];
    let stage = Stage::set_with(pool, &settings).await;
    let mut apple = Vec::new();
    let mut google = Vec::new();
    for number in 0..6 {
        let client_id = format!("device-{number}");
        apple.push(stage.apns("bob", &client_id).await);
        google.push(stage.fcm("carol", &client_id).await);
    }
    for token in &apple {
        let fault = Fault::refuse(400, "BadDeviceToken");
        stage.providers.script(token, [fault]);
    }
    for token in &google {
        let fault = Fault::refuse(403, "SENDER_ID_MISMATCH");
        stage.providers.script(token, [fault]);
    }
    let message = stage.say("1").await;
    for token in &apple {
        assert_eq!(told(&stage.pushed(token, 1).await[0]), (message, 1));
    }
    for token in &google {
        stage.pushed(token, 1).await;
    }
    stage.settle().await;
    let dead = "select count(*) from push_tokens where dead_since is not null";
    let dead: i64 = sqlx::query_scalar(dead)
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert_eq!(dead, 0);
    let second = stage.say("2").await;
    for token in apple.iter().chain(&google) {
        stage.pushed(token, 2).await;
    }
    let ledger = stage.ledger("bob", second).await;
    assert!(
        ledger.iter().all(|line| !line.contains("dead")),
        "{ledger:?}"
    );
    let metrics = stage.broker.metrics().await;
    for count in [
        "homing_push_errors_total{provider=\"Apns\",reason=\"BadDeviceToken\"} 6",
        "homing_push_errors_total{provider=\"Fcm\",reason=\"SENDER_ID_MISMATCH\"} 6",
    ] {
        assert!(metrics.contains(count), "{count} of {metrics}");
    }
    stage.stop().await;
}

/// Goal: a token that is refused alone is dead, as Apple means it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_few_refused_tokens_are_dead(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let pixel = stage.fcm("bob", "pixel").await;
    let bad = [
        (&phone, Fault::refuse(400, "BadDeviceToken")),
        (&pixel, Fault::refuse(403, "SENDER_ID_MISMATCH")),
    ];
    for (token, fault) in bad {
        stage.providers.script(token, [fault]);
    }
    let first = stage.say("1").await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", first).await,
        ["phone dead BadDeviceToken", "pixel dead SENDER_ID_MISMATCH"]
    );
    let second = stage.say("2").await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", second).await,
        ["phone no_token", "pixel no_token"]
    );
    stage.stop().await;
}

/// Goal: who ends before the breaker opens has not cost anybody their token.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn refusals_from_before_a_restart_count_and_are_forgiven(pool: PgPool) {
    let settings = [
        ("push.breaker_refusals", "4"),
        ("push.breaker_pause", "100ms"),
    ];
    let stage = Stage::set_with(pool, &settings).await;
    let mut tokens = Vec::new();
    for number in 0..3 {
        tokens.push(stage.apns("bob", &format!("device-{number}")).await);
    }
    let refuse = |stage: &Stage, token: &str| {
        let fault = Fault::refuse(400, "BadDeviceToken");
        stage.providers.script(token, [fault]);
    };
    for token in &tokens {
        refuse(&stage, token);
    }
    stage.say("1").await;
    let dead = async |stage: &Stage| -> i64 {
        let dead = "select count(*) from push_tokens where dead_since is not null";
        let dead = sqlx::query_scalar(dead).fetch_one(&stage.pool);
        dead.await.unwrap()
    };
    until("three dead tokens", async || dead(&stage).await == 3).await;
    stage.settle().await;

    let stage = stage.restart().await;
    tokens.push(stage.apns("carol", "device-3").await);
    refuse(&stage, &tokens[3]);
    stage.say("2").await;

    for token in &tokens {
        stage.pushed(token, 1).await;
    }
    stage.settle().await;
    assert_eq!(dead(&stage).await, 0);
    stage.stop().await;
}
