//! Delivery to devices: order, windows, sizes, aliases, options of a subscription.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_device_of_every_participant_gets_the_log(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut tablet = broker.listener("bob", "tablet").await;
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    assert_eq!(old.subscribe(&["c/+/messages"]).await, [1]);
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "one").await;
    sender.say(&conversation, "two").await;
    for wire in [&mut phone, &mut tablet, &mut old] {
        let first = wire.delivery_of("/messages").await;
        assert_eq!(first.topic, format!("c/{conversation}/messages"));
        assert!(!first.is_repeated && first.packet_id != 0);
        let entry = first.json();
        assert_eq!(
            (&entry["seq"], &entry["from"]),
            (&json!(1), &json!("alice"))
        );
        assert_eq!(entry["body"], "one says hello");
        assert!(entry["at"].is_number());
        wire.acknowledge(first.packet_id).await;
        assert_eq!(wire.drain(2, 2).await, ["two"]);
    }
    broker.stop().await;
}

/// No SUBSCRIBE for each conversation: `c/#` covers what begins later, from its beginning.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_new_conversation_reaches_who_is_connected(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.listener("bob", "phone").await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "first").await;
    assert_eq!(phone.drain(1, 1).await, ["first"]);
    let (_, sent) = broker
        .rest(
            Method::POST,
            "alice",
            &format!("/{conversation}/messages"),
            Some(json!({"id": "rest", "body": 1})),
        )
        .await;
    assert_eq!(sent["seq"], 2);
    assert_eq!(phone.drain(2, 2).await, ["rest"]);
    broker.stop().await;
}

/// Receive Maximum: no more in flight than the device asks for; each PUBACK makes room.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_more_is_in_flight_than_the_device_takes(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let narrow = broker.v5("bob", "phone").receive_max(2);
    let (mut phone, _) = broker.connect(narrow).await;
    phone.subscribe(&["c/+/messages"]).await;
    let mut witness = broker.listener("bob", "witness").await;
    let mut sender = broker.device("alice", "sender").await;
    for seq in 1..=5 {
        sender.say(&conversation, &seq.to_string()).await;
    }
    witness.drain(1, 5).await;
    let first = phone.delivery().await;
    let second = phone.delivery().await;
    phone.assert_quiet().await;
    phone.acknowledge(second.packet_id).await;
    let after = "an acknowledgement out of order makes no room before its turn";
    phone.assert_quiet().await;
    phone.acknowledge(first.packet_id).await;
    assert_eq!(phone.delivery().await.seq(), 3, "{after}");
    assert_eq!(phone.delivery().await.seq(), 4);
    phone.assert_quiet().await;
    broker.stop().await;
}

/// Goal: a device that acknowledges out of order is not sent again what it acknowledged,
/// and its cursor passes nothing that it did not.
#[sqlx::test(migrator = "MIGRATOR")]
async fn acknowledgements_out_of_order_are_remembered(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    for seq in 1..=4 {
        sender.say(&conversation, &seq.to_string()).await;
    }
    let mut packets = Vec::new();
    for _ in 1..=4 {
        packets.push(phone.delivery_of("/messages").await.packet_id);
    }
    phone.acknowledge(packets[3]).await;
    phone.acknowledge(packets[1]).await;
    phone.acknowledge(999).await;
    phone.assert_quiet().await;
    phone.disconnect().await;

    let (mut phone, connack) = broker.connect(broker.v5("bob", "phone")).await;
    assert!(connack.is_present);
    for (seq, packet_id) in [(1, packets[0]), (3, packets[2])] {
        let again = phone.delivery().await;
        assert_eq!((again.seq(), again.packet_id), (seq, packet_id));
        assert!(again.is_repeated);
        phone.acknowledge(packet_id).await;
    }
    phone.assert_quiet().await;
    phone.disconnect().await;
    let mut phone = broker.device("bob", "phone").await;
    phone.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_too_large_for_a_device_comes_as_a_stub(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let small = broker.v5("bob", "phone").packet_bytes_max(300);
    let (mut phone, _) = broker.connect(small).await;
    phone.subscribe(&["c/+/messages"]).await;
    let mut sender = broker.device("alice", "sender").await;
    let topic = format!("c/{conversation}/send");
    for (id, length) in [("small", 10), ("large", 400), ("next", 10)] {
        let payload = json!({"id": id, "body": "x".repeat(length)}).to_string();
        assert_eq!(sender.ask(&topic, payload.as_bytes()).await.code, 0);
    }
    assert_eq!(phone.delivery().await.id(), "small");
    let stub = phone.delivery().await;
    assert!(stub.packet_bytes <= 300);
    let entry = stub.json();
    assert_eq!(
        (&entry["seq"], &entry["too_large"]),
        (&json!(2), &json!(true))
    );
    let path = entry["href"].as_str().unwrap();
    let path = path.strip_prefix("/v1/conversations").unwrap();
    let (_, page) = broker.rest(Method::GET, "bob", path, None).await;
    assert_eq!(page["entries"][0]["id"], "large");
    assert_eq!(phone.delivery().await.id(), "next");

    let tiny = broker.v5("bob", "watch").packet_bytes_max(60);
    let (mut watch, _) = broker.connect(tiny).await;
    watch.subscribe(&["c/#"]).await;
    sender.say(&conversation, "more").await;
    watch.assert_disconnected(0x95).await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn aliases_towards_a_device_shorten_its_packets(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut conversations = Vec::new();
    for _ in 0..3 {
        conversations.push(broker.conversation(&["alice", "bob"]).await);
    }
    let aliased = broker.v5("bob", "phone").property(&[0x22, 0, 2]);
    let (mut phone, _) = broker.connect(aliased).await;
    phone.subscribe(&["c/+/messages"]).await;
    let mut sender = broker.device("alice", "sender").await;
    let mut known = [const { String::new() }; 2];
    for place in [0, 0, 1, 0, 2, 2, 1, 0] {
        sender
            .say(&conversations[place], &uuid::Uuid::now_v7().to_string())
            .await;
        let delivery = phone.delivery().await;
        let alias = delivery.properties.number(0x23).unwrap();
        let slot = &mut known[alias as usize - 1];
        if !delivery.topic.is_empty() {
            slot.clone_from(&delivery.topic);
        }
        assert_eq!(*slot, format!("c/{}/messages", conversations[place]));
        phone.acknowledge(delivery.packet_id).await;
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn deliveries_name_the_subscriptions_they_come_from(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("bob", "phone").await;
    phone
        .subscribe_with(&[("c/+/messages", 0)], &[0x0b, 7])
        .await;
    let exact = format!("c/{conversation}/messages");
    let codes = phone
        .subscribe_with(&[(&exact, 2)], &[0x0b, 0x80, 0x02])
        .await;
    assert_eq!(codes, [1], "QoS 2 is granted as QoS 1");
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "hello").await;
    let delivery = phone.delivery_of("/messages").await;
    assert_eq!(delivery.properties.numbers(0x0b), [7, 256]);
    assert_ne!(delivery.packet_id, 0, "the higher QoS counts");
    phone.acknowledge(delivery.packet_id).await;

    assert_eq!(phone.unsubscribe(&exact).await, [0]);
    assert_eq!(phone.unsubscribe(&exact).await, [0x11]);
    sender.say(&conversation, "again").await;
    let delivery = phone.delivery_of("/messages").await;
    assert_eq!(delivery.properties.numbers(0x0b), [7]);
    assert_eq!(delivery.packet_id, 0);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_local_leaves_out_what_the_device_said_itself(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    phone
        .subscribe_with(&[("c/+/messages", 1 | 0b100)], &[])
        .await;
    let mut tablet = broker.device("alice", "tablet").await;
    phone.say(&conversation, "from the phone").await;
    tablet.say(&conversation, "from the tablet").await;
    let delivery = phone.delivery().await;
    assert_eq!(delivery.id(), "from the tablet");
    phone.acknowledge(delivery.packet_id).await;
    phone.say(&conversation, "from the phone again").await;
    phone.disconnect().await;
    let mut phone = broker.device("alice", "phone").await;
    phone.assert_quiet().await;
    broker.stop().await;
}

/// QoS 0 needs no acknowledgement, and what was missed while away still comes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_subscription_with_qos_0_gets_all_once(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("bob", "phone").await;
    assert_eq!(phone.subscribe_with(&[("c/+/messages", 0)], &[]).await, [0]);
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "1").await;
    let live = phone.delivery().await;
    assert_eq!((live.packet_id, live.seq()), (0, 1));
    phone.disconnect().await;
    sender.say(&conversation, "2").await;
    let mut phone = broker.device("bob", "phone").await;
    let missed = phone.delivery().await;
    assert_eq!(
        (missed.packet_id, missed.seq(), missed.is_repeated),
        (0, 2, false)
    );
    phone.assert_quiet().await;
    broker.stop().await;
}

/// Goal: what the conversation has in store is not shown to a new device: it reads it over
/// REST. What comes next is, once, however often it subscribes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_new_subscription_begins_with_what_comes_next(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut witness = broker.listener("bob", "witness").await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "old").await;
    witness.drain(1, 1).await;
    let phone = broker.listener("bob", "phone").await;
    phone.disconnect().await;
    let mut phone = broker.device("bob", "phone").await;
    phone.assert_quiet().await;
    sender.say(&conversation, "new").await;
    let delivery = phone.delivery().await;
    assert_eq!(delivery.id(), "new");
    assert_eq!(phone.subscribe(&["c/+/messages"]).await, [1]);
    phone.acknowledge(delivery.packet_id).await;
    phone.assert_quiet().await;

    assert_eq!(phone.unsubscribe("c/+/messages").await, [0]);
    sender.say(&conversation, "not wanted").await;
    witness.drain(2, 3).await;
    assert_eq!(phone.subscribe(&["c/+/messages"]).await, [1]);
    sender.say(&conversation, "wanted").await;
    assert_eq!(phone.delivery_of("/messages").await.id(), "wanted");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_subscription_that_is_refused_says_why(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("mqtt.subscriptions_max", "2")]).await;
    let mut phone = broker.device("alice", "phone").await;
    let filters = [
        "c/#/x",
        "c/a#",
        "+c/x",
        "$share/group/c/#",
        "#",
        "+/#",
        "sensor/+",
        "$SYS/#",
        "c/no-id/messages",
        "me/device",
        "c/#",
        "me/#",
        "c/#",
    ];
    let codes = phone.subscribe(&filters).await;
    let [malformed, shared, denied, full] = [0x8f, 0x9e, 0x87, 0x97];
    assert_eq!(
        codes,
        [
            malformed, malformed, malformed, shared, denied, denied, denied, denied, denied, 1, 1,
            full, 1
        ]
    );
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    assert_eq!(old.subscribe(&["c/#", "#", "c/a#"]).await, [1, 0x80, 0x80]);
    assert!(old.unsubscribe("nothing").await.is_empty());
    broker.stop().await;
}
