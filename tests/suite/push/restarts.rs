//! Homing stops and starts, and its settings change meanwhile.

use std::fs;

use homing::serve;
use rcgen::KeyPair;
use serde_json::json;
use sqlx::PgPool;

use super::{Fakes, SETTINGS, Stage, apns_token, told};
use crate::{
    harness::{Place, until, within},
    providers::{Fault, Gate, Kind, Seen},
};

/// Goal: what was committed is pushed, although nobody had looked at it before the stop.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_message_from_before_the_restart_is_pushed_once(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let away = stage.apns("bob", "phone").await;
    let silent = stage.apns("carol", "phone").await;
    let phone = stage.broker.listener("carol", "phone").await;
    stage.settle().await;
    let hold = stage.hold().await;
    let first = stage.say("1").await;
    let stage = stage.restart().await;
    assert!(stage.providers.seen().accepted.is_empty());
    hold.rollback().await.unwrap();
    // Whoever was connected is not any more.
    for token in [&away, &silent] {
        assert_eq!(told(&stage.pushed(token, 1).await[0]), (first, 1));
    }
    drop(phone);
    let stage = stage.restart().await;
    stage.pass(3).await;
    stage.settle().await;
    assert_eq!(stage.providers.seen().accepted.len(), 2);
    stage.stop().await;
}

/// Goal: a stop waits for the answer, and knows after the start what became of it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_in_flight_at_the_stop_is_written_down(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let gate = Gate::new();
    stage.providers.script(&phone, [Fault::Hold(gate.clone())]);
    let first = stage.say("1").await;
    let arrived = |seen: &Seen| seen.arrived.contains_key(&Kind::Apns).then_some(());
    stage.providers.until("a request", arrived).await;
    let opened = async {
        tokio::task::yield_now().await;
        gate.open();
    };
    let (stage, ()) = tokio::join!(stage.restart(), opened);
    stage.settle().await;
    assert_eq!(stage.ledger("bob", first).await, ["phone sent accepted"]);
    let second = stage.say("2").await;
    assert_eq!(told(&stage.pushed(&phone, 2).await[1]), (second, 2));
    assert_eq!(stage.seen(&phone).len(), 2);
    stage.stop().await;
}

/// Goal: without an app nobody reads the outbox for it, and it does not grow.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn without_an_app_the_outbox_does_not_wait(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let phone = stage.apns("bob", "phone").await;
    stage.say("1").await;
    stage.pushed(&phone, 1).await;
    let rows = "select count(*) from outbox";
    let kept: i64 = sqlx::query_scalar(rows)
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert!(kept > 0, "the late pass has not read it");

    let stage = stage.restart_with(|place| place.profile.clear()).await;
    let consumers = "select array_agg(name) from outbox_consumers where name like 'push-%'";
    let consumers: Option<Vec<String>> = sqlx::query_scalar(consumers)
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert_eq!(consumers, None);
    stage.say("2").await;
    until("an empty outbox", async || {
        let left: i64 = sqlx::query_scalar(rows)
            .fetch_one(&stage.pool)
            .await
            .unwrap();
        left == 0
    })
    .await;
    assert_eq!(stage.seen(&phone).len(), 1);
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn jobs_of_an_app_that_is_gone_end(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let pixel = stage.fcm("bob", "pixel").await;
    let phone = stage.apns("bob", "phone").await;
    let fault = Fault::retry_after(503, "UNAVAILABLE", "3600");
    stage.providers.script(&pixel, [fault]);
    let first = stage.say("1").await;
    stage.pushed(&phone, 1).await;
    stage.settle().await;
    let stage = stage
        .restart_with(|place| {
            let (before, after) = place.profile.split_once("[[push.fcm]]").unwrap();
            let (_, web) = after.split_once("[[push.web]]").unwrap();
            place.profile = format!("{before}[[push.web]]{web}");
        })
        .await;
    until("the end of the job", async || {
        let ledger = stage.ledger("bob", first).await;
        ledger.contains(&"pixel dropped no_route".to_owned())
    })
    .await;
    let second = stage.say("2").await;
    assert_eq!(told(&stage.pushed(&phone, 2).await[1]), (second, 2));
    stage.settle().await;
    assert_eq!(stage.providers.seen().accepted.len(), 2);
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_bad_key_fails_the_start_and_names_file_and_cure(pool: PgPool) {
    let fakes = Fakes::start().await;
    let credentials = fakes.providers.credentials();
    for (file, content, cure) in [
        (&credentials.apns_key, &b"not a key"[..], "PEM form"),
        (
            &credentials.service_account,
            b"{}",
            "as the console wrote it",
        ),
        (&credentials.vapid_key, b"", "PEM form"),
    ] {
        let good = fs::read(file).unwrap();
        fs::write(file, content).unwrap();
        let place = Place::new(&pool, &SETTINGS).with_profile(&fakes.profile);
        let start = within("the refusal", Box::pin(serve::start(place.config())));
        let error = format!("{:#}", start.await.err().unwrap());
        let name = file.display().to_string();
        assert!(error.contains(&name) && error.contains(cure), "{error}");
        fs::write(file, good).unwrap();
    }
    let place = Place::new(&pool, &SETTINGS).with_profile(&fakes.profile);
    place.start().await.stop().await;
}

/// Goal: a key that was exchanged is used without a restart.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_key_that_is_replaced_is_read_again(pool: PgPool) {
    let fakes = Fakes::start().await;
    let file = fakes.providers.credentials().apns_key.clone();
    let right = fs::read(&file).unwrap();
    fs::write(&file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let stage = Stage::of(pool, fakes, &[]).await;
    let phone = stage.apns("bob", "phone").await;
    fs::write(&file, [&right[..], b"\n"].concat()).unwrap();
    let first = stage.say("1").await;
    assert_eq!(told(&stage.pushed(&phone, 1).await[0]), (first, 1));
    assert_eq!(stage.providers.seen().count(Kind::Apns, 403), 0);
    assert!(file.starts_with(stage.folder.path()));
    stage.stop().await;
}

/// Goal: a wrong key that is well formed costs no message and no token: jobs wait.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_wrong_key_makes_jobs_wait(pool: PgPool) {
    let fakes = Fakes::start().await;
    let file = fakes.providers.credentials().apns_key.clone();
    let right = fs::read(&file).unwrap();
    fs::write(&file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let stage = Stage::of(pool, fakes, &[]).await;
    let phone = stage.apns("bob", "phone").await;
    let first = stage.say_with("1", json!({})).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", first).await,
        ["phone retry InvalidProviderToken", "phone waits backoff"]
    );
    assert!(stage.seen(&apns_token("bob", "phone")).is_empty());
    fs::write(&file, right).unwrap();
    let stage = stage.restart().await;
    stage.pass(1).await;
    assert_eq!(told(&stage.pushed(&phone, 1).await[0]), (first, 1));
    stage.stop().await;
}
