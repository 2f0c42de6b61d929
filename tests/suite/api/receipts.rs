//! How far participants have got.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::Api;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn positions_rise_to_the_newest_entry_and_never_fall(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    for id in ["1", "2", "3"] {
        api.say("alice", &path, id).await;
    }
    let receipts = format!("{path}/receipts");
    assert_eq!(api.get("bob", &path).await.body["unread"], 3);

    for (report, delivered, read) in [
        (json!({"delivered": 1}), 1, 0),
        (json!({"read": 2}), 2, 2),
        (json!({"read": 1, "delivered": 1}), 2, 2),
        (json!({"read": 99}), 3, 3),
    ] {
        let answer = api.put("bob", &receipts, report.clone()).await;
        let expected = json!({"user": "bob", "delivered": delivered, "read": read});
        assert_eq!((answer.status, answer.body), (200, expected), "{report}");
    }
    assert_eq!(api.get("bob", &path).await.body["unread"], 0);

    let listed = api.get("alice", &receipts).await;
    let bob = json!({"user": "bob", "delivered": 3, "read": 3});
    assert!(
        listed.body["receipts"].as_array().unwrap().contains(&bob),
        "{}",
        listed.body
    );
    assert_eq!(listed.body["receipts"].as_array().map(Vec::len), Some(2));

    // What was said beyond the newest entry counts up to that entry, not for what comes later.
    api.say("alice", &path, "4").await;
    assert_eq!(api.get("bob", &path).await.body["unread"], 1);
    let ahead = json!({"delivered": i64::MAX});
    let answer = api.put("bob", &receipts, ahead).await;
    let expected = json!({"user": "bob", "delivered": 4, "read": 3});
    assert_eq!((answer.status, answer.body), (200, expected));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_empty_or_impossible_report_is_refused(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    for (report, says) in [
        (json!({}), "`read`, `delivered`"),
        (json!({"read": null}), "`read`, `delivered`"),
        (json!({"read": 0}), "starts at 1"),
        (json!({"read": -4}), "starts at 1"),
        (json!({"read": "1"}), "i64"),
        (json!({"read": 1, "user": "alice"}), "unknown field"),
        (Value::Null, "body"),
    ] {
        let refused = api.put("bob", &format!("{path}/receipts"), report).await;
        refused.assert_problem(400, "invalid", says);
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_participants_see_and_move_receipts(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob", "carol"]}))
        .await;
    let receipts = format!("{path}/receipts");
    api.say("alice", &path, "1").await;
    api.delete("carol", &format!("{path}/participants/carol"))
        .await;

    for user in ["eve", "carol"] {
        api.get(user, &receipts)
            .await
            .assert_problem(404, "not-found", "");
        let refused = api.put(user, &receipts, json!({"read": 1})).await;
        refused.assert_problem(404, "not-found", "");
    }
    let listed = api.get("alice", &receipts).await.body;
    assert!(!listed.to_string().contains("carol"), "{listed}");
}
