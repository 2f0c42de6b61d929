//! Receipts: delivered by PUBACK, read by publish, the same over MQTT and REST.

use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId, UserId},
        message::{Content, NewMessage},
    },
    store::{MIGRATOR, conversations::UNREAD_MAX, messages},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{TestBroker, Wire, until};

/// Receives receipts until one says this.
async fn told(wire: &mut Wire, user: &str, delivered: i64, read: i64) {
    let wanted = json!({"user": user, "delivered": delivered, "read": read});
    loop {
        let receipt = wire.delivery_of("/receipts").await;
        assert_eq!(receipt.packet_id, 0);
        if receipt.json() == wanted {
            return;
        }
    }
}

async fn standings(broker: &TestBroker, conversation: &str) -> Value {
    let path = format!("/{conversation}/receipts");
    let (_, body) = broker.rest(Method::GET, "alice", &path, None).await;
    body["receipts"].clone()
}

async fn unread(broker: &TestBroker, user: &str, conversation: &str) -> Value {
    let path = format!("/{conversation}");
    let (_, body) = broker.rest(Method::GET, user, &path, None).await;
    body["unread"].clone()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_puback_is_a_delivered_receipt_and_read_is_said(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut watcher = broker.device("alice", "watcher").await;
    assert_eq!(watcher.subscribe(&["c/+/receipts"]).await, [1]);
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    for seq in 1..=3 {
        sender.say(&conversation, &seq.to_string()).await;
    }
    assert_eq!(unread(&broker, "bob", &conversation).await, 3);
    phone.drain(1, 2).await;
    told(&mut watcher, "bob", 2, 0).await;
    assert_eq!(unread(&broker, "bob", &conversation).await, 3);

    let third = phone.delivery().await;
    let topic = format!("c/{conversation}/receipts");
    let puback = phone.ask(&topic, br#"{"read":1}"#).await;
    assert!(puback.code == 0 && puback.properties.is_empty());
    told(&mut watcher, "bob", 2, 1).await;
    assert_eq!(unread(&broker, "bob", &conversation).await, 2);
    assert_eq!(unread(&broker, "alice", &conversation).await, 0);

    // Reading is more than receiving; positions never go back, and never beyond the log.
    phone.ask(&topic, br#"{"read":99}"#).await;
    told(&mut watcher, "bob", 3, 3).await;
    phone.ask(&topic, br#"{"read":2,"delivered":1}"#).await;
    phone.acknowledge(third.packet_id).await;
    let bob = json!({"user": "bob", "delivered": 3, "read": 3});
    assert_eq!(standings(&broker, &conversation).await[1], bob);
    assert_eq!(unread(&broker, "bob", &conversation).await, 0);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_read_receipt_over_rest_reaches_devices(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.say(&conversation, "hello").await;
    phone.subscribe(&["c/+/receipts"]).await;
    let path = format!("/{conversation}/receipts");
    let (status, body) = broker
        .rest(Method::PUT, "bob", &path, Some(json!({"read": 1})))
        .await;
    assert!(status.is_success(), "{body}");
    told(&mut phone, "bob", 1, 1).await;
    broker.stop().await;
}

/// Delivered is what any of a user's devices has; a cursor is what one device has.
#[sqlx::test(migrator = "MIGRATOR")]
async fn each_device_has_its_own_cursor(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let tablet = broker.listener("bob", "tablet").await;
    tablet.disconnect().await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "1").await;
    sender.say(&conversation, "2").await;
    phone.drain(1, 2).await;
    phone.disconnect().await;
    let bob = json!({"user": "bob", "delivered": 2, "read": 0});
    until("the receipt", async || {
        standings(&broker, &conversation).await[1] == bob
    })
    .await;
    let mut tablet = broker.device("bob", "tablet").await;
    tablet.drain(1, 2).await;
    let mut phone = broker.device("bob", "phone").await;
    phone.assert_quiet().await;
    broker.stop().await;
}

/// Receipts with QoS 0 count too; nobody is told of a bad one but its sender.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_receipt_may_come_without_acknowledgement(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut watcher = broker.device("alice", "watcher").await;
    watcher.subscribe(&["c/+/receipts"]).await;
    watcher.say(&conversation, "hello").await;
    let mut phone = broker.device("bob", "phone").await;
    let topic = format!("c/{conversation}/receipts");
    for payload in [&b"{\"read\":-1}"[..], br#"{"read":1}"#] {
        let packet = phone.publish_packet(0x30, 0, &topic, &[], payload);
        phone.send(&packet).await;
    }
    told(&mut watcher, "bob", 1, 1).await;
    broker.stop().await;
}

/// Lets a user have written so many messages, of which nobody was told.
async fn write(pool: &PgPool, conversation: &str, user: &str, count: i64) {
    let sender = sqlx::query_scalar("select user_id from users where subject = $1");
    let sender = sender.bind(user).fetch_one(pool).await.unwrap();
    let id: ConversationId = conversation.parse().unwrap();
    let message = |_| NewMessage {
        conversation: id,
        sender: UserId(sender),
        sender_name: user.parse().unwrap(),
        sender_device: None,
        content: Content::new(
            ClientMessageId::new(uuid::Uuid::now_v7().to_string()).unwrap(),
            "text",
            "1",
        ),
    };
    let batch: Vec<_> = (0..count).map(message).collect();
    let mut conn = pool.acquire().await.unwrap();
    messages::append_batch(&mut conn, &batch).await.unwrap();
}

/// Until what was reported or noted before is stored: a report is answered then.
async fn flushed(broker: &TestBroker, conversation: &str) {
    let path = format!("/{conversation}/receipts");
    let report = Some(json!({"delivered": 1}));
    let (status, body) = broker.rest(Method::PUT, "bob", &path, report).await;
    assert!(status.is_success(), "{body}");
}

/// Goal: to count what a sender that never reads has not read costs no more with each message.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_has_written_as_much_as_is_counted_has_read_what_stands_before(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["robot", "bob"]).await;
    let mut watcher = broker.device("bob", "watcher").await;
    watcher.subscribe(&["c/+/receipts"]).await;
    watcher.say(&conversation, "what is the weather?").await;
    let mut robot = broker.device("robot", "station").await;
    write(&pool, &conversation, "robot", UNREAD_MAX - 2).await;
    let head = UNREAD_MAX;
    assert_eq!(robot.say(&conversation, "rain").await, head);
    flushed(&broker, &conversation).await;
    assert_eq!(unread(&broker, "robot", &conversation).await, 1);
    assert_eq!(robot.say(&conversation, "sun").await, head + 1);
    flushed(&broker, &conversation).await;
    assert_eq!(unread(&broker, "robot", &conversation).await, 0);
    told(&mut watcher, "robot", head + 1, head + 1).await;
    broker.stop().await;
}

/// Goal: who is away from a busy conversation, and says something, still sees how much is unread.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_has_as_much_to_read_as_is_counted_reads_nothing_by_writing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    write(&pool, &conversation, "bob", UNREAD_MAX).await;
    write(&pool, &conversation, "alice", UNREAD_MAX).await;
    alice.say(&conversation, "sorry, I was away").await;
    flushed(&broker, &conversation).await;
    assert_eq!(unread(&broker, "alice", &conversation).await, UNREAD_MAX);
    broker.stop().await;
}
