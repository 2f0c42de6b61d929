//! Receipts of large conversations: counts for the authors, few and exact.

use futures_util::StreamExt as _;
use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{TestBroker, Wire},
    requests::ask,
};

/// The next counts.
async fn counts(wire: &mut Wire) -> Value {
    let receipt = wire.delivery_of("/receipts").await;
    assert_eq!(receipt.packet_id, 0);
    receipt.json()
}

/// Receives counts until they say this; how many it took.
async fn counted(wire: &mut Wire, wanted: &Value) -> usize {
    let mut frames = 1;
    while counts(wire).await != *wanted {
        frames += 1;
    }
    frames
}

async fn read(broker: &TestBroker, user: &str, conversation: &str, to: i64) {
    let path = format!("/{conversation}/receipts");
    let body = Some(json!({"read": to}));
    let (status, body) = broker.rest(Method::PUT, user, &path, body).await;
    assert!(status.is_success(), "{body}");
}

fn count(seq: i64, delivered: i64, read: i64) -> Value {
    json!({"seq": seq, "delivered": delivered, "read": read})
}

/// Goal: what 500 people do costs the author and the store little, and the author knows it
/// exactly in the end.
#[sqlx::test(migrator = "MIGRATOR")]
async fn five_hundred_readings_are_few_frames_and_few_writes(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let users: Vec<String> = (0..500).map(|number| format!("user-{number}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let group = broker.conversation(&names).await;
    let mut author = broker.device("user-0", "phone").await;
    author.subscribe(&["c/+/receipts"]).await;
    author.say(&group, "hello").await;
    for statement in [
        "create sequence rows_written",
        "create sequence statements_written",
        "create function count_writes() returns trigger language plpgsql as
         $$ begin perform nextval(tg_argv[0]::regclass); return null; end $$",
        "create trigger count_rows after insert or update on participants
         for each row execute function count_writes('rows_written')",
        "create trigger count_statements after insert or update on participants
         for each statement execute function count_writes('statements_written')",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }

    let readings = futures_util::stream::iter(&names[1..])
        .map(|user| read(&broker, user, &group, 1))
        .buffer_unordered(5)
        .collect::<Vec<()>>();
    let all = json!({"counts": [count(1, 499, 499)], "of": 499});
    let (_, frames) = tokio::join!(readings, counted(&mut author, &all));

    assert!(frames <= 20, "{frames} frames");
    let written: (i64, i64) = sqlx::query_as(
        "select r.last_value, s.last_value from rows_written r, statements_written s",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(written.0, 499);
    assert!(written.1 <= 500, "{written:?} rows and statements");
    author.assert_quiet().await;
    broker.stop().await;
}

/// Goal: an author sees the own messages that somebody has not read; others see nothing.
#[sqlx::test(migrator = "MIGRATOR")]
async fn authors_are_told_how_many_have_got_how_far(pool: PgPool) {
    let settings = [
        ("message.receipts_participants_max", "2"),
        ("message.receipts_interval", "20ms"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&group, "1").await;
    alice.say(&group, "2").await;
    alice.subscribe(&["c/+/receipts"]).await;
    let mut bob = broker.device("bob", "phone").await;
    bob.subscribe(&["c/+/receipts"]).await;

    read(&broker, "bob", &group, 1).await;
    let first = json!({"counts": [count(1, 1, 1), count(2, 0, 0)], "of": 2});
    assert_eq!(counts(&mut alice).await, first);
    read(&broker, "carol", &group, 2).await;
    let second = json!({"counts": [count(1, 2, 2), count(2, 1, 1)], "of": 2});
    counted(&mut alice, &second).await;

    // What all have read is not told again; who came later is not counted before.
    broker.add(&group, "dave").await;
    alice.say(&group, "3").await;
    read(&broker, "dave", &group, 4).await;
    let mut earlier = count(2, 1, 1);
    earlier["of"] = json!(2);
    let third = json!({"counts": [earlier, count(4, 1, 1)], "of": 3});
    counted(&mut alice, &third).await;

    // Carol has left when the newest message comes.
    broker.remove(&group, "carol").await;
    alice.say(&group, "4").await;
    bob.say(&group, "5").await;
    read(&broker, "dave", &group, 7).await;
    let of_bob = json!({"counts": [count(7, 1, 1)], "of": 2});
    assert_eq!(counts(&mut bob).await, of_bob);
    broker.stop().await;
}

/// Goal: who hides is counted as somebody who was never reached.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_has_receipts_switched_off_is_not_counted(pool: PgPool) {
    let settings = [
        ("message.receipts_participants_max", "2"),
        ("message.receipts_interval", "20ms"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    let hide = Some(json!({"receipts": false}));
    broker
        .request(Method::PATCH, "bob", "/v1/me/settings", hide)
        .await;
    let mut alice = broker.device("alice", "phone").await;
    alice.subscribe(&["c/+/receipts"]).await;
    alice.say(&group, "1").await;
    read(&broker, "bob", &group, 1).await;
    read(&broker, "carol", &group, 1).await;
    let carol = json!({"counts": [count(1, 1, 1)], "of": 2});
    assert_eq!(counts(&mut alice).await, carol);

    sqlx::query("update conversations set receipts = false")
        .execute(&pool)
        .await
        .unwrap();
    alice.say(&group, "2").await;
    read(&broker, "carol", &group, 2).await;
    sqlx::query("update conversations set receipts = true")
        .execute(&pool)
        .await
        .unwrap();
    alice.say(&group, "3").await;
    read(&broker, "carol", &group, 3).await;
    // The first frame since: of the second message nothing was told.
    let third = json!({"counts": [count(1, 1, 1), count(2, 1, 1), count(3, 1, 1)], "of": 2});
    assert_eq!(counts(&mut alice).await, third);
    broker.stop().await;
}

/// Given an author who was away when others read, when they come back and ask once, then they know
/// what those who stayed were told, and hear of the next rise.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_connects_later_asks_once_for_the_counts(pool: PgPool) {
    let settings = [
        ("message.receipts_participants_max", "2"),
        ("message.receipts_interval", "20ms"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&group, "1").await;
    alice.say(&group, "2").await;
    alice.disconnect().await;
    read(&broker, "bob", &group, 2).await;
    read(&broker, "carol", &group, 1).await;

    let mut alice = broker.device("alice", "phone").await;
    alice.subscribe(&["me/device"]).await;
    let arguments = json!({"conversation": group, "limit": 1});
    let answer = ask(&mut alice, "receipts", &arguments).await;
    let body = &answer["body"];
    let present = json!([count(1, 2, 2), count(2, 1, 1)]);
    assert_eq!((&body["counts"], &body["of"]), (&present, &json!(2)));
    assert_eq!(body["receipts"].as_array().map(Vec::len), Some(1));
    alice.subscribe(&["c/+/receipts"]).await;
    read(&broker, "carol", &group, 2).await;
    // The first message may have been told of before, to a device that did not listen.
    while counts(&mut alice).await["counts"]
        .as_array()
        .unwrap()
        .last()
        != Some(&count(2, 2, 2))
    {}

    // Later pages do not repeat them; who has written nothing has none.
    let path = format!("/{group}/receipts?after=alice");
    let (_, page) = broker.rest(Method::GET, "alice", &path, None).await;
    assert_eq!(page.get("counts"), None, "{page}");
    let path = format!("/{group}/receipts");
    let (_, page) = broker.rest(Method::GET, "bob", &path, None).await;
    assert_eq!((page.get("counts"), page.get("of")), (None, None), "{page}");
    broker.stop().await;
}
