//! Limits: silence, slow readers, tokens that end, too many connections and publishes.

use std::time::Duration;

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::{Connect, Received, TestBroker, now_unix, until};

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_silent_device_is_disconnected(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let (mut phone, _) = broker
        .connect(broker.v5("alice", "phone").keep_alive(1))
        .await;
    let (mut old, _) = broker
        .connect(broker.v3("alice", "old").keep_alive(1))
        .await;
    let (mut patient, _) = broker
        .connect(broker.v5("alice", "patient").keep_alive(60))
        .await;
    phone.assert_disconnected(0x8d).await;
    assert_eq!(old.receive().await, Received::Closed);
    patient.assert_quiet().await;
    broker.stop().await;
}

/// Goal: silence is not held against a device while the server does not read from it. The
/// writer is kept busy by a lock, so that no publish is acknowledged meanwhile.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_is_not_silent_while_nobody_listens(pool: PgPool) {
    let settings = [("mqtt.receive_max", "2")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice"]).await;
    let (mut silent, _) = broker
        .connect(broker.v5("alice", "silent").keep_alive(2))
        .await;
    let (mut old, _) = broker
        .connect(broker.v3("alice", "old").keep_alive(1))
        .await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("select from conversations for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    for id in ["1", "2", "3"] {
        old.begin_say(&conversation, id).await;
    }
    old.send(&[0xc0, 0]).await;
    silent.assert_disconnected(0x8d).await; // three seconds, twice what `old` may be silent
    lock.rollback().await.unwrap();
    // The PINGRESP need not wait for the commit of what was read together with the PINGREQ.
    let (mut acknowledged, mut is_answered) = (Vec::new(), false);
    while acknowledged.len() < 3 || !is_answered {
        match old.receive().await {
            Received::PubAck(puback) => acknowledged.push(puback.packet_id),
            Received::PingResp => is_answered = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acknowledged, [1, 2, 3]);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_token_that_ends_ends_the_connection_after_a_warning(pool: PgPool) {
    let settings = [("auth.expiry_warning", "2s"), ("auth.leeway", "0s")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let brief = broker.token_at("alice", now_unix(), Duration::from_secs(3));
    let mut phone = broker.open().await;
    let connack = phone.connect(Connect::v5("phone", &brief).expiry(60)).await;
    assert_eq!(connack.code, 0);
    phone.subscribe(&["me/device"]).await;
    let warning = phone.delivery().await;
    assert_eq!(warning.topic, "me/device");
    assert_eq!(warning.json()["event"], "token_expires");
    assert!(warning.json()["in_seconds"].as_u64().unwrap() <= 2);
    phone.assert_disconnected(0x87).await;
    let (_phone, connack) = broker.connect(broker.v5("alice", "phone")).await;
    assert!(connack.is_present, "a new token goes on");
    broker.stop().await;
}

/// A clock difference that is forgiven at CONNECT is forgiven afterwards too.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_forgiven_token_is_not_cut_off_at_once(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let late = broker.token_at("alice", now_unix() - 70, Duration::from_mins(1));
    let (mut phone, _) = broker.connect(Connect::v5("phone", &late)).await;
    phone.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn one_connection_too_many_is_closed_at_once(pool: PgPool) {
    let settings = [("mqtt.connections_max", "2")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let phone = broker.device("alice", "phone").await;
    let mut tablet = broker.device("alice", "tablet").await;
    let mut third = broker.open().await;
    assert_eq!(third.receive().await, Received::Closed);
    let limited = r#"outcome="Limited""#.to_lowercase();
    let metrics = broker.metrics().await.to_lowercase();
    assert!(metrics.contains(&limited), "{metrics}");
    tablet.assert_quiet().await;
    phone.disconnect().await;
    until("room for another", async || {
        let mut third = broker.open().await;
        third
            .send_anyway(&broker.v5("alice", "third").bytes())
            .await;
        matches!(third.receive().await, Received::ConnAck(connack) if connack.code == 0)
    })
    .await;
    broker.stop().await;
}

/// Goal: past its rate a device is read more slowly; nothing is refused or lost, and
/// another device does not wait. Bursts of five seconds' worth are free.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_loud_device_is_read_more_slowly(pool: PgPool) {
    let settings = [("mqtt.publishes_per_second", "20")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut loud = broker.device("alice", "loud").await;
    let start = now_unix();
    for number in 0..140 {
        if number >= 60 {
            assert_eq!(loud.puback().await.code, 0);
        }
        loud.begin_say(&conversation, &number.to_string()).await;
        if number == 110 {
            let mut other = broker.device("bob", "other").await;
            other.say(&conversation, "not slowed down").await;
        }
    }
    for _ in 0..60 {
        assert_eq!(loud.puback().await.code, 0);
    }
    assert!(
        now_unix() > start,
        "140 are 40 more than a burst: two seconds"
    );
    assert_eq!(broker.log("bob", &conversation).await.len(), 141);
    broker.stop().await;
}

/// Goal: a device that never reads disturbs no other and loses
/// nothing: it gets everything in order when it reads again.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_does_not_read_disturbs_nobody_and_loses_nothing(pool: PgPool) {
    let settings = [
        ("mqtt.outbound_bytes_max", "65536"),
        ("mqtt.inflight_max", "1000"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut stuck = broker.listener("bob", "stuck").await;
    let mut witness = broker.listener("bob", "witness").await;
    let mut sender = broker.device("alice", "sender").await;
    let topic = format!("c/{conversation}/send");
    for number in 1..=200 {
        let body = "x".repeat(50_000);
        let payload = json!({"id": number.to_string(), "body": body}).to_string();
        assert_eq!(sender.ask(&topic, payload.as_bytes()).await.code, 0);
        witness.drain(number, number).await;
    }
    let ids = stuck.drain(1, 200).await;
    assert_eq!(ids.last().unwrap(), "200");
    broker.stop().await;
}

/// The same for one that comes back instead, after it was disconnected for it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_does_not_read_at_all_is_disconnected_and_may_come_back(pool: PgPool) {
    let settings = [
        ("mqtt.outbound_bytes_max", "65536"),
        ("mqtt.inflight_max", "1000"),
        ("mqtt.write_timeout", "300ms"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let stuck = broker.listener("bob", "stuck").await;
    let mut sender = broker.device("alice", "sender").await;
    let topic = format!("c/{conversation}/send");
    for number in 1..=200 {
        let body = "x".repeat(50_000);
        let payload = json!({"id": number.to_string(), "body": body}).to_string();
        assert_eq!(sender.ask(&topic, payload.as_bytes()).await.code, 0);
    }
    until("the end of the connection", async || {
        broker
            .metrics()
            .await
            .to_lowercase()
            .contains(r#"cause="slowreader""#)
    })
    .await;
    let (mut back, connack) = broker.connect(broker.v5("bob", "stuck")).await;
    assert!(connack.is_present);
    back.drain(1, 200).await;
    drop(stuck);
    broker.stop().await;
}
