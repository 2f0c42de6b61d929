//! Contents that end by themselves.

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use super::{edit, entries, reaction, send, text};
use crate::harness::{TestBroker, until};

/// Goal: what has expired is shown to nobody from that moment on, and soon erased with its
/// edits; its place in the log stays.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_has_expired_is_hidden_and_then_erased(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let later = 4_000_000_000_000_i64;
    let short = json!({"id": "1", "body": "secret", "expires_at": later, "mentions": ["bob"]});
    send(&mut phone, &group, &short).await;
    send(&mut phone, &group, &text("2", "stays")).await;
    send(&mut phone, &group, &edit("3", 1, "secret again")).await;
    send(&mut phone, &group, &reaction("4", 1, "👍")).await;
    assert_eq!(
        entries(&broker, "bob", &group).await[2]["body"],
        "secret again"
    );
    let path = format!("/{group}/thread");
    let (_, thread) = broker.rest(reqwest::Method::GET, "bob", &path, None).await;
    let edited = &thread["messages"][0];
    assert_eq!(
        (&edited["body"], &edited["expires_at"]),
        (&json!("secret again"), &json!(later)),
        "an edit does not hide when it ends"
    );
    sqlx::query("update messages set expires_at = now() where expires_at is not null")
        .execute(&pool)
        .await
        .unwrap();
    for (place, entry) in entries(&broker, "bob", &group).await.iter().enumerate() {
        let is_gone = [0, 2].contains(&place);
        assert_eq!(entry.get("expired").is_some(), is_gone, "{entry}");
        assert_eq!(entry.get("body").is_none(), is_gone, "{entry}");
    }

    let eager = broker.stop().await;
    let mut eager = eager;
    eager
        .settings
        .push(("message.erase_interval".to_owned(), "10ms".to_owned()));
    let broker = eager.start().await;
    until("the contents are erased", async || {
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from messages m where position('secret'::bytea in m.body) > 0
                         or m.extra is not null)
                  + (select count(*) from mentions) + (select count(*) from reactions)",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        left == 0
    })
    .await;
    let read = entries(&broker, "bob", &group).await;
    assert_eq!(
        (&read[0]["expired"], &read[1]["body"]),
        (&json!(true), &json!("stays"))
    );
    let mut phone = broker.device("alice", "phone").await;
    assert_eq!(
        send(&mut phone, &group, &short).await,
        1,
        "a repeat for ever"
    );
    broker.stop().await;
}

/// Goal: a conversation that keeps its contents for an hour begins with what is younger, for
/// those who read it and for devices that come back; it still counts on from there.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_conversation_begins_where_its_retention_ends(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.erase_interval", "10ms")]).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    broker.listener("bob", "phone").await.disconnect().await;
    let mut phone = broker.device("alice", "phone").await;
    for id in ["1", "2", "3", "4"] {
        send(&mut phone, &group, &text(id, "secret")).await;
    }
    for statement in [
        "update messages set created_at = now() - interval '2 hours' where seq <= 2",
        "update conversations set retention_seconds = 3600",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    until("the contents are erased", async || {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from messages where position('secret'::bytea in body) > 0",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        left == 2
    })
    .await;

    let log = broker.log("bob", &group).await;
    assert_eq!(log, [(3, "3".to_owned()), (4, "4".to_owned())]);
    let (mut late, _) = broker.connect(broker.v5("bob", "phone")).await;
    assert_eq!(late.drain(3, 4).await, ["3", "4"]);
    assert_eq!(send(&mut phone, &group, &text("5", "on")).await, 5);
    assert_eq!(late.drain(5, 5).await, ["5"]);
    let gone = phone
        .ask(
            &format!("c/{group}/send"),
            edit("6", 1, "back").to_string().as_bytes(),
        )
        .await;
    assert_eq!(gone.code, 0x99, "{gone:?}");
    broker.stop().await;
}
