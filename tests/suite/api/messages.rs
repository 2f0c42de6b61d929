//! Sending over REST, and reading the log.

use serde_json::json;
use sqlx::PgPool;

use super::Api;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_message_is_read_as_it_was_sent(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let message = json!({"id": "m1", "type": "pic", "body": {"a": [1.5, "ü"]}, "reply_to": 1, "x": {"y": null}});
    api.say("alice", &path, "m0").await;

    let sent = api
        .post("alice", &format!("{path}/messages"), message.clone())
        .await;
    assert_eq!((sent.status, sent.body), (201, json!({"seq": 2})));

    let read = api.get("bob", &format!("{path}/messages")).await;
    assert_eq!(read.header("content-type"), "application/json");
    let entry = read.body["entries"][1].as_object().unwrap();
    for (member, value) in message.as_object().unwrap() {
        assert_eq!(entry.get(member), Some(value), "{member}");
    }
    assert_eq!(
        (&entry["seq"], &entry["from"]),
        (&json!(2), &json!("alice"))
    );
    assert!(entry["at"].as_i64().unwrap() > 1_600_000_000_000);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_repeat_keeps_its_sequence(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    assert_eq!(api.say("alice", &path, "m1").await, 1);
    assert_eq!(api.say("alice", &path, "m2").await, 2);

    let repeat = json!({"id": "m1", "body": "even with another body"});
    let repeated = api
        .post("alice", &format!("{path}/messages"), repeat.clone())
        .await;
    assert_eq!(
        (repeated.status, repeated.body),
        (200, json!({"seq": 1, "duplicate": true}))
    );
    let other = api.post("bob", &format!("{path}/messages"), repeat).await;
    assert_eq!(
        (other.status, other.body),
        (201, json!({"seq": 3})),
        "ids are the sender's own"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn pages_lead_through_the_log_in_both_directions(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    for id in 1..=5 {
        api.say("alice", &path, &id.to_string()).await;
    }
    let stored = "update messages set created_at = to_timestamp(seq)";
    sqlx::query(stored).execute(&pool).await.unwrap();
    for (query, sequences, next) in [
        ("", vec![1, 2, 3, 4, 5], json!({})),
        ("?limit=2", vec![1, 2], json!({"next_after": 2})),
        ("?after=2&limit=2", vec![3, 4], json!({"next_after": 4})),
        ("?after=4&limit=2", vec![5], json!({})),
        ("?after=3&limit=2", vec![4, 5], json!({})),
        ("?after=5", vec![], json!({})),
        ("?after=9223372036854775807", vec![], json!({})),
        ("?before=6&limit=2", vec![4, 5], json!({"next_before": 4})),
        ("?before=4&limit=2", vec![2, 3], json!({"next_before": 2})),
        ("?before=2&limit=2", vec![1], json!({})),
        ("?before=1", vec![], json!({})),
        ("?before=0", vec![], json!({})),
        (
            "?before=9223372036854775807&limit=1",
            vec![5],
            json!({"next_before": 5}),
        ),
        (
            "?around=3&limit=2",
            vec![2, 3],
            json!({"next_before": 2, "next_after": 3}),
        ),
        (
            "?around=4&limit=3",
            vec![3, 4, 5],
            json!({"next_before": 3}),
        ),
        ("?around=1&limit=3", vec![1, 2, 3], json!({"next_after": 3})),
        ("?around=0&limit=1", vec![1], json!({"next_after": 1})),
        (
            "?around=3&limit=1",
            vec![3],
            json!({"next_before": 3, "next_after": 3}),
        ),
        ("?around=3", vec![1, 2, 3, 4, 5], json!({})),
        (
            "?around=9223372036854775807&limit=4",
            vec![3, 4, 5],
            json!({"next_before": 3}),
        ),
        ("?at=0&limit=2", vec![1, 2], json!({"next_after": 2})),
        (
            "?at=3000&limit=2",
            vec![2, 3],
            json!({"next_before": 2, "next_after": 3}),
        ),
        (
            "?at=3001&limit=2",
            vec![3, 4],
            json!({"next_before": 3, "next_after": 4}),
        ),
        ("?at=5001&limit=2", vec![4, 5], json!({"next_before": 4})),
    ] {
        let (found, mut page) = api.page("bob", &path, query).await;
        assert_eq!(found, sequences, "{query}");
        page.as_object_mut().unwrap().remove("entries");
        assert_eq!(page, next, "{query}");
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_unclear_page_is_refused(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    for (query, says) in [
        ("after=1&before=3", "give one of"),
        ("around=1&at=1", "give one of"),
        ("around=-1", "negative"),
        ("at=-1", "`at` is a time in milliseconds"),
        ("at=9223372036854775807", "`at` is a time in milliseconds"),
        ("after=-1", "negative"),
        ("before=-9", "negative"),
        ("after=x", "after"),
        ("after=", "after"),
        ("after=9223372036854775808", "after"),
        ("after=1&after=2", "`after` is given twice"),
        ("limit=0", "limit"),
        ("limit=201", "between 1 and 200"),
        ("limit=-1", "limit"),
        ("from=1", "from"),
    ] {
        let refused = api.get("alice", &format!("{path}/messages?{query}")).await;
        refused.assert_problem(400, "invalid", says);
    }
    assert_eq!(
        api.page("alice", &path, "?limit=200").await.0,
        Vec::<i64>::new()
    );
}

/// Given a conversation that carol joins late and leaves early, when the talk goes on, then
/// she reads from the entry that says she came to the one that says she went, and no more.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_participant_reads_from_joining_to_removal(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"], "title": "Us"}))
        .await;
    let carol = format!("{path}/participants/carol");
    api.say("alice", &path, "before").await;
    api.put("alice", &carol, json!({})).await;
    api.say("carol", &path, "during").await;
    api.delete("alice", &carol).await;
    api.say("alice", &path, "after").await;

    assert_eq!(api.page("bob", &path, "").await.0, [1, 2, 3, 4, 5]);
    assert_eq!(api.page("carol", &path, "").await.0, [2, 3, 4]);
    assert_eq!(
        api.page("carol", &path, "?before=100&limit=2").await.0,
        [3, 4]
    );
    let message = json!({"id": "late", "body": 1});
    let refused = api
        .post("carol", &format!("{path}/messages"), message)
        .await;
    refused.assert_problem(403, "forbidden", "not write");
    let repeat = json!({"id": "during", "body": 1});
    let repeated = api.post("carol", &format!("{path}/messages"), repeat).await;
    assert_eq!(
        repeated.body,
        json!({"seq": 3, "duplicate": true}),
        "it was accepted then"
    );

    let again = api.put("alice", &carol, json!({})).await;
    assert_eq!(again.body, json!({"seq": 6}));
    assert_eq!(
        api.page("carol", &path, "").await.0,
        [6],
        "and starts anew on return"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_may_not_write_is_told_so_and_strangers_learn_nothing(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"], "title": "Us"}))
        .await;
    api.put(
        "alice",
        &format!("{path}/participants/carol"),
        json!({"role": "readonly"}),
    )
    .await;
    let message = json!({"id": "1", "body": 1});

    let refused = api
        .post("carol", &format!("{path}/messages"), message.clone())
        .await;
    refused.assert_problem(403, "forbidden", "not write");
    let unknown = "/v1/conversations/AZjzwgAAcACAAAAAAAAAAQ";
    let mut texts = Vec::new();
    for path in [path.as_str(), unknown] {
        let sent = api
            .post("eve", &format!("{path}/messages"), message.clone())
            .await;
        sent.assert_problem(404, "not-found", "among yours");
        let read = api.get("eve", &format!("{path}/messages")).await;
        read.assert_problem(404, "not-found", "among yours");
        texts.push((sent.text, read.text));
    }
    assert_eq!(texts[0], texts[1], "closed and absent look the same");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_no_message_is_refused(pool: PgPool) {
    let api = Api::start_with(pool, &[("HOMING__MESSAGE__BYTES_MAX", "2000")]).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let messages = format!("{path}/messages");
    for (message, says) in [
        (json!({"body": 1}), "`id`"),
        (json!({"id": "1"}), "body"),
        (json!({"id": "x".repeat(65), "body": 1}), "`id`"),
        (
            json!({"id": "1", "body": 1, "type": "homing.membership"}),
            "server's",
        ),
        (json!({"id": "1", "body": 1, "seq": 4}), "set by the server"),
        (
            json!({"id": "1", "body": 1, "from": "bob"}),
            "set by the server",
        ),
        (json!({"id": "1", "body": 1, "reply_to": 0}), "starts at 1"),
        (json!(["id"]), "JSON object"),
    ] {
        api.post("alice", &messages, message)
            .await
            .assert_problem(400, "invalid", says);
    }
    let large = json!({"id": "1", "body": "x".repeat(2000)});
    let refused = api.post("alice", &messages, large).await;
    refused.assert_problem(413, "too-large", "2000 are allowed");
    assert!(
        api.page("bob", &path, "").await.0.is_empty(),
        "nothing was stored"
    );
}
