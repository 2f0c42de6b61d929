//! Threads: pages both ways, around a place and a time, with all changes applied.

use homing::{
    domain::{
        ids::{ClientMessageId, Subject, UserId},
        message::{Content, NewMessage, Sequence},
    },
    store::{MIGRATOR, changes::append_changes, messages::Outcome},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::TestBroker,
    store::{server_process, until_blocking},
};

async fn thread(broker: &TestBroker, user: &str, conversation: &str, query: &str) -> Value {
    let path = format!("/{conversation}/thread{query}");
    let (status, body) = broker.rest(Method::GET, user, &path, None).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

fn seqs(thread: &Value) -> Vec<i64> {
    let messages = thread["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|message| message["seq"].as_i64().unwrap())
        .collect()
}

async fn post(broker: &TestBroker, user: &str, conversation: &str, message: Value) -> i64 {
    let path = format!("/{conversation}/messages");
    let (status, body) = broker.rest(Method::POST, user, &path, Some(message)).await;
    assert!(status.is_success(), "{body}");
    body["seq"].as_i64().unwrap()
}

/// Ten messages, 1 to 10, then an edit of 2, a reaction of both to 3 and a retraction of 4.
async fn story(broker: &TestBroker) -> String {
    let group = broker.conversation(&["alice", "bob"]).await;
    for number in 1..=10 {
        let message = json!({"id": number.to_string(), "body": format!("message {number}")});
        post(broker, "alice", &group, message).await;
    }
    for (user, change) in [
        (
            "alice",
            json!({"id": "e", "type": "edit", "ref": 2, "body": "better", "x": 1}),
        ),
        (
            "alice",
            json!({"id": "r", "type": "reaction", "ref": 3, "body": {"key": "👍"}}),
        ),
        (
            "bob",
            json!({"id": "r", "type": "reaction", "ref": 3, "body": {"key": "👍"}}),
        ),
        ("alice", json!({"id": "d", "type": "retract", "ref": 4})),
    ] {
        post(broker, user, &group, change).await;
    }
    group
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn changes_show_in_the_messages_that_they_change(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    let read = thread(&broker, "bob", &group, "").await;
    assert_eq!(seqs(&read), (1..=10).collect::<Vec<_>>());
    assert_eq!(
        (&read["last_seq"], &read["epoch"], &read["visible_from"]),
        (&json!(14), &json!(1), &json!(1))
    );
    let message = |seq: usize| read["messages"][seq - 1].clone();
    assert_eq!(
        (&message(1)["version"], &message(1)["edited_at"]),
        (&json!(1), &Value::Null)
    );
    let edited = message(2);
    assert_eq!(
        (&edited["body"], &edited["version"], &edited["x"]),
        (&json!("better"), &json!(11), &json!(1))
    );
    assert_eq!(
        (&edited["type"], &edited["id"]),
        (&json!("text"), &json!("2"))
    );
    assert!(edited["edited_at"].as_i64() >= edited["at"].as_i64());
    assert_eq!(
        message(3)["reactions"],
        json!({"👍": {"count": 2, "mine": true}})
    );
    assert_eq!(message(3)["version"], 13);
    let mut tombstone = message(4);
    tombstone.as_object_mut().unwrap().remove("at");
    let expected = json!({"seq": 4, "id": "4", "from": "alice", "type": "text", "retracted": true, "version": 14});
    assert_eq!(tombstone, expected);
    broker.stop().await;
}

/// Goal: an edit changes what it speaks of. Whom the message mentions, and that it disappears,
/// stays until an edit says otherwise.
#[sqlx::test(migrator = "MIGRATOR")]
async fn an_edit_leaves_mentions_and_expiry(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let later = 253_402_300_799_000_i64;
    let message =
        json!({"id": "1", "body": "hey", "mentions": ["bob"], "expires_at": later, "x": 1});
    let seq = post(&broker, "alice", &group, message).await;
    for (edit, mentions) in [
        (json!({"y": 1, "body": "hello"}), json!(["bob"])),
        (
            json!({"body": "ho", "mentions": ["alice"]}),
            json!(["alice"]),
        ),
        (json!({"body": "hu", "y": 2}), json!(["alice"])),
        (json!({"body": "hi", "z": 1, "mentions": []}), json!([])),
    ] {
        let mut change = json!({"id": edit["body"], "type": "edit", "ref": seq});
        let members = edit.as_object().unwrap().clone();
        change.as_object_mut().unwrap().extend(members);
        post(&broker, "alice", &group, change).await;
        let shown = &thread(&broker, "bob", &group, "").await["messages"];
        let message = shown.as_array().unwrap().last().unwrap();
        let is = |name: &str| message[name].clone();
        assert_eq!(
            (is("seq"), is("body"), is("y"), is("z"), is("x")),
            (
                json!(seq),
                edit["body"].clone(),
                edit["y"].clone(),
                edit["z"].clone(),
                Value::Null
            )
        );
        assert_eq!((is("mentions"), is("expires_at")), (mentions, json!(later)));
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn pages_go_both_ways_and_around(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    let third: i64 = sqlx::query_scalar(
        "update messages set created_at = to_timestamp(1000 + seq) where seq <= 10
         returning case when seq = 3 then 1003000 else 0 end::bigint",
    )
    .fetch_all(&pool)
    .await
    .unwrap()
    .into_iter()
    .max()
    .unwrap();
    for (query, expected, before, after) in [
        ("?limit=3".to_owned(), vec![8, 9, 10], json!(8), Value::Null),
        (
            "?before=8&limit=3".into(),
            vec![5, 6, 7],
            json!(5),
            json!(7),
        ),
        (
            "?before=3&limit=3".into(),
            vec![1, 2],
            Value::Null,
            json!(2),
        ),
        ("?after=0&limit=2".into(), vec![1, 2], Value::Null, json!(2)),
        ("?after=8".into(), vec![9, 10], json!(9), Value::Null),
        ("?after=14".into(), vec![], json!(15), Value::Null),
        ("?after=99".into(), vec![], json!(15), Value::Null),
        ("?before=0".into(), vec![], Value::Null, json!(0)),
        (
            "?around=5&limit=4".into(),
            vec![3, 4, 5, 6],
            json!(3),
            json!(6),
        ),
        (
            "?around=1&limit=4".into(),
            vec![1, 2, 3, 4],
            Value::Null,
            json!(4),
        ),
        (
            "?around=99&limit=4".into(),
            vec![9, 10],
            json!(9),
            Value::Null,
        ),
        (
            format!("?at={third}&limit=2"),
            vec![2, 3],
            json!(2),
            json!(3),
        ),
        (
            format!("?at={}&limit=2", third + 1),
            vec![3, 4],
            json!(3),
            json!(4),
        ),
        ("?at=0&limit=2".into(), vec![1, 2], Value::Null, json!(2)),
    ] {
        let read = thread(&broker, "bob", &group, &query).await;
        assert_eq!(seqs(&read), expected, "{query}");
        assert_eq!(
            (&read["next_before"], &read["next_after"]),
            (&before, &after),
            "{query}: {read}"
        );
    }
    broker.stop().await;
}

/// Goal: whoever asks for the changes since any sequence, in pages of any size, ends with the
/// thread as it is.
#[sqlx::test(migrator = "MIGRATOR")]
async fn changes_since_any_sequence_complete_what_was_known(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    let whole = thread(&broker, "bob", &group, "").await;
    let expected: Vec<_> = whole["messages"].as_array().unwrap().clone();
    for since in 0..=14_i64 {
        for limit in [1, 2, 50] {
            let mut next = since;
            let mut found = std::collections::BTreeMap::new();
            loop {
                let query = format!("?changed_since={next}&limit={limit}");
                let page = thread(&broker, "bob", &group, &query).await;
                for message in page["messages"].as_array().unwrap() {
                    found.insert(message["seq"].as_i64().unwrap(), message.clone());
                }
                match page["next_changed_since"].as_i64() {
                    Some(later) => next = later,
                    None => break,
                }
            }
            let changed = expected
                .iter()
                .filter(|message| message["version"].as_i64().unwrap() > since);
            let changed: Vec<_> = changed.cloned().collect();
            assert_eq!(
                found.into_values().collect::<Vec<_>>(),
                changed,
                "{since} {limit}"
            );
        }
    }
    broker.stop().await;
}

/// Goal: the list of changes is read in two steps, and something changes in between.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_changes_while_changes_are_read_is_not_left_out(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    let mut other = pool.begin().await.unwrap();
    let bob = "select user_id from users where subject = 'bob'";
    let bob = sqlx::query_scalar(bob)
        .fetch_one(&mut *other)
        .await
        .unwrap();
    let lock = "lock table messages in access exclusive mode";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let process = server_process(&mut other).await;
    let react = async {
        until_blocking(&pool, process).await;
        let id = ClientMessageId::new("late".to_owned()).unwrap();
        let reaction = NewMessage {
            conversation: group.parse().unwrap(),
            sender: UserId(bob),
            sender_name: Subject::new("bob").unwrap(),
            sender_device: None,
            content: Content {
                target: Some(Sequence::new(10).unwrap()),
                ..Content::new(id, "reaction", r#"{"key":"x"}"#)
            },
        };
        let stored = append_changes(&mut other, &[reaction], 50).await.unwrap();
        assert!(matches!(stored[0].outcome, Outcome::Stored { .. }));
        other.commit().await.unwrap();
    };
    let changes = thread(&broker, "bob", &group, "?changed_since=9");
    let (changes, ()) = tokio::join!(changes, react);
    assert_eq!(changes["last_seq"], 14);
    assert_eq!(seqs(&changes), [2, 3, 4, 10]);
    assert_eq!(changes["messages"][3]["version"], 15);
    broker.stop().await;
}

/// Goal: what was removed sees nothing from later, in no way.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_was_removed_reads_the_thread_as_it_was(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    post(
        &broker,
        "alice",
        &group,
        json!({"id": "1", "body": "first"}),
    )
    .await;
    post(
        &broker,
        "alice",
        &group,
        json!({"id": "2", "type": "edit", "ref": 1, "body": "second"}),
    )
    .await;
    let left = broker.remove(&group, "bob").await;
    let before = thread(&broker, "bob", &group, "").await;
    post(
        &broker,
        "alice",
        &group,
        json!({"id": "3", "type": "edit", "ref": 1, "body": "secret"}),
    )
    .await;
    post(
        &broker,
        "alice",
        &group,
        json!({"id": "4", "type": "reaction", "ref": 1, "body": {"key": "x"}}),
    )
    .await;
    post(
        &broker,
        "alice",
        &group,
        json!({"id": "5", "body": "later"}),
    )
    .await;
    let after = thread(&broker, "bob", &group, "").await;
    assert_eq!(after["last_seq"], left);
    let shown = |thread: &Value| {
        let message = &thread["messages"][0];
        (message["body"].clone(), message["reactions"].clone())
    };
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(seqs(&after), seqs(&before));
    let delta = thread(&broker, "bob", &group, "?changed_since=0").await;
    assert_eq!(seqs(&delta), seqs(&before));
    assert!(!delta.to_string().contains("secret"));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_was_erased_is_said(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    sqlx::query("update conversations set first_seq = 6")
        .execute(&pool)
        .await
        .unwrap();
    let gap = |from: i64| json!({"from": from, "to": 5, "reason": "retention"});
    for (query, expected, gap) in [
        ("?after=2&limit=2", vec![6, 7], gap(3)),
        ("?around=4&limit=2", vec![6, 7], gap(4)),
        ("?before=8", vec![6, 7], gap(1)),
        ("?changed_since=3&limit=1", vec![6], gap(4)),
        ("?after=7&limit=1", vec![8], Value::Null),
        ("?limit=2", vec![9, 10], Value::Null),
    ] {
        let read = thread(&broker, "bob", &group, query).await;
        assert_eq!((seqs(&read), &read["gap"]), (expected, &gap), "{query}");
        assert_eq!(read["visible_from"], 6);
    }
    broker.stop().await;
}

/// Goal: hashes of parts add up, and both sides compute the same.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_hash_of_a_log_is_the_sum_of_its_parts(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    let hash = async |query: &str| {
        let path = format!("/{group}/hash{query}");
        broker.rest(Method::GET, "bob", &path, None).await
    };
    let value = async |query: &str| {
        let (_, body) = hash(query).await;
        u64::from_str_radix(body["value"].as_str().unwrap(), 16).unwrap()
    };
    let whole = value("").await;
    let parts = value("?to=5").await.wrapping_add(value("?from=6").await);
    assert_eq!(parts, whole);
    // SHA-256("1:alice:1") begins so, says sha256sum.
    assert_eq!(
        hash("?from=1&to=1").await.1,
        json!({"from": 1, "to": 1, "value": "0d607246d3057723"})
    );
    // SHA-256("1:alice:the first"), and the sum of it and SHA-256("2:bob:another"): with ids
    // that are not numbers, no member can stand in for another.
    let named = broker.conversation(&["alice", "bob"]).await;
    for (user, id) in [("alice", "the first"), ("bob", "another")] {
        let path = format!("/{named}/messages");
        let body = json!({"id": id, "body": 1});
        let (status, _) = broker.rest(Method::POST, user, &path, Some(body)).await;
        assert_eq!(status, 201);
    }
    for (query, expected) in [("?to=1", "68060d42c548ba27"), ("", "61728a24a4562053")] {
        let path = format!("/{named}/hash{query}");
        let (_, told) = broker.rest(Method::GET, "bob", &path, None).await;
        assert_eq!(told["value"], expected, "{query}");
    }
    for query in [
        "?from=0",
        "?to=15",
        "?from=9&to=3",
        "?from=x",
        "?to=9223372036854775807",
    ] {
        let (status, problem) = hash(query).await;
        assert_eq!(status, 400, "{query}: {problem}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn threads_that_cannot_be_are_refused(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = story(&broker).await;
    for query in [
        "?before=-1",
        "?after=-1",
        "?around=-1",
        "?changed_since=-1",
        "?at=-1",
        "?at=9223372036854775807",
        "?before=1&after=1",
        "?at=1&around=1",
        "?limit=0",
        "?limit=201",
        "?before=x",
        "?y=1",
    ] {
        let path = format!("/{group}/thread{query}");
        let (status, problem) = broker.rest(Method::GET, "bob", &path, None).await;
        assert_eq!(
            (status.as_u16(), &problem["type"]),
            (400, &json!("urn:homing:problem:invalid")),
            "{query}"
        );
    }
    let unknown = "A".repeat(22);
    for (user, id) in [
        ("carol", group.as_str()),
        ("bob", unknown.as_str()),
        ("admin", group.as_str()),
    ] {
        for leaf in ["thread", "hash"] {
            let path = format!("/{id}/{leaf}");
            let (status, _) = broker.rest(Method::GET, user, &path, None).await;
            assert_eq!(status, 404, "{user} {leaf}");
        }
    }
    broker.stop().await;
}
