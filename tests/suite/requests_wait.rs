//! Requests over MQTT that the store keeps waiting: they end, and nothing else waits for them.

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};

use crate::harness::TestBroker;

/// Keeps the writers away from every conversation.
async fn lock(conn: &mut PgConnection) -> Transaction<'_, Postgres> {
    let mut tx = conn.begin().await.unwrap();
    sqlx::query("select from conversations for update")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_request_that_takes_too_long_is_answered_as_over_rest(pool: PgPool) {
    let settings = [("http.request_timeout", "1s")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("admin", "phone").await;
    phone.subscribe(&["me/device"]).await;
    let mut conn = pool.acquire().await.unwrap();
    let tx = lock(&mut conn).await;
    let change = json!({"conversation": conversation, "title": "Late"});
    let packet_id = phone
        .publish("q/conversation/change", change.to_string().as_bytes())
        .await;
    let answer = phone.delivery().await.json();
    assert_eq!(phone.puback().await.packet_id, packet_id);
    let path = format!("/{conversation}");
    let body = Some(json!({"title": "Later"}));
    let (status, rest) = broker
        .rest(reqwest::Method::PATCH, "admin", &path, body)
        .await;
    assert_eq!(status, 503, "{rest}");
    assert_eq!(
        (&answer["status"], &answer["body"]),
        (&json!(503), &rest),
        "{answer}"
    );
    tx.rollback().await.unwrap();
    broker.stop().await;
}

/// Goal: while a device waits for an answer, it subscribes, and what waits for it in the log comes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_goes_on_while_a_request_waits(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "admin"]).await;
    let phone = broker.listener("admin", "phone").await;
    phone.disconnect().await;
    let mut alice = broker.device("alice", "phone").await;
    for id in ["1", "2", "3"] {
        alice.say(&conversation, id).await;
    }
    // One message at a time: the next ones are read from the log.
    let connect = broker.v5("admin", "phone").receive_max(1);
    let (mut phone, _) = broker.connect(connect).await;
    let first = phone.delivery().await;
    let mut conn = pool.acquire().await.unwrap();
    let tx = lock(&mut conn).await;
    let change = json!({"conversation": conversation, "title": "Late"});
    let packet_id = phone
        .publish("q/conversation/change", change.to_string().as_bytes())
        .await;
    assert_eq!(phone.subscribe(&["c/+/receipts"]).await, [1]);
    phone.acknowledge(first.packet_id).await;
    for seq in [2, 3] {
        let next = phone.delivery().await;
        assert_eq!(next.seq(), seq);
        phone.acknowledge(next.packet_id).await;
    }
    tx.rollback().await.unwrap();
    let answer = phone.delivery_of("me/device").await.json();
    assert_eq!(answer["operation"], "conversation/change", "{answer}");
    assert_eq!(phone.puback().await.packet_id, packet_id);
    broker.stop().await;
}
