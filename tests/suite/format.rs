//! CBOR and JSON: each session has its own, and all say the same.

use homing::{
    domain::cbor::{self, Document},
    store::MIGRATOR,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{Connect, Delivery, TestBroker, Wire, text};

const MESSAGE_ID: &str = "0198f3c2-0000-7000-8000-000000000001";

fn asking(connect: Connect, format: &str) -> Connect {
    let property = [&[0x26][..], &text("format"), &text(format)].concat();
    connect.property(&property)
}

fn read(delivery: &Delivery) -> Value {
    let json = cbor::to_json(&delivery.payload, Document::on(&delivery.topic));
    let json = json.unwrap_or_else(|error| panic!("{delivery:?}: {error}"));
    serde_json::from_slice(&json).unwrap()
}

fn write(value: &Value) -> Vec<u8> {
    cbor::from_json(value.to_string().as_bytes(), Document::Entry)
}

/// Goal: what one sends the other reads, whatever each of them speaks.
#[sqlx::test(migrator = "MIGRATOR")]
async fn each_session_has_its_own_format(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let send = format!("c/{conversation}/send");
    let connect = asking(broker.v5("alice", "small"), "cbor");
    let (mut alice, connack) = broker.connect(connect).await;
    assert_eq!(connack.properties.user("format"), Some("cbor"));
    alice.subscribe(&["c/+/messages"]).await;
    let mut bob = broker.listener("bob", "large").await;

    let said = json!({"id": MESSAGE_ID, "body": {"seq": [1, null]}, "x": 1.5});
    assert_eq!(alice.ask(&send, &write(&said)).await.code, 0);
    let theirs = bob.delivery_of("/messages").await.json();
    let ours = read(&alice.delivery_of("/messages").await);
    assert_eq!(ours, theirs);
    for (name, value) in said.as_object().unwrap() {
        assert_eq!(&ours[name], value, "{name}");
    }

    // A payload that says it is JSON, and one that is neither.
    let json = br#"{"id":"2","body":2}"#;
    let packet = Wire::publish_v5(0x32, 99, &send, &[0x01, 1], json);
    alice.send(&packet).await;
    assert_eq!(alice.puback().await.code, 0);
    assert_eq!(read(&alice.delivery().await)["body"], 2);
    let refused = alice.ask(&send, json).await;
    assert_eq!(refused.code, 0x99);
    let why = refused.properties.text(0x1f).unwrap();
    assert!(why.contains("CBOR"), "{why}");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_connack_says_which_format_is_used(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    for (asked, used) in [
        ("json", "json"),
        ("cbor", "cbor"),
        ("xml", "json"),
        ("", "json"),
    ] {
        let connect = asking(broker.v5("alice", "phone"), asked);
        let (wire, connack) = broker.connect(connect).await;
        assert_eq!(connack.properties.user("format"), Some(used), "{asked}");
        wire.disconnect().await;
    }
    let (wire, connack) = broker.connect(broker.v5("alice", "phone")).await;
    assert_eq!(connack.properties.user("format"), None);
    wire.disconnect().await;
    // [MQTT-3.2.2-20]
    let connect = asking(broker.v5("alice", "phone"), "cbor").packet_bytes_max(30);
    let (_wire, connack) = broker.connect(connect).await;
    assert_eq!(connack.properties.user("format"), None);
    broker.stop().await;
}

/// Goal: MQTT 3.1.1, which has no properties, is set to CBOR from its next connection on.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_can_be_set_to_a_format(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let (mut phone, _) = broker.connect(broker.v3("alice", "phone").clean()).await;
    phone.subscribe(&["me/#"]).await;
    phone
        .publish("q/devices/format", br#"{"format":"cbor"}"#)
        .await;
    let answer = phone.delivery().await.json();
    assert_eq!(
        (&answer["status"], &answer["body"]["format"]),
        (&json!(200), &json!("cbor"))
    );
    phone.puback().await;
    phone.publish("q/devices", b"").await;
    let answer = phone.delivery().await.json();
    assert_eq!(answer["body"]["devices"][0]["format"], "cbor");
    phone.puback().await;
    phone.disconnect().await;

    let (mut phone, _) = broker.connect(broker.v3("alice", "phone").clean()).await;
    phone.subscribe(&["me/#"]).await;
    phone.publish("me/state", b"background").await;
    phone.puback().await;
    phone
        .publish("me/state", &write(&json!({"state": "active"})))
        .await;
    phone.puback().await;
    let event = read(&phone.ask_refused("me/state", b"{}").await);
    assert_eq!(
        (&event["event"], &event["code"]),
        (&json!("refused"), &json!(0x99))
    );
    phone
        .publish("q/devices/format", &write(&json!({"format": "json"})))
        .await;
    let answer = read(&phone.delivery().await);
    assert_eq!(answer["body"]["format"], "json");
    phone.puback().await;
    phone.disconnect().await;
    let (_phone, connack) = broker
        .connect(asking(broker.v5("alice", "phone"), "x"))
        .await;
    assert_eq!(connack.properties.user("format"), Some("json"));
    broker.stop().await;
}

/// Goal: a text of 54 characters is at most 130 bytes on the wire.
#[sqlx::test(migrator = "MIGRATOR")]
#[expect(
    clippy::print_stdout,
    reason = "the figures are for the reader of a failure"
)]
async fn a_message_is_small(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    let send = format!("c/{conversation}/send");
    let said = json!({"id": MESSAGE_ID, "type": "text", "body": "x".repeat(54)}).to_string();
    let mut sizes = Vec::new();
    for format in ["json", "cbor"] {
        // Topic Alias Maximum
        let connect = asking(broker.v5("bob", format), format).property(&[0x22, 0, 10]);
        let (mut bob, _) = broker.connect(connect).await;
        bob.subscribe(&["c/+/messages"]).await;
        for _ in 0..2 {
            let said = said.replace("00001\"", &format!("0000{}\"", sizes.len()));
            assert_eq!(alice.ask(&send, said.as_bytes()).await.code, 0);
            let delivery = bob.delivery().await;
            sizes.push((format, delivery.packet_bytes));
            bob.acknowledge(delivery.packet_id).await;
        }
    }
    println!("a PUBLISH with its topic, then with an alias: {sizes:?}");
    let (_, with_alias) = sizes[3];
    assert!(with_alias <= 130, "{sizes:?}");
    broker.stop().await;
}

/// Goal: of a row of the inbox a device is told all once, and then little more than what is new.
#[sqlx::test(migrator = "MIGRATOR")]
#[expect(
    clippy::print_stdout,
    reason = "the figures are for the reader of a failure"
)]
async fn a_patch_of_the_inbox_is_small(pool: PgPool) {
    let settings = [("inbox.patch_interval", "1ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    let send = format!("c/{conversation}/send");
    let mut devices = Vec::new();
    for format in ["json", "cbor"] {
        let (mut bob, _) = broker
            .connect(asking(broker.v5("bob", format), format))
            .await;
        bob.subscribe(&["me/inbox"]).await;
        devices.push((format, bob, Vec::new()));
    }
    for id in ["1", "2"] {
        let said = json!({"id": id, "body": "x".repeat(54)}).to_string();
        assert_eq!(alice.ask(&send, said.as_bytes()).await.code, 0);
        for (_, bob, sizes) in &mut devices {
            sizes.push(bob.delivery_of("inbox").await.packet_bytes);
        }
    }
    let path = format!("/v1/conversations/{conversation}/inbox");
    let body = json!({"read": 2});
    let (status, _) = broker
        .request(Method::PATCH, "bob", &path, Some(body))
        .await;
    assert_eq!(status, 200);
    for (format, bob, sizes) in &mut devices {
        sizes.push(bob.delivery_of("inbox").await.packet_bytes);
        println!("{format}: whole row, another message, a read: {sizes:?}");
        assert!(sizes[1] * 3 < sizes[0] * 2, "{sizes:?}");
        assert!(sizes[2] * 5 < sizes[0] * 2, "{sizes:?}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_format_of_a_foreign_device_is_not_set(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let _phone = broker.device("bob", "phone").await;
    let path = "/v1/devices/phone/format";
    let body = json!({"format": "cbor"});
    let (status, _) = broker.request(Method::PUT, "alice", path, Some(body)).await;
    assert_eq!(status, 404);
    broker.stop().await;
}
