//! What was stored is told, also if what belongs to the same write is stored later, and if nobody
//! heard that it was stored.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::{
    harness::{TestBroker, until},
    outage,
    store::{server_process, until_blocking},
};

async fn is_read(pool: &PgPool) -> bool {
    let is_read = "select exists (select from participants where read_seq = 1)";
    sqlx::query_scalar(is_read).fetch_one(pool).await.unwrap()
}

/// Goal: a read position that is committed is told, although the rest of its write fails and the
/// retry finds nothing new in it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_read_is_told_although_the_rest_of_its_write_failed(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&conversation, "1").await;
    assert_eq!(alice.subscribe(&["c/+/receipts"]).await, [1]);
    let mut bob = broker.device("bob", "phone").await;
    assert_eq!(bob.subscribe(&["me/inbox"]).await, [1]);
    sqlx::raw_sql(
        "create function fail() returns trigger language plpgsql as
             $$ begin raise exception 'not now'; end $$;
         create trigger fail before update of activity on sessions
             for each row execute function fail()",
    )
    .execute(&pool)
    .await
    .unwrap();
    // It cannot be written, and is kept.
    assert_eq!(bob.ask("me/state", b"away").await.code, 0);

    let path = format!("/{conversation}/receipts");
    let report = broker.rest(Method::PUT, "bob", &path, Some(json!({"read": 1})));
    let heal = async {
        until("the position", async || is_read(&pool).await).await;
        let heal = "drop trigger fail on sessions";
        sqlx::query(heal).execute(&pool).await.unwrap();
    };
    let ((status, body), ()) = tokio::join!(report, heal);
    assert_eq!(status, 200, "{body}");
    let receipt = alice.delivery_of("/receipts").await.json();
    let expected = json!({"user": "bob", "delivered": 1, "read": 1});
    assert_eq!(receipt, expected);
    let patch = bob.delivery_of("me/inbox").await.json();
    assert_eq!((&patch["read"], &patch["unread"]), (&json!(1), &json!(0)));
    broker.stop().await;
}

/// Goal: a read position is told although the answer to its write was lost, and the retry finds
/// nothing new in it. Method: the write waits for a lock while its connection is cut.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_read_is_told_although_nobody_heard_that_it_was_stored(pool: PgPool) {
    let (broker, proxy) = outage::start(&pool, &[]).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&conversation, "1").await;
    assert_eq!(alice.subscribe(&["c/+/receipts"]).await, [1]);
    let mut bob = broker.device("bob", "phone").await;
    assert_eq!(bob.subscribe(&["me/inbox"]).await, [1]);

    let mut other = pool.begin().await.unwrap();
    let lock = "select 1 from participants for update";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let process = server_process(&mut other).await;
    let path = format!("/{conversation}/receipts");
    let report = broker.rest(Method::PUT, "bob", &path, Some(json!({"read": 1})));
    let lose = async {
        until_blocking(&pool, process).await;
        proxy.cut();
        other.commit().await.unwrap();
        until("the position", async || is_read(&pool).await).await;
        proxy.heal();
    };
    let ((status, body), ()) = tokio::join!(report, lose);
    assert_eq!(status, 200, "{body}");
    let receipt = alice.delivery_of("/receipts").await.json();
    let expected = json!({"user": "bob", "delivered": 1, "read": 1});
    assert_eq!(receipt, expected);
    let patch = bob.delivery_of("me/inbox").await.json();
    assert_eq!((&patch["read"], &patch["unread"]), (&json!(1), &json!(0)));
    broker.stop().await;
}
