//! Whom users do not want to hear of.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, ask, group, put_participant, say};
use crate::harness::TestBroker;

async fn block(broker: &TestBroker, by: &str, user: &str) {
    let path = format!("/me/blocks/{user}");
    ask(broker, Method::PUT, by, &path, None)
        .await
        .assert_unchanged();
}

async fn unblock(broker: &TestBroker, by: &str, user: &str) {
    let path = format!("/me/blocks/{user}");
    ask(broker, Method::DELETE, by, &path, None)
        .await
        .assert_unchanged();
}

async fn create(broker: &TestBroker, by: &str, body: Value) -> Answer {
    ask(broker, Method::POST, by, "/conversations", Some(body)).await
}

/// Who of a conversation is marked as blocked, where each message is judged.
async fn marked(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select u.subject from participants p join users u on u.user_id = p.user_id
         where p.is_blocked order by u.subject",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_block_marks_the_other_one_of_the_direct_conversation_until_it_ends(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    create(&broker, "alice", json!({"participants": ["bob"]})).await;
    group(&broker, &["alice", "bob"], json!({})).await;
    let nobody: [&str; 0] = [];
    for (by, user, is_block, expected) in [
        ("alice", "bob", true, &["bob"][..]),
        ("alice", "bob", true, &["bob"]),
        ("bob", "alice", true, &["alice", "bob"]),
        ("alice", "bob", false, &["alice"]),
        ("alice", "bob", false, &["alice"]),
        ("bob", "alice", false, &nobody),
    ] {
        if is_block {
            block(&broker, by, user).await;
        } else {
            unblock(&broker, by, user).await;
        }
        assert_eq!(marked(&pool).await, expected, "{by} {user} {is_block}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn between_two_of_whom_one_blocks_nothing_begins(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    block(&broker, "alice", "bob").await;
    let refused = create(&broker, "alice", json!({"participants": ["bob"]})).await;
    refused.assert_problem(403, "blocked", "unblock them first");
    for (by, participants) in [
        ("bob", json!(["alice"])),
        ("admin", json!(["alice", "bob"])),
    ] {
        let refused = create(&broker, by, json!({"participants": participants})).await;
        refused.assert_problem(403, "blocked", "one of the two");
    }
    unblock(&broker, "alice", "bob").await;
    let made = create(&broker, "bob", json!({"participants": ["alice"]})).await;
    assert_eq!(made.status, 201);
    // What there is already is still found.
    block(&broker, "alice", "bob").await;
    let again = create(&broker, "bob", json!({"participants": ["alice"]})).await;
    assert_eq!(again.status, 200);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_blocked_brings_the_other_one_into_no_group(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    block(&broker, "alice", "bob").await;
    let body = json!({"participants": ["carol", "alice"]});
    let refused = create(&broker, "bob", body).await;
    refused.assert_problem(403, "blocked", "alice has blocked you");
    let cid = group(&broker, &["bob", "carol"], json!({"carol": "admin"})).await;
    let refused = put_participant(&broker, "bob", &cid, "alice", json!({})).await;
    refused.assert_problem(403, "blocked", "alice has blocked you");
    for (path, body) in [
        ("participants", json!({"users": ["dave", "alice"]})),
        ("transfer", json!({"from": ["carol"], "to": ["alice"]})),
    ] {
        let path = format!("/conversations/{cid}/{path}");
        let refused = ask(&broker, Method::POST, "bob", &path, Some(body)).await;
        refused.assert_problem(403, "blocked", "alice has blocked you");
    }
    let added = put_participant(&broker, "carol", &cid, "alice", json!({})).await;
    assert_eq!(added.seq(), 1, "others may");
    // The blocker may bring the one they block.
    let other = group(&broker, &["alice"], json!({})).await;
    let added = put_participant(&broker, "alice", &other, "bob", json!({})).await;
    assert_eq!(added.seq(), 1);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_list_of_blocks_comes_in_pages(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let names = ["zoe", "bob", "mia", "carol", "eve"];
    // Users have numbers in the order in which they were first named.
    for name in names {
        block(&broker, "alice", name).await;
    }
    block(&broker, "zoe", "alice").await;
    let mut listed = Vec::new();
    let mut path = "/me/blocks?limit=2".to_owned();
    loop {
        let page = ask(&broker, Method::GET, "alice", &path, None).await;
        let blocks = page.body["blocks"].as_array().unwrap();
        assert!(
            blocks
                .iter()
                .all(|block| block["since"].as_i64().unwrap() > 0)
        );
        listed.extend(
            blocks
                .iter()
                .map(|block| block["user"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.body["next_after"].as_str() else {
            break;
        };
        path = format!("/me/blocks?limit=2&after={next}");
    }
    assert_eq!(listed, names);
    for (path, says) in [
        ("/me/blocks?limit=0", "nonzero"),
        ("/me/blocks?limit=201", "limit"),
        ("/me/blocks?after=stranger", "next_after"),
    ] {
        let refused = ask(&broker, Method::GET, "alice", path, None).await;
        refused.assert_problem(400, "invalid", says);
    }
    let refused = ask(&broker, Method::PUT, "alice", "/me/blocks/alice", None).await;
    refused.assert_problem(400, "invalid", "themself");
    unblock(&broker, "alice", "nobody-knows").await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_blocked_writes_nothing_to_the_other_one(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let made = create(&broker, "alice", json!({"participants": ["bob"]})).await;
    let cid = made.body["id"].as_str().unwrap();
    block(&broker, "alice", "bob").await;
    let refused = say(&broker, "bob", cid, "1").await;
    refused.assert_problem(403, "blocked", "");
    assert_eq!(say(&broker, "alice", cid, "a").await.body["seq"], 1);
    let cid_of_group = group(&broker, &["alice", "bob"], json!({})).await;
    let sent = say(&broker, "bob", &cid_of_group, "1").await;
    assert_eq!(sent.body["seq"], 1, "a group is not theirs alone");
    unblock(&broker, "alice", "bob").await;
    assert_eq!(say(&broker, "bob", cid, "1").await.body["seq"], 2);
    broker.stop().await;
}
