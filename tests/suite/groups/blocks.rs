//! Whom users do not want to hear of.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, ask, change, entries, group, put_participant, say, users};
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

/// Goal: with what belongs to both, too: a retention would erase what the other one holds.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_blocked_changes_nothing_of_the_direct_conversation(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let made = create(&broker, "alice", json!({"participants": ["bob"]})).await;
    let cid = made.body["id"].as_str().unwrap();
    block(&broker, "alice", "bob").await;
    for body in [
        json!({"title": "answer me"}),
        json!({"retention_seconds": 1}),
        json!({"history_depth": 0}),
        json!({"receipts": false}),
        json!({}),
    ] {
        let refused = change(&broker, "bob", cid, body).await;
        refused.assert_problem(403, "blocked", "does not want to hear of you");
    }
    assert!(entries(&broker, "alice", cid).await.is_empty());
    let renamed = change(&broker, "alice", cid, json!({"title": "Peace"})).await;
    assert_eq!(renamed.seq(), 1, "who blocks may");
    unblock(&broker, "alice", "bob").await;
    let renamed = change(&broker, "bob", cid, json!({"title": "Thanks"})).await;
    assert_eq!(renamed.seq(), 2);
    broker.stop().await;
}

/// Goal: a page begins after names of the list, so that nobody learns which other names there are.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_list_of_blocks_does_not_say_which_users_there_are(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    block(&broker, "alice", "bob").await;
    block(&broker, "carol", "dave").await;
    for name in ["carol", "dave", "alice", "nobody"] {
        let path = format!("/me/blocks?after={name}");
        let refused = ask(&broker, Method::GET, "alice", &path, None).await;
        refused.assert_problem(400, "invalid", "next_after");
    }
    let page = ask(&broker, Method::GET, "alice", "/me/blocks?after=bob", None).await;
    assert_eq!((page.status, page.body), (200, json!({"blocks": []})));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_full_list_of_blocks_makes_no_user(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    block(&broker, "alice", "bob").await;
    sqlx::query(
        "with made as (
             insert into users (subject) select 'pest-' || n from generate_series(2, 10000) n
             returning user_id
         )
         insert into blocks (user_id, blocked_id)
         select (select user_id from users where subject = 'alice'), user_id from made",
    )
    .execute(&pool)
    .await
    .unwrap();
    let before = users(&pool).await;
    let path = "/me/blocks/one-too-many";
    let refused = ask(&broker, Method::PUT, "alice", path, None).await;
    refused.assert_problem(409, "full", "unblock some first");
    assert_eq!(users(&pool).await, before);
    block(&broker, "alice", "pest-2").await;
    unblock(&broker, "alice", "pest-2").await;
    block(&broker, "alice", "one-too-many").await;
    assert_eq!(users(&pool).await, before + 1);
    broker.stop().await;
}
