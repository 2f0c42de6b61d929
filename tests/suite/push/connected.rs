//! Devices that are connected: what counts is that they acknowledge.

use sqlx::PgPool;

use super::{Stage, told};
use crate::{
    harness::{Wire, until},
    providers::BlackHole,
};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_acknowledges_is_not_woken_and_who_does_not_is_after_the_grace(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let (answers, silent) = (
        stage.apns("bob", "phone").await,
        stage.apns("carol", "phone").await,
    );
    let mut phone = stage.broker.listener("bob", "phone").await;
    let mut deaf = stage.broker.listener("carol", "phone").await;
    let message = stage.say("1").await;
    phone.drain(1, 1).await;
    assert_eq!(deaf.delivery().await.seq(), 1);
    until("the acknowledgement", async || {
        stage.ledger("bob", message).await == ["phone acknowledged_before_due"]
    })
    .await;
    stage.settle().await;
    assert!(stage.providers.seen().accepted.is_empty(), "not yet");

    stage.pass(1).await;
    assert_eq!(told(&stage.pushed(&silent, 1).await[0]), (1, 1));
    stage.settle().await;
    assert_eq!(
        stage.ledger("carol", message).await,
        ["phone sent accepted"]
    );
    assert_eq!(
        stage.ledger("bob", message).await,
        ["phone acknowledged_before_due"]
    );
    assert!(stage.seen(&answers).is_empty());
    stage.stop().await;
}

/// Goal: a connection that swallows everything looks alive to TCP, and not to us: the message
/// is pushed, and the next one without the grace, until the device says something.
/// Method: the late pass is made to overlook the next message, and the early one wakes nobody
/// who is thought to be connected.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_half_open_connection_is_suspected_until_a_sign_of_life(pool: PgPool) {
    let graces = [
        ("push.grace_connected", "200ms"),
        ("push.grace_elsewhere", "200ms"),
    ];
    let stage = Stage::set_with(pool, &graces).await;
    let token = stage.apns("bob", "phone").await;
    let tunnel = BlackHole::before(stage.broker.mqtt()).await;
    let mut phone = Wire::open(tunnel.address).await;
    let connack = phone.connect(stage.broker.v5("bob", "phone")).await;
    assert_eq!(connack.code, 0);
    phone.subscribe(&["c/+/messages"]).await;

    tunnel.swallow();
    stage.say("1").await;
    stage.pushed(&token, 1).await;
    until_suspect(&stage, true).await;

    let blind = "update outbox_consumers set xid = '9223372036854775807' where name = 'push-late'";
    sqlx::query(blind).execute(&stage.pool).await.unwrap();
    stage.say("2").await;
    assert_eq!(told(&stage.pushed(&token, 2).await[1]), (2, 2));

    // It gets a new connection; then it reads, and says nothing but that it lives.
    drop(phone);
    tunnel.heal();
    let mut phone = stage.broker.device("bob", "phone").await;
    phone.drain(1, 2).await;
    until_suspect(&stage, false).await;
    phone.assert_quiet().await;
    stage.stop().await;
}

async fn until_suspect(stage: &Stage, is_suspect: bool) {
    until("a suspicion, or its end", async || {
        let suspected = "select suspected_at is not null from sessions s
                         join devices d using (device_id) join users u using (user_id)
                         where u.subject = 'bob'";
        let found: bool = sqlx::query_scalar(suspected)
            .fetch_one(&stage.pool)
            .await
            .unwrap();
        found == is_suspect
    })
    .await;
}
