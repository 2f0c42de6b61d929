//! Groups of thousands.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{Answer, ask, entries, group, remove, seen};
use crate::{harness::TestBroker, writes};

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("user{number}")).collect()
}

async fn add(broker: &TestBroker, cid: &str, body: serde_json::Value) -> Answer {
    let path = format!("/conversations/{cid}/participants");
    ask(broker, Method::POST, "alice", &path, Some(body)).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn many_are_added_at_one_entry(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.participants_max", "10")]).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let users = json!({"users": ["carol", "bob", "dave", "carol"], "role": "readonly"});
    assert_eq!(add(&broker, &cid, users.clone()).await.seq(), 1);
    add(&broker, &cid, users).await.assert_unchanged();
    assert_eq!(
        add(&broker, &cid, json!({"users": ["erin", "bob"]}))
            .await
            .seq(),
        2
    );
    let expected = [
        json!({"change": "added", "users": ["carol", "dave"], "role": "readonly"}),
        json!({"change": "added", "user": "erin", "role": "member"}),
    ];
    let log = entries(&broker, "alice", &cid).await;
    assert!(log.into_iter().map(|(_, body)| body).eq(expected));
    assert_eq!(seen(&broker, "bob", &cid).await["role"], "member");
    assert_eq!(seen(&broker, "dave", &cid).await["role"], "readonly");

    for (body, status, kind, says) in [
        (
            json!({"users": names(0..6)}),
            409,
            "full",
            "10 participants",
        ),
        (json!({"users": []}), 400, "invalid", "1 to 1000"),
        (
            json!({"users": names(0..1001)}),
            400,
            "invalid",
            "1 to 1000",
        ),
        (json!({"users": ["a/b"]}), 400, "invalid", ""),
    ] {
        add(&broker, &cid, body)
            .await
            .assert_problem(status, kind, says);
    }
    assert_eq!(
        add(&broker, &cid, json!({"users": names(0..5)}))
            .await
            .seq(),
        3
    );
    let path = format!("/conversations/{cid}/participants");
    let body = Some(json!({"users": ["x", "y"]}));
    let refused = ask(&broker, Method::POST, "bob", &path, body).await;
    refused.assert_problem(403, "forbidden", "an owner or an admin");
    assert_eq!(remove(&broker, "bob", &cid, "bob").await.seq(), 4);
    broker.stop().await;
}

/// Goal: 5,000 take part, all of them are told of a message, and one more finds no room.
#[sqlx::test(migrator = "MIGRATOR")]
async fn five_thousand_take_part(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let participants = ["alice".to_owned()].into_iter().chain(names(0..4_000));
    let body = json!({"participants": participants.collect::<Vec<_>>(), "kind": "group"});
    let made = ask(&broker, Method::POST, "alice", "/conversations", Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let cid = made.body["id"].as_str().unwrap();
    assert_eq!(
        add(&broker, cid, json!({"users": names(4_000..4_999)}))
            .await
            .seq(),
        1
    );
    let refused = add(&broker, cid, json!({"users": ["one-more"]})).await;
    refused.assert_problem(409, "full", "5000");

    let mut last = broker.listener("user4998", "phone").await;
    let mut alice = broker.device("alice", "phone").await;
    assert_eq!(alice.say(cid, "hello all").await, 2);
    assert_eq!(last.drain(2, 2).await, ["hello all"]);
    broker.stop().await;
}

/// Goal: what a message costs does not rise with those it is for, whatever is done with it after
/// its commit.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_message_to_five_hundred_absent_members_writes_three_rows(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let participants: Vec<_> = ["alice".to_owned()]
        .into_iter()
        .chain(names(0..500))
        .collect();
    let participants: Vec<_> = participants.iter().map(String::as_str).collect();
    let cid = broker.conversation(&participants).await;
    let mut alice = broker.device("alice", "phone").await;
    let writes = writes::watch(&pool).await;
    assert_eq!(alice.say(&cid, "1").await, 1);
    // What was put off is done by the end; a session ends, too, and how far the outbox has been
    // read is noted now and then.
    alice.disconnect().await;
    broker.stop().await;
    let mut written = writes.all().await;
    written.retain(|(table, _)| !["sessions", "outbox_consumers"].contains(&table.as_str()));
    let three = ["conversations", "messages", "outbox"].map(|table| (table.to_owned(), 1));
    assert_eq!(written, three);
}
