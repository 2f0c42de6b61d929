//! What `/metrics` says of it.

use sqlx::PgPool;

use super::Stage;
use crate::{
    harness::until,
    providers::{Fault, Gate, Kind, Seen},
};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn pushes_errors_and_needless_pushes_are_counted(pool: PgPool) {
    let stage = Stage::set(pool).await;
    stage
        .broker
        .listener("bob", "phone")
        .await
        .disconnect()
        .await;
    let phone = stage.apns("bob", "phone").await;
    let pixel = stage.fcm("carol", "pixel").await;
    let browser = stage.web("carol", "browser", "en").await;
    let gate = Gate::new();
    stage.providers.script(&phone, [Fault::Hold(gate.clone())]);
    stage
        .providers
        .script(&pixel, [Fault::refuse(503, "UNAVAILABLE")]);
    stage
        .providers
        .script("carol-browser", [Fault::refuse(410, "gone")]);
    stage.say("1").await;
    let arrived = |seen: &Seen| seen.arrived.contains_key(&Kind::Apns).then_some(());
    stage.providers.until("a request", arrived).await;
    let metrics = stage.broker.metrics().await;
    let in_flight = "homing_push_in_flight{provider=\"Apns\"} 1";
    assert!(metrics.contains(in_flight), "{metrics}");

    // The message is there while its notification is on the way.
    let mut device = stage.broker.device("bob", "phone").await;
    device.drain(1, 1).await;
    until("the acknowledgement", async || {
        let acknowledged = "select exists (select from device_cursors where delivered_seq = 1)";
        let acknowledged = sqlx::query_scalar(acknowledged);
        acknowledged.fetch_one(&stage.pool).await.unwrap()
    })
    .await;
    gate.open();
    stage.pushed(&pixel, 1).await;
    stage.pushed(&phone, 1).await;
    stage.settle().await;

    let metrics = stage.broker.metrics().await;
    for count in [
        "homing_push_armed_total 3",
        "homing_push_notifications_total{provider=\"Apns\",outcome=\"Sent\"} 1",
        "homing_push_notifications_total{provider=\"Fcm\",outcome=\"Sent\"} 1",
        "homing_push_notifications_total{provider=\"Fcm\",outcome=\"Retry\"} 1",
        "homing_push_notifications_total{provider=\"WebPush\",outcome=\"Dead\"} 1",
        "homing_push_errors_total{provider=\"Fcm\",reason=\"UNAVAILABLE\"} 1",
        "homing_push_false_pushes_total 1",
        // The first attempt of pixel was none that arrived.
        "homing_push_commit_to_push_seconds_count 1",
        "homing_push_in_flight{provider=\"Apns\"} 0",
        "homing_push_store_failures_total 0",
    ] {
        assert!(
            metrics.lines().any(|line| line == count),
            "{count} of {metrics}"
        );
    }
    drop(browser);
    stage.stop().await;
}
