//! How much of the past newcomers see; what is delivered begins with their joining.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{ask, change, group, put_participant, remove, sequences};
use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn newcomers_see_as_much_as_the_group_grants(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice"], json!({})).await;
    let mut alice = broker.device("alice", "phone").await;
    for number in 0..5 {
        alice.say(&cid, &format!("{number}")).await;
    }
    let mut next = 5;
    for (depth, user, first) in [
        (json!(0), "bob", 6),
        (json!(2), "carol", 6),
        (json!(100), "dave", 1),
        (json!(null), "erin", 1),
    ] {
        let changed = change(&broker, "alice", &cid, json!({"history_depth": depth})).await;
        next += i64::from(changed.status == 200);
        next += 1;
        let mut phone = broker.listener(user, "phone").await;
        let added = put_participant(&broker, "alice", &cid, user, json!({})).await;
        assert_eq!(added.seq(), next);
        let expected: Vec<_> = (first..=next).collect();
        assert_eq!(sequences(&broker, user, &cid).await, expected, "{user}");
        // Only the entry that says so is delivered.
        phone.drain(next, next).await;
        phone.assert_quiet().await;
    }
    // The first participants see everything, whatever was set meanwhile.
    assert_eq!(
        sequences(&broker, "alice", &cid).await.len(),
        usize::try_from(next).unwrap()
    );
    broker.stop().await;
}

/// Coming back follows the same rule as coming.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_comes_back_sees_what_a_newcomer_sees(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&cid, "1").await;
    assert_eq!(remove(&broker, "alice", &cid, "bob").await.seq(), 2);
    alice.say(&cid, "3").await;
    assert_eq!(
        put_participant(&broker, "alice", &cid, "bob", json!({}))
            .await
            .seq(),
        4
    );
    assert_eq!(sequences(&broker, "bob", &cid).await, [4]);
    remove(&broker, "bob", &cid, "bob").await;
    let all = change(&broker, "alice", &cid, json!({"history_depth": null})).await;
    assert_eq!(all.seq(), 6);
    assert_eq!(
        put_participant(&broker, "alice", &cid, "bob", json!({}))
            .await
            .seq(),
        7
    );
    assert_eq!(sequences(&broker, "bob", &cid).await, [1, 2, 3, 4, 5, 6, 7]);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_depth_is_configured_and_may_be_said_at_the_creation(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("conversation.history_depth", "1")]).await;
    let mut alice = broker.device("alice", "phone").await;
    for (depth, expected) in [
        (None, vec![2, 3]),
        (Some(json!(0)), vec![3]),
        (Some(json!(null)), vec![1, 2, 3]),
    ] {
        let mut body = json!({"participants": [], "kind": "group"});
        if let Some(depth) = depth {
            body["history_depth"] = depth;
        }
        let made = ask(&broker, Method::POST, "alice", "/conversations", Some(body)).await;
        let cid = made.body["id"].as_str().unwrap();
        alice.say(cid, "1").await;
        alice.say(cid, "2").await;
        put_participant(&broker, "alice", cid, "bob", json!({})).await;
        assert_eq!(sequences(&broker, "bob", cid).await, expected);
    }
    let body = json!({"participants": ["bob"], "history_depth": -1});
    let refused = ask(&broker, Method::POST, "alice", "/conversations", Some(body)).await;
    refused.assert_problem(400, "invalid", "history_depth");
    broker.stop().await;
}
