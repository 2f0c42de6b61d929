//! On which device something was read, whichever way that is said.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{TestBroker, until};

/// What became of a message on the devices of bob, as alice is told: read or not.
async fn read_on(broker: &TestBroker, group: &str, seq: i64) -> Value {
    let path = format!("/{group}/messages/{seq}/status?details=true");
    let (status, body) = broker.rest(Method::GET, "alice", &path, None).await;
    assert!(status.is_success(), "{body}");
    let devices = body["users"][0]["devices"].as_array().unwrap();
    let devices = devices.iter();
    devices
        .map(|device| {
            let client_id = device["client_id"].as_str().unwrap().to_owned();
            (client_id, device["read"].clone())
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Says over REST that bob has read; the status of the answer, and its body.
async fn say(broker: &TestBroker, group: &str, what: &str, said: Value) -> (u16, Value) {
    let method = match what {
        "receipts" => Method::PUT,
        _ => Method::PATCH,
    };
    let path = format!("/{group}/{what}");
    let (status, body) = broker.rest(method, "bob", &path, Some(said)).await;
    (status.as_u16(), body)
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_read_over_rest_is_read_on_the_device_that_is_named(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let _phone = broker.listener("bob", "phone").await;
    let _tablet = broker.listener("bob", "tablet").await;
    let mut alice = broker.device("alice", "phone").await;
    for id in ["1", "2", "3"] {
        alice.say(&group, id).await;
    }

    let said = say(
        &broker,
        &group,
        "receipts",
        json!({"read": 1, "client_id": "phone"}),
    );
    let (status, body) = said.await;
    assert_eq!((status, &body["read"]), (200, &json!(1)));
    let only_phone = json!({"phone": true, "tablet": false});
    assert_eq!(read_on(&broker, &group, 1).await, only_phone);

    let said = say(
        &broker,
        &group,
        "inbox",
        json!({"read": 2, "client_id": "tablet"}),
    );
    let (status, body) = said.await;
    assert_eq!((status, &body["read"]), (200, &json!(2)));
    let both = json!({"phone": true, "tablet": true});
    assert_eq!(read_on(&broker, &group, 1).await, both);
    let only_tablet = json!({"phone": false, "tablet": true});
    assert_eq!(read_on(&broker, &group, 2).await, only_tablet);

    // Whoever names no device has read it all the same.
    for (what, said) in [
        ("receipts", json!({"read": 3})),
        ("inbox", json!({"read": 3, "client_id": null})),
    ] {
        let (status, body) = say(&broker, &group, what, said).await;
        assert_eq!((status, &body["read"]), (200, &json!(3)));
    }
    let neither = json!({"phone": false, "tablet": false});
    assert_eq!(read_on(&broker, &group, 3).await, neither);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn over_mqtt_it_is_the_device_that_asks_unless_another_one_is_named(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let _tablet = broker.listener("bob", "tablet").await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&group, "1").await;
    alice.say(&group, "2").await;
    for (operation, request, seq, expected) in [
        (
            "q/inbox/set",
            json!({"conversation": group, "read": 1}),
            1,
            json!({"phone": true, "tablet": false}),
        ),
        (
            "q/receipts/put",
            json!({"conversation": group, "read": 2, "client_id": "tablet"}),
            2,
            json!({"phone": false, "tablet": true}),
        ),
    ] {
        let request = request.to_string();
        phone.publish(operation, request.as_bytes()).await;
        until("the reading", async || {
            read_on(&broker, &group, seq).await == expected
        })
        .await;
    }
    broker.stop().await;
}

/// Goal: what is refused has changed nothing, and tells nobody which devices others have.
#[sqlx::test(migrator = "MIGRATOR")]
async fn only_a_device_of_the_caller_can_be_named(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let _phone = broker.listener("bob", "phone").await;
    let mut alice = broker.listener("alice", "laptop").await;
    alice.say(&group, "1").await;
    let stranger = "x".repeat(129);
    for (what, said, status, kind) in [
        (
            "receipts",
            json!({"read": 1, "client_id": "laptop"}),
            404,
            "not-found",
        ),
        (
            "inbox",
            json!({"read": 1, "pinned": true, "client_id": "laptop"}),
            404,
            "not-found",
        ),
        (
            "receipts",
            json!({"read": 1, "client_id": "nowhere"}),
            404,
            "not-found",
        ),
        (
            "receipts",
            json!({"read": 1, "client_id": ""}),
            400,
            "invalid",
        ),
        (
            "inbox",
            json!({"read": 1, "client_id": stranger}),
            400,
            "invalid",
        ),
        (
            "receipts",
            json!({"read": 1, "client_id": 7}),
            400,
            "invalid",
        ),
        (
            "receipts",
            json!({"delivered": 1, "client_id": "phone"}),
            400,
            "invalid",
        ),
        (
            "inbox",
            json!({"pinned": true, "client_id": "phone"}),
            400,
            "invalid",
        ),
    ] {
        let (answered, body) = say(&broker, &group, what, said.clone()).await;
        let kind = json!(format!("urn:homing:problem:{kind}"));
        assert_eq!((answered, &body["type"]), (status, &kind), "{said}: {body}");
    }
    let path = format!("/{group}/inbox");
    let (_, row) = broker.rest(Method::GET, "bob", &path, None).await;
    assert_eq!(
        (&row["read"], &row["pinned_at"]),
        (&json!(0), &Value::Null),
        "{row}"
    );
    assert_eq!(read_on(&broker, &group, 1).await, json!({"phone": false}));

    // One that receives nothing of the conversation has no place in it.
    let _watch = broker.device("bob", "watch").await;
    let said = json!({"read": 1, "client_id": "watch"});
    let (status, body) = say(&broker, &group, "receipts", said).await;
    assert_eq!((status, &body["read"]), (200, &json!(1)));
    assert_eq!(read_on(&broker, &group, 1).await, json!({"phone": false}));
    broker.stop().await;
}
