//! What has become of a message: sent, delivered, read, by how many, by whom, on which devices.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{TestBroker, until};

/// What REST says of a message, and what it must say with.
async fn status(broker: &TestBroker, user: &str, path: &str) -> (u16, Value) {
    let (status, body) = broker.rest(Method::GET, user, path, None).await;
    (status.as_u16(), body)
}

/// The status and its numbers: others, delivered, read.
async fn progress(broker: &TestBroker, conversation: &str, seq: i64) -> (String, [i64; 3]) {
    let path = format!("/{conversation}/messages/{seq}/status");
    let (code, body) = status(broker, "alice", &path).await;
    assert_eq!((code, &body["seq"]), (200, &json!(seq)), "{body}");
    let number = |name: &str| body[name].as_i64().unwrap();
    let numbers = [number("participants"), number("delivered"), number("read")];
    (body["status"].as_str().unwrap().to_owned(), numbers)
}

async fn report(broker: &TestBroker, user: &str, conversation: &str, report: Value) {
    let path = format!("/{conversation}/receipts");
    let (status, body) = broker.rest(Method::PUT, user, &path, Some(report)).await;
    assert!(status.is_success(), "{body}");
}

async fn change_settings(broker: &TestBroker, user: &str, change: Value) -> Value {
    let path = "/v1/me/settings";
    let (status, body) = broker
        .request(Method::PATCH, user, path, Some(change))
        .await;
    assert!(status.is_success(), "{body}");
    body
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_message_is_sent_delivered_and_read(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&group, "1").await;
    alice.say(&group, "2").await;
    let is = |status: &str, numbers| (status.to_owned(), numbers);
    assert_eq!(progress(&broker, &group, 1).await, is("sent", [2, 0, 0]));
    report(&broker, "bob", &group, json!({"delivered": 1})).await;
    assert_eq!(progress(&broker, &group, 1).await, is("sent", [2, 1, 0]));
    report(&broker, "carol", &group, json!({"read": 1})).await;
    assert_eq!(
        progress(&broker, &group, 1).await,
        is("delivered", [2, 2, 1])
    );
    report(&broker, "bob", &group, json!({"read": 2})).await;
    assert_eq!(progress(&broker, &group, 1).await, is("read", [2, 2, 2]));
    assert_eq!(progress(&broker, &group, 2).await, is("sent", [2, 1, 1]));

    // Who joins later could not see it; who is removed later could.
    broker.add(&group, "dave").await;
    broker.remove(&group, "carol").await;
    assert_eq!(progress(&broker, &group, 1).await, is("read", [2, 2, 2]));
    alice.say(&group, "3").await;
    assert_eq!(progress(&broker, &group, 5).await, is("sent", [2, 0, 0]));

    let path = format!("/{group}/messages?after=0&limit=1");
    let (_, log) = status(&broker, "alice", &path).await;
    let path = format!("/{group}/messages/1/status");
    let (_, body) = status(&broker, "admin", &path).await;
    assert_eq!(body["at"], log["entries"][0]["at"]);
    broker.stop().await;
}

/// Goal: in an empty room nothing is read.
#[sqlx::test(migrator = "MIGRATOR")]
async fn alone_a_message_is_only_sent(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let alone = broker.conversation(&["alice"]).await;
    broker.device("alice", "phone").await.say(&alone, "1").await;
    let sent = ("sent".to_owned(), [0, 0, 0]);
    assert_eq!(progress(&broker, &alone, 1).await, sent);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_sender_sees_who_has_it_on_which_devices(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    broker.listener("bob", "tablet").await.disconnect().await;
    broker.device("bob", "watch").await.disconnect().await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&group, "1").await;
    alice.say(&group, "2").await;
    phone.drain(1, 2).await;
    let topic = format!("c/{group}/receipts");
    assert_eq!(phone.ask(&topic, br#"{"read":1}"#).await.code, 0);
    phone.disconnect().await;

    let path = format!("/{group}/messages/1/status?details=true");
    let (_, body) = status(&broker, "alice", &path).await;
    let on = |client_id: &str, delivered: bool, read: bool| json!({"client_id": client_id, "delivered": delivered, "read": read});
    let bob = json!({
        "user": "bob", "delivered": true, "read": true, "delivered_seq": 2, "read_seq": 1,
        "devices": [on("phone", true, true), on("tablet", false, false)],
    });
    let carol = json!({
        "user": "carol", "delivered": false, "read": false, "delivered_seq": 0, "read_seq": 0,
        "devices": [],
    });
    assert_eq!(body["users"], json!([bob, carol]));

    let (_, body) = status(&broker, "alice", &format!("{path}&limit=1")).await;
    assert_eq!(
        (&body["users"], &body["next_after"]),
        (&json!([bob]), &json!("bob"))
    );
    let (_, body) = status(&broker, "alice", &format!("{path}&limit=1&after=bob")).await;
    assert_eq!(
        (&body["users"], &body["next_after"]),
        (&json!([carol]), &Value::Null)
    );
    broker.stop().await;
}

/// Goal: who hides looks like somebody who is away, to everybody but themselves.
#[sqlx::test(migrator = "MIGRATOR")]
async fn receipts_that_are_switched_off_tell_nobody(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut watcher = broker.device("alice", "watcher").await;
    watcher.say(&group, "1").await;
    watcher.subscribe(&["c/+/receipts"]).await;
    let mut tablet = broker.device("bob", "tablet").await;
    tablet.subscribe(&["c/+/receipts"]).await;
    let changed = change_settings(&broker, "bob", json!({"receipts": false})).await;
    assert_eq!(changed["receipts"], false);

    report(&broker, "bob", &group, json!({"read": 1})).await;
    let own = json!({"user": "bob", "delivered": 1, "read": 1});
    assert_eq!(tablet.delivery_of("/receipts").await.json(), own);
    let sent = ("sent".to_owned(), [1, 0, 0]);
    assert_eq!(progress(&broker, &group, 1).await, sent);
    let details = format!("/{group}/messages/1/status?details=true");
    let (_, body) = status(&broker, "alice", &details).await;
    let hidden = json!({
        "user": "bob", "delivered": false, "read": false, "delivered_seq": 0, "read_seq": 0,
        "devices": [],
    });
    assert_eq!(body["users"], json!([hidden]));
    let list = format!("/{group}/receipts");
    let listed = |body: Value| body["receipts"].as_array().unwrap().clone();
    let alice = json!({"user": "alice", "delivered": 0, "read": 0});
    assert_eq!(
        listed(status(&broker, "alice", &list).await.1),
        std::slice::from_ref(&alice)
    );
    assert_eq!(
        listed(status(&broker, "bob", &list).await.1),
        [alice.clone(), own]
    );
    let (_, body) = status(&broker, "bob", &format!("/{group}")).await;
    assert_eq!((&body["unread"], &body["read"]), (&json!(0), &json!(1)));

    // Switched on again, the next reading is the first thing that alice hears.
    change_settings(&broker, "bob", json!({"receipts": null})).await;
    watcher.say(&group, "2").await;
    report(&broker, "bob", &group, json!({"read": 2})).await;
    let own = json!({"user": "bob", "delivered": 2, "read": 2});
    assert_eq!(watcher.delivery_of("/receipts").await.json(), own);

    // A conversation may have none either.
    let off = "update conversations set receipts = false";
    sqlx::query(off).execute(&pool).await.unwrap();
    watcher.say(&group, "3").await;
    report(&broker, "bob", &group, json!({"read": 3})).await;
    let sent = ("sent".to_owned(), [1, 0, 0]);
    assert_eq!(progress(&broker, &group, 1).await, sent);
    assert_eq!(listed(status(&broker, "alice", &list).await.1), [alice]);
    watcher.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn receipts_come_page_by_page(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let names = ["alice", "bob", "carol", "dave", "eve"];
    let group = broker.conversation(&names).await;
    let mut path = format!("/{group}/receipts?limit=2");
    let mut seen = Vec::new();
    loop {
        let (_, body) = status(&broker, "alice", &path).await;
        let page = body["receipts"].as_array().unwrap();
        assert!(page.len() <= 2);
        seen.extend(
            page.iter()
                .map(|receipt| receipt["user"].as_str().unwrap().to_owned()),
        );
        let Some(after) = body["next_after"].as_str() else {
            break;
        };
        path = format!("/{group}/receipts?limit=2&after={after}");
    }
    assert_eq!(seen, names);
    broker.stop().await;
}

/// Goal: what cannot be is answered with a problem, and reveals nothing.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_status_that_cannot_be_had_is_refused(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    broker.device("alice", "phone").await.say(&group, "1").await;
    broker.remove(&group, "carol").await;
    let of = |rest: &str| format!("/{group}/messages/{rest}");
    let nowhere = "/AAAAAAAAAAAAAAAAAAAAAA/messages/1/status".to_owned();
    for (user, path, code, kind) in [
        ("bob", of("1/status"), 403, "forbidden"),
        ("carol", of("1/status"), 404, "not-found"),
        ("eve", of("1/status"), 404, "not-found"),
        ("alice", nowhere, 404, "not-found"),
        ("alice", of("9/status"), 404, "not-found"),
        ("alice", of("9223372036854775807/status"), 404, "not-found"),
        ("alice", of("0/status"), 400, "invalid"),
        ("alice", of("-1/status"), 400, "invalid"),
        ("alice", of("9223372036854775808/status"), 400, "invalid"),
        ("alice", of("one/status"), 400, "invalid"),
        ("alice", of("1/status?limit=5"), 400, "invalid"),
        ("alice", of("1/status?details=perhaps"), 400, "invalid"),
        ("alice", of("1/status?details=true&limit=0"), 400, "invalid"),
        (
            "alice",
            of("1/status?details=true&limit=201"),
            400,
            "invalid",
        ),
        (
            "alice",
            of("1/status?details=true&after=nobody"),
            400,
            "invalid",
        ),
        ("alice", of("1/status?details=true&page=2"), 400, "invalid"),
        (
            "alice",
            format!("/{group}/receipts?limit=201"),
            400,
            "invalid",
        ),
        (
            "alice",
            format!("/{group}/receipts?after=eve"),
            400,
            "invalid",
        ),
        (
            "eve",
            format!("/{group}/receipts?after=bob"),
            404,
            "not-found",
        ),
    ] {
        let (answered, body) = status(&broker, user, &path).await;
        let expected = (code, json!(format!("urn:homing:problem:{kind}")));
        assert_eq!(
            (answered, body["type"].clone()),
            expected,
            "{user} {path} {body}"
        );
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn settings_are_changed_member_by_member(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let path = "/v1/me/settings";
    let default = json!({"receipts": true, "last_seen": "contacts", "invisible": false});
    let (_, body) = broker.request(Method::GET, "alice", path, None).await;
    assert_eq!(body, default);
    let changed = change_settings(&broker, "alice", json!({"last_seen": "nobody"})).await;
    assert_eq!(
        changed,
        json!({"receipts": true, "last_seen": "nobody", "invisible": false})
    );
    let changed = change_settings(
        &broker,
        "alice",
        json!({"invisible": true, "receipts": false}),
    );
    let all = json!({"receipts": false, "last_seen": "nobody", "invisible": true});
    assert_eq!(changed.await, all);
    assert_eq!(change_settings(&broker, "alice", json!({})).await, all);
    let (_, body) = broker.request(Method::GET, "bob", path, None).await;
    assert_eq!(body, default);
    let null = json!({"receipts": null, "last_seen": null, "invisible": null});
    assert_eq!(change_settings(&broker, "alice", null).await, default);
    for wrong in [
        json!({"receipts": "no"}),
        json!({"receipts": 0}),
        json!({"last_seen": "friends"}),
        json!({"last_seen": ["nobody"]}),
        json!({"invisible": {}}),
        json!({"Receipts": false}),
        json!([]),
        json!("receipts"),
    ] {
        let change = broker.request(Method::PATCH, "alice", path, Some(wrong.clone()));
        let (code, body) = change.await;
        let kind = json!("urn:homing:problem:invalid");
        assert_eq!((code.as_u16(), &body["type"]), (400, &kind), "{wrong}");
    }
    broker.stop().await;
}

/// Goal: a device asks as a program would over REST, and what it reads is its own reading.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_reads_and_asks_over_mqtt(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.listener("alice", "phone").await;
    let mut bob = broker.listener("bob", "phone").await;
    alice.say(&group, "1").await;
    let request = json!({"conversation": group, "read": 1}).to_string();
    bob.publish("q/receipts/put", request.as_bytes()).await;
    until("the reading", async || {
        let path = format!("/{group}/messages/1/status?details=true");
        let (_, body) = status(&broker, "alice", &path).await;
        body["users"][0]["devices"][0]["read"] == true
    })
    .await;
    broker.stop().await;
}
