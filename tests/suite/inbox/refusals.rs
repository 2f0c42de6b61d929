//! Bad input of the inbox: each with its problem.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn pages_that_cannot_be_are_refused_with_a_cure(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let late = format!("?after={}", "_".repeat(32));
    for (query, says) in [
        ("?limit=0", "between 1 and 100"),
        ("?limit=101", "between 1 and 100"),
        ("?limit=x", "limit"),
        ("?limit=99999999999999999999", "limit"),
        ("?after=x", "next_after"),
        ("?after=", "next_after"),
        (late.as_str(), "next_after"),
        ("?kind=both", "`direct`"),
        ("?unread=perhaps", "unread"),
        ("?changed_since=-1", "milliseconds"),
        ("?changed_since=9223372036854775807", "milliseconds"),
        ("?changed_since=yesterday", "changed_since"),
        ("?x=1", "`x`"),
        ("?limit=1&limit=2", "twice"),
    ] {
        let path = format!("/v1/inbox{query}");
        let (status, problem) = broker.request(Method::GET, "alice", &path, None).await;
        assert_eq!(status, 400, "{query}: {problem}");
        assert_eq!(problem["type"], "urn:homing:problem:invalid", "{query}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{query}: {detail}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn changes_that_cannot_be_are_refused_and_change_nothing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mine = broker.conversation(&["alice", "bob"]).await;
    let foreign = broker.conversation(&["bob"]).await;
    let left = broker.conversation(&["bob", "alice"]).await;
    broker.remove(&left, "alice").await;
    let before = super::row(&broker, "alice", &mine).await;
    let unknown = "A".repeat(22);
    for (conversation, change, status) in [
        (mine.as_str(), json!({"pinned": 1}), 400),
        (&mine, json!({"muted_until": -1}), 400),
        (&mine, json!({"muted_until": "soon"}), 400),
        (&mine, json!({"muted_until": i64::MAX}), 400),
        (&mine, json!({"read": 0}), 400),
        (&mine, json!({"read": -3}), 400),
        (&mine, json!({"read": "1"}), 400),
        (&mine, json!({"unread": 0}), 400),
        (&mine, json!([true]), 400),
        ("x", json!({"pinned": true}), 400),
        (&foreign, json!({"pinned": true}), 404),
        (&foreign, json!({"read": 1}), 404),
        (&left, json!({"pinned": true}), 404),
        (&unknown, json!({"pinned": true}), 404),
    ] {
        let path = format!("/{conversation}/inbox");
        let answer = broker.rest(Method::PATCH, "alice", &path, Some(change.clone()));
        let (answered, problem) = answer.await;
        assert_eq!(answered, status, "{change}: {problem}");
        assert!(problem["detail"].is_string(), "{change}: {problem}");
    }
    assert_eq!(super::row(&broker, "alice", &mine).await, before);
    for conversation in [foreign.as_str(), &unknown] {
        let path = format!("/{conversation}/inbox");
        let (status, _) = broker.rest(Method::GET, "alice", &path, None).await;
        assert_eq!(status, 404);
    }
    broker.stop().await;
}
