//! What a stream tells of.

use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{Stream, TYPING, ids};
use crate::api::{Api, answer};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_tells_of_messages_as_they_come(pool: PgPool) {
    let api = Api::start_with(pool, &[TYPING]).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let foreign = api
        .conversation("carol", json!({"participants": ["dave"]}))
        .await;
    let mut stream = Stream::of(&api, "bob").await;
    api.say("carol", &foreign, "secret").await;
    for id in ["1", "2"] {
        api.say("alice", &path, id).await;
        let told = stream.told(&api, "alice", &path).await;
        assert_eq!(ids(&told), [id]);
        assert!(path.ends_with(told[0].data["conversation"].as_str().unwrap()));
        assert!(told[0].id.parse::<u64>().unwrap() > 1_600_000_000_000);
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_tells_of_receipts_and_the_inbox(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let mut stream = Stream::of(&api, "alice").await;
    let seq = api.say("alice", &path, "1").await;
    let receipts = format!("{path}/receipts");
    let read = api.put("bob", &receipts, json!({"read": seq})).await;
    assert!(read.status < 300, "{}", read.text);
    stream.next("message").await;
    let seen = stream.next("receipt").await;
    assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
    let told = &seen.data["receipt"];
    assert_eq!((&told["user"], &told["read"]), (&json!("bob"), &json!(seq)));
    let inbox = format!("{path}/inbox");
    let request = api
        .request(Method::PATCH, &inbox)
        .json(&json!({"pinned": true}));
    let row = answer(request.bearer_auth(api.token("alice"))).await;
    let patch = loop {
        let seen = stream.next("inbox").await;
        assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
        if seen.data["version"] == row.body["version"] {
            break seen.data;
        }
    };
    assert!(patch["pinned_at"].is_i64(), "{patch}");
    for (name, value) in patch.as_object().unwrap() {
        if name != "since_version" {
            assert_eq!(value, &row.body[name], "{name}");
        }
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_tells_who_types(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let mut stream = Stream::of(&api, "bob").await;
    let typing = format!("{path}/typing");
    for is_typing in [true, false] {
        let answer = api
            .post("alice", &typing, json!({"typing": is_typing}))
            .await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        let seen = stream.next("typing").await;
        assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
        let told = &seen.data["typing"];
        assert_eq!(
            (&told["user"], &told["typing"]),
            (&json!("alice"), &json!(is_typing))
        );
    }
}
