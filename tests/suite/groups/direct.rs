//! Two users have one direct conversation.

use std::collections::HashSet;

use futures_util::future::join_all;
use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, ask, change, give_role, put_participant, remove, seen};
use crate::harness::TestBroker;

async fn create(broker: &TestBroker, by: &str, body: Value) -> Answer {
    ask(broker, Method::POST, by, "/conversations", Some(body)).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn creating_it_again_answers_the_one_there_is(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let first = create(&broker, "alice", json!({"participants": ["bob"]})).await;
    assert_eq!((first.status, &first.body["created"]), (201, &json!(true)));
    for (by, body) in [
        ("alice", json!({"participants": ["bob"]})),
        ("bob", json!({"participants": ["alice"]})),
        (
            "bob",
            json!({"participants": ["alice"], "kind": "direct", "title": "Us"}),
        ),
        ("admin", json!({"participants": ["bob", "alice"]})),
    ] {
        let again = create(&broker, by, body).await;
        assert_eq!((again.status, &again.body["created"]), (200, &json!(false)));
        assert_eq!(again.body["id"], first.body["id"]);
    }
    let other = create(&broker, "alice", json!({"participants": ["carol"]})).await;
    let group = json!({"participants": ["bob"], "kind": "group"});
    let group = create(&broker, "alice", group).await;
    assert_eq!((other.status, group.status), (201, 201));
    broker.stop().await;
}

/// Goal: however many create it at the same time, there is one, and both take part in it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn many_who_create_it_at_once_get_the_same_one(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let creations = (0..24).map(|number| {
        let (by, other) = if number % 2 == 0 {
            ("alice", "bob")
        } else {
            ("bob", "alice")
        };
        create(&broker, by, json!({"participants": [other]}))
    });
    let answers = join_all(creations).await;
    let ids: HashSet<_> = answers
        .iter()
        .map(|answer| answer.body["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let new = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(new, 1, "{answers:?}");
    let cid = answers[0].body["id"].as_str().unwrap();
    for user in ["alice", "bob"] {
        assert_eq!(seen(&broker, user, cid).await["kind"], "direct");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn nobody_joins_or_leaves_it_and_both_have_the_same_rights(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let made = create(&broker, "alice", json!({"participants": ["bob"]})).await;
    let cid = made.body["id"].as_str().unwrap();
    for by in ["alice", "bob", "admin"] {
        for refused in [
            put_participant(&broker, by, cid, "carol", json!({})).await,
            give_role(&broker, by, cid, "bob", "admin").await,
            give_role(&broker, by, cid, "bob", "readonly").await,
            remove(&broker, by, cid, "bob").await,
            remove(&broker, by, cid, "alice").await,
            change(&broker, by, cid, json!({"archived": true})).await,
        ] {
            refused.assert_problem(409, "conflict", "block the other");
        }
        for (path, body) in [
            ("transfer", json!({"from": ["bob"], "to": ["carol"]})),
            ("participants", json!({"users": ["carol", "dave"]})),
        ] {
            let path = format!("/conversations/{cid}/{path}");
            let refused = ask(&broker, Method::POST, by, &path, Some(body)).await;
            refused.assert_problem(409, "conflict", "block the other");
        }
        let path = format!("/conversations/{cid}/participants/bob/silence");
        let body = Some(json!({"until": "forever"}));
        let refused = ask(&broker, Method::PUT, by, &path, body).await;
        refused.assert_problem(409, "conflict", "block the other");
    }
    for user in ["alice", "bob"] {
        assert_eq!(seen(&broker, user, cid).await["role"], "member");
    }
    assert_eq!(
        change(&broker, "bob", cid, json!({"receipts": false}))
            .await
            .seq(),
        1
    );
    let roles = json!({"participants": ["carol"], "roles": {"carol": "admin"}});
    let refused = create(&broker, "alice", roles).await;
    refused.assert_problem(400, "invalid", "no roles");
    let refused = put_participant(&broker, "mallory", cid, "mallory", json!({})).await;
    refused.assert_problem(404, "not-found", "");
    broker.stop().await;
}
