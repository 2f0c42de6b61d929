//! What a monitor learns of delivery: how long it takes, and who is behind.

use homing::store::MIGRATOR;
use sqlx::PgPool;

use crate::harness::{TestBroker, until};

/// The value of a metric without labels.
async fn value(broker: &TestBroker, name: &str) -> f64 {
    let metrics = broker.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("{name} of {metrics}"));
    value.trim().parse().unwrap()
}

async fn until_is(broker: &TestBroker, name: &str, wanted: u32) {
    until(name, async || {
        value(broker, name).await.to_bits() == f64::from(wanted).to_bits()
    })
    .await;
}

const LATENCIES: &str = "homing_broker_commit_to_puback_seconds_count ";

/// Goal: each acknowledgement of a live message is one measurement; what nobody acknowledges, and
/// what a device had missed, is none.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_live_delivery_is_measured_from_its_commit_to_its_puback(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let tablet = broker.listener("bob", "tablet").await;
    tablet.disconnect().await;
    let mut careless = broker.device("bob", "careless").await;
    assert_eq!(
        careless.subscribe_with(&[("c/+/messages", 0)], &[]).await,
        [0]
    );
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "one").await;
    sender.say(&conversation, "two").await;
    assert_eq!(careless.delivery().await.seq(), 1);
    assert_eq!(careless.delivery().await.seq(), 2);
    let first = phone.delivery().await;
    let second = phone.delivery().await;
    assert!(value(&broker, LATENCIES).await.abs() < 0.5);
    // Only in order: the first one holds the second one back.
    phone.acknowledge(second.packet_id).await;
    phone.assert_quiet().await;
    assert!(value(&broker, LATENCIES).await.abs() < 0.5);
    phone.acknowledge(first.packet_id).await;
    until_is(&broker, LATENCIES, 2).await;

    let mut tablet = broker.device("bob", "tablet").await;
    tablet.drain(1, 2).await;
    sender.say(&conversation, "three").await;
    tablet.drain(3, 3).await;
    until_is(&broker, LATENCIES, 3).await;
    until_is(&broker, "homing_broker_deliveries_total ", 8).await;
    until_is(&broker, LATENCIES, 3).await;
    broker.stop().await;
}

/// Goal: a device that does not keep up is seen for as long as it is connected and behind.
#[sqlx::test(migrator = "MIGRATOR")]
async fn devices_that_are_behind_are_counted(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let narrow = || broker.v5("bob", "phone").receive_max(2);
    let (mut phone, _) = broker.connect(narrow()).await;
    phone.subscribe(&["c/+/messages"]).await;
    let mut tablet = broker.listener("bob", "tablet").await;
    let mut sender = broker.device("alice", "sender").await;
    for seq in 1..=3 {
        sender.say(&conversation, &seq.to_string()).await;
    }
    let (in_flight, behind) = ("homing_broker_in_flight ", "homing_broker_sessions_behind ");
    until_is(&broker, in_flight, 5).await;
    until_is(&broker, behind, 1).await;
    tablet.drain(1, 3).await;
    until_is(&broker, in_flight, 2).await;
    until_is(&broker, behind, 1).await;
    phone.drain(1, 2).await;
    until_is(&broker, in_flight, 1).await;
    until_is(&broker, behind, 0).await;

    sender.say(&conversation, "4").await;
    sender.say(&conversation, "5").await;
    until_is(&broker, behind, 1).await;
    phone.disconnect().await;
    until_is(&broker, behind, 0).await;
    tablet.drain(4, 5).await;
    until_is(&broker, in_flight, 0).await;
    broker.stop().await;
}

/// Goal: a relay that is held back shows it, and so does a pool that keeps it waiting.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_waits_in_the_outbox_shows_its_age(pool: PgPool) {
    let settings = [("store.relay_interval", "50ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice"]).await;
    let mut sender = broker.device("alice", "sender").await;
    let age = "homing_bridge_outbox_age_seconds ";
    let waits = "homing_bridge_pool_wait_seconds_count ";
    until("a look at the pool", async || {
        value(&broker, waits).await > 0.5
    })
    .await;
    // An older transaction that runs: what commits after it may not be read yet.
    let mut old = pool.begin().await.unwrap();
    sqlx::raw_sql("select pg_current_xact_id()")
        .execute(&mut *old)
        .await
        .unwrap();
    sender.say(&conversation, "one").await;
    until("an age", async || value(&broker, age).await >= 0.2).await;
    old.rollback().await.unwrap();
    until_is(&broker, age, 0).await;
    broker.stop().await;
}

/// Goal: what a lost connection makes a device get twice is counted, and nothing else is.
#[sqlx::test(migrator = "MIGRATOR")]
async fn messages_that_are_sent_again_are_counted(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    for id in ["1", "2", "3"] {
        sender.say(&conversation, id).await;
    }
    let first = phone.delivery().await;
    phone.acknowledge(first.packet_id).await;
    assert_eq!(phone.delivery().await.seq(), 2);
    assert_eq!(phone.delivery().await.seq(), 3);
    until_is(&broker, "homing_broker_deliveries_total ", 1).await;
    until_is(&broker, "homing_broker_repeated_total ", 0).await;
    phone.disconnect().await;
    sender.say(&conversation, "4").await;

    let mut phone = broker.device("bob", "phone").await;
    phone.drain(2, 4).await;
    until_is(&broker, "homing_broker_deliveries_total ", 4).await;
    until_is(&broker, "homing_broker_repeated_total ", 2).await;
    broker.stop().await;
}
