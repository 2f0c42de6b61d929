//! PUBLISH: what is taken, what is refused and how, and the answer in both versions.

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::{Received, TestBroker, Wire, frame, text};

const MESSAGE: &[u8] = br#"{"id":"1","body":"hi"}"#;

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_puback_names_the_sequence_of_the_commit(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    assert_eq!(phone.say(&conversation, "a").await, 1);
    assert_eq!(phone.say(&conversation, "b").await, 2);
    assert_eq!(phone.say(&conversation, "a").await, 1, "a repeat");
    let log = broker.log("bob", &conversation).await;
    assert_eq!(log, [(1, "a".to_owned()), (2, "b".to_owned())]);

    let quiet = broker.v5("alice", "quiet").property(&[0x17, 0]);
    let (mut quiet, _) = broker.connect(quiet).await;
    let topic = format!("c/{conversation}/send");
    let accepted = quiet.ask(&topic, MESSAGE).await;
    assert!(accepted.code == 0 && accepted.properties.is_empty());
    let refused = quiet.ask(&topic, b"no json").await;
    assert!(refused.code == 0x99 && refused.properties.is_empty());
    broker.stop().await;
}

/// Publishes of one device commit in their order, and are acknowledged in it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn pubacks_come_in_the_order_of_the_publishes(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversations = [
        broker.conversation(&["alice"]).await,
        broker.conversation(&["alice"]).await,
        broker.conversation(&["alice"]).await,
    ];
    let mut phone = broker.device("alice", "phone").await;
    let mut sent = Vec::new();
    for number in 0..60 {
        let conversation = &conversations[number % 3];
        sent.push(phone.begin_say(conversation, &number.to_string()).await);
    }
    let mut acknowledged = Vec::new();
    for number in 0..60 {
        let puback = phone.puback().await;
        let seq: usize = puback.properties.user("seq").unwrap().parse().unwrap();
        assert_eq!(seq, number / 3 + 1);
        acknowledged.push(puback.packet_id);
    }
    assert_eq!(acknowledged, sent);
    broker.stop().await;
}

/// Goal: a publish that can never be taken is answered with its reason, hurts no other, and
/// the connection goes on. MQTT 3.1.1 has no reason: it learns it on me/device.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_publish_that_is_refused_says_why(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.bytes_max", "200")]).await;
    let mine = broker.conversation(&["alice", "bob"]).await;
    let foreign = broker.conversation(&["bob", "carol"]).await;
    let nowhere = homing::domain::ids::ConversationId::random();
    let mut phone = broker.listener("alice", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("alice", "old phone")).await;
    assert_eq!(old.subscribe(&["me/device"]).await, [1]);
    let long = json!({"id": "1", "body": "x".repeat(200)}).to_string();
    for (topic, payload, code) in [
        (format!("c/{foreign}/send"), MESSAGE, 0x87),
        (format!("c/{nowhere}/send"), MESSAGE, 0x87),
        (format!("c/{mine}/messages"), MESSAGE, 0x87),
        ("c/not-an-id/send".to_owned(), MESSAGE, 0x87),
        ("sensor/1".to_owned(), MESSAGE, 0x87),
        ("$SYS/broker".to_owned(), MESSAGE, 0x87),
        ("me/device".to_owned(), MESSAGE, 0x87),
        (format!("c/{mine}/send"), b"hello", 0x99),
        (format!("c/{mine}/send"), b"", 0x99),
        (format!("c/{mine}/send"), b"\xff\xfe", 0x99),
        (format!("c/{mine}/send"), br#"{"body":1}"#, 0x99),
        (
            format!("c/{mine}/send"),
            br#"{"id":"1","seq":1,"body":1}"#,
            0x99,
        ),
        (format!("c/{mine}/send"), long.as_bytes(), 0x99),
        (
            format!("c/{mine}/send"),
            br#"{"id":"1","body":1,"mentions":["a/b"]}"#,
            0x99,
        ),
        (
            format!("c/{mine}/send"),
            br#"{"id":"1","body":1,"expires_at":"soon"}"#,
            0x99,
        ),
        (format!("c/{mine}/receipts"), b"[]", 0x99),
        (format!("c/{mine}/receipts"), br#"{"read":0}"#, 0x99),
        (format!("c/{foreign}/receipts"), br#"{"read":1}"#, 0x87),
    ] {
        let refused = phone.ask(&topic, payload).await;
        assert_eq!(refused.code, code, "{topic}: {refused:?}");
        assert!(!refused.properties.text(0x1f).unwrap().is_empty());

        let event = old.ask_refused(&topic, payload).await.json();
        assert_eq!(
            (&event["event"], &event["code"]),
            (&json!("refused"), &json!(code))
        );
        assert!(event["reason"].is_string() && event["topic"].is_string());
    }
    let mut other = broker.device("alice", "tablet").await;
    assert_eq!(other.say(&mine, "last").await, 1);
    assert_eq!(broker.log("bob", &mine).await.len(), 1);
    assert!(broker.log("bob", &foreign).await.is_empty());
    broker.stop().await;
}

/// Goal: a broken packet ends its connection with the right code, and disturbs nobody else.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_broken_packet_ends_its_connection(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("mqtt.receive_max", "3")]).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut witness = broker.listener("bob", "witness").await;
    let topic = format!("c/{conversation}/send");
    let publish = |first_byte, packet_id, topic: &str, properties: &[u8]| {
        Wire::publish_v5(first_byte, packet_id, topic, properties, MESSAGE)
    };
    let with_topic = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        frame(0x30, &[&length[..], bytes, &[0]].concat())
    };
    let with_options =
        |options: u8| frame(0x82, &[&[0, 1, 0][..], &text("c/#"), &[options]].concat());
    for (what, bytes, code) in [
        ("a wildcard", publish(0x32, 1, "c/+/send", &[]), 0x90),
        ("a wildcard", publish(0x30, 0, "c/#", &[]), 0x90),
        ("QoS 2", publish(0x34, 1, &topic, &[]), 0x9b),
        ("QoS 3", publish(0x36, 1, &topic, &[]), 0x81),
        ("DUP with QoS 0", publish(0x38, 0, &topic, &[]), 0x81),
        ("packet id 0", publish(0x32, 0, &topic, &[]), 0x82),
        ("retain", publish(0x33, 1, &topic, &[]), 0x9a),
        (
            "an alias that was never set",
            publish(0x32, 1, "", &[0x23, 0, 1]),
            0x94,
        ),
        ("alias 0", publish(0x32, 1, &topic, &[0x23, 0, 0]), 0x94),
        (
            "alias above the maximum",
            publish(0x32, 1, &topic, &[0x23, 0, 17]),
            0x94,
        ),
        ("no topic", publish(0x32, 1, "", &[]), 0x82),
        (
            "a property twice",
            publish(0x32, 1, &topic, &[0x01, 0, 0x01, 0]),
            0x82,
        ),
        (
            "a subscription identifier",
            publish(0x32, 1, &topic, &[0x0b, 1]),
            0x82,
        ),
        (
            "an unknown property",
            publish(0x32, 1, &topic, &[0x7f, 1]),
            0x81,
        ),
        ("invalid UTF-8", with_topic(b"c/\xff\xfe"), 0x81),
        ("a surrogate", with_topic(b"c/\xed\xa0\x80"), 0x81),
        ("NUL", with_topic(b"c/\0"), 0x81),
        ("a topic that is cut off", frame(0x30, &[0, 9, b'c']), 0x81),
        ("an empty PUBLISH", frame(0x30, &[]), 0x81),
        ("packet type 0", frame(0x00, &[]), 0x82),
        ("AUTH", frame(0xf0, &[]), 0x82),
        ("a server's packet", frame(0x20, &[0, 0, 0]), 0x82),
        ("PUBREL", frame(0x62, &[0, 1]), 0x82),
        ("reserved bits of PUBACK", frame(0x41, &[0, 1]), 0x81),
        (
            "reserved bits of SUBSCRIBE",
            frame(0x80, &[0, 1, 0, 0, 1, b'a', 0]),
            0x81,
        ),
        ("reserved bits of PINGREQ", frame(0xc1, &[]), 0x81),
        ("reserved options", with_options(0b1100_0000), 0x81),
        ("QoS 3 for a subscription", with_options(3), 0x81),
        ("retain handling 3", with_options(0b0011_0000), 0x81),
        ("a PINGREQ with a body", frame(0xc0, &[0]), 0x81),
        ("PUBACK of packet 0", frame(0x40, &[0, 0]), 0x82),
        (
            "SUBSCRIBE with packet id 0",
            frame(0x82, &[0, 0, 0, 0, 1, b'a', 0]),
            0x81,
        ),
        ("an empty filter", frame(0x82, &[0, 1, 0, 0, 0, 0]), 0x82),
        ("SUBSCRIBE without a filter", frame(0x82, &[0, 1, 0]), 0x82),
        (
            "subscription identifier 0",
            frame(0x82, &[0, 1, 2, 0x0b, 0, 0, 1, b'a', 0]),
            0x81,
        ),
        (
            "UNSUBSCRIBE without a filter",
            frame(0xa2, &[0, 1, 0]),
            0x82,
        ),
        (
            "an endless length",
            b"\x30\xff\xff\xff\xff\x01".to_vec(),
            0x81,
        ),
        (
            "a packet that is too large",
            b"\x30\x81\x80\x08".to_vec(),
            0x95,
        ),
        ("garbage", b"\xff\xff\xff\xff\xff".to_vec(), 0x81),
    ] {
        let mut phone = broker.device("alice", "phone").await;
        phone.send_anyway(&bytes).await;
        match phone.receive().await {
            Received::Disconnect { code: said, why } => {
                assert_eq!(said, code, "{what}: {why}");
                assert!(!why.is_empty(), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(phone.receive().await, Received::Closed, "{what}");
    }
    let mut phone = broker.device("alice", "phone").await;
    assert_eq!(phone.say(&conversation, "after all that").await, 1);
    assert_eq!(witness.delivery().await.seq(), 1);
    broker.stop().await;
}

/// The same in MQTT 3.1.1, which only closes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_broken_packet_of_an_old_device_closes_its_connection(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = broker.conversation(&["alice"]).await;
    let topic = text(&format!("c/{cid}/send"));
    let publish = |first_byte, id: &[u8]| frame(first_byte, &[&topic, id, MESSAGE].concat());
    for (what, bytes) in [
        ("QoS 2", publish(0x34, &[0, 1])),
        ("QoS 3", publish(0x36, &[0, 1])),
        ("DUP with QoS 0", publish(0x38, &[])),
        ("packet id 0", publish(0x32, &[0, 0])),
        ("a wildcard", frame(0x30, &text("c/#"))),
        ("no topic", frame(0x30, &text(""))),
        (
            "reserved bits of a subscription",
            frame(0x82, &[0, 1, 0, 1, b'a', 4]),
        ),
        ("SUBSCRIBE without a filter", frame(0x82, &[0, 1])),
        ("a DISCONNECT with a body", frame(0xe0, &[0])),
        ("a PUBACK that is too long", frame(0x40, &[0, 1, 0])),
    ] {
        let (mut phone, _) = broker.connect(broker.v3("alice", "phone")).await;
        phone.send(&bytes).await;
        assert_eq!(phone.receive().await, Received::Closed, "{what}");
    }
    let (mut phone, _) = broker.connect(broker.v3("alice", "phone")).await;
    phone.send(&publish(0x33, &[0, 1])).await;
    assert_eq!(phone.puback().await.code, 0, "retain is ignored");
    broker.stop().await;
}

/// Goal: a device that sends more than the Receive Maximum is told so. The writer is kept
/// busy by a lock on the conversation, so that nothing is acknowledged meanwhile.
#[sqlx::test(migrator = "MIGRATOR")]
async fn more_publishes_than_the_receive_maximum_end_the_connection(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("mqtt.receive_max", "3")]).await;
    let conversation = broker.conversation(&["alice"]).await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("select from conversations for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut phone = broker.device("alice", "phone").await;
    for id in ["1", "2", "3"] {
        phone.begin_say(&conversation, id).await;
    }
    phone.assert_quiet().await;
    phone.begin_say(&conversation, "4").await;
    phone.assert_disconnected(0x93).await;
    lock.rollback().await.unwrap();

    let mut phone = broker.device("alice", "phone").await;
    for (id, seq) in [("1", 1), ("2", 2), ("3", 3), ("4", 4)] {
        assert_eq!(phone.say(&conversation, id).await, seq);
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn aliases_towards_the_server_stand_for_their_topic(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let one = broker.conversation(&["alice"]).await;
    let two = broker.conversation(&["alice"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let topics = [format!("c/{one}/send"), format!("c/{two}/send")];
    for (packet_id, (topic, id)) in [
        (topics[0].as_str(), "a"),
        ("", "b"),
        (topics[1].as_str(), "c"),
        ("", "d"),
    ]
    .into_iter()
    .enumerate()
    {
        let packet_id = u16::try_from(packet_id + 1).unwrap();
        let payload = json!({"id": id, "body": 1}).to_string();
        let bytes =
            phone.publish_packet(0x32, packet_id, topic, &[0x23, 0, 16], payload.as_bytes());
        phone.send(&bytes).await;
        assert_eq!(phone.puback().await.code, 0);
    }
    let ids = |log: Vec<(i64, String)>| log.into_iter().map(|(_, id)| id).collect::<String>();
    assert_eq!(ids(broker.log("alice", &one).await), "ab");
    assert_eq!(ids(broker.log("alice", &two).await), "cd");
    broker.stop().await;
}

/// QoS 0 is stored too; there is only nobody who is told.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_publish_without_acknowledgement_is_stored_or_reported(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut other = broker.listener("bob", "phone").await;
    let mut phone = broker.device("alice", "phone").await;
    assert_eq!(phone.subscribe(&["me/device"]).await, [1]);
    let topic = format!("c/{conversation}/send");
    let stored = phone.publish_packet(0x30, 0, &topic, &[], MESSAGE);
    phone.send(&stored).await;
    assert_eq!(other.delivery().await.id(), "1");
    let refused = phone.publish_packet(0x30, 0, &topic, &[], b"no");
    phone.send(&refused).await;
    assert_eq!(phone.delivery().await.json()["code"], 0x99);
    broker.stop().await;
}
