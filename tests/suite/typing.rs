//! Who is typing: told to the other participants on c/{cid}/typing, and to nobody else.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{TestBroker, Wire};

fn topic(conversation: &str) -> String {
    format!("c/{conversation}/typing")
}

/// Says that somebody types; it is acknowledged without a reason.
async fn types(wire: &mut Wire, conversation: &str, payload: &[u8]) {
    let puback = wire.ask(&topic(conversation), payload).await;
    assert!(
        puback.code == 0 && puback.properties.is_empty(),
        "{puback:?}"
    );
}

/// A device that hears everything of its user's conversations.
async fn hearer(broker: &TestBroker, user: &str, client_id: &str) -> Wire {
    let mut wire = broker.device(user, client_id).await;
    assert_eq!(wire.subscribe(&["c/#", "me/device"]).await, [1, 1]);
    wire
}

/// The next thing it hears, which must be about typing in this conversation.
async fn heard(wire: &mut Wire, conversation: &str) -> Value {
    let delivery = wire.delivery().await;
    assert_eq!(delivery.packet_id, 0);
    assert_eq!(delivery.topic, topic(conversation));
    delivery.json()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_others_are_told_who_types_and_who_stops(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let mut carol = hearer(&broker, "carol", "phone").await;
    let mut own = hearer(&broker, "alice", "tablet").await;
    let mut deaf = broker.listener("bob", "deaf").await;
    let mut alice = hearer(&broker, "alice", "phone").await;

    types(&mut alice, &conversation, b"{}").await;
    let begins = json!({"user": "alice", "typing": true, "expires_in": 5});
    assert_eq!(heard(&mut bob, &conversation).await, begins);
    assert_eq!(heard(&mut carol, &conversation).await, begins);
    types(&mut alice, &conversation, br#"{"typing":false}"#).await;
    let ends = json!({"user": "alice", "typing": false});
    assert_eq!(heard(&mut bob, &conversation).await, ends);
    assert_eq!(heard(&mut carol, &conversation).await, ends);

    // Neither the user's own devices nor who has not subscribed.
    for silent in [&mut own, &mut alice, &mut deaf] {
        silent.assert_quiet().await;
    }
    broker.stop().await;
}

/// Goal: whoever takes no part, or not any more, neither hears of it nor says it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn only_participants_hear_of_typing_and_say_it(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = broker.device("alice", "phone").await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let mut stranger = hearer(&broker, "mallory", "phone").await;
    stranger.subscribe(&[&topic(&conversation)]).await;
    let mut removed = broker.device("carol", "phone").await;
    removed.subscribe(&["c/+/typing"]).await;

    types(&mut alice, &conversation, b"{}").await;
    heard(&mut bob, &conversation).await;
    heard(&mut removed, &conversation).await;
    broker.remove(&conversation, "carol").await;
    assert_eq!(bob.delivery().await.seq(), 1);
    types(&mut alice, &conversation, br#"{"typing":false}"#).await;
    heard(&mut bob, &conversation).await;
    stranger.assert_quiet().await;
    removed.assert_quiet().await;

    let unknown = topic("AZjzwgAAcACAAAAAAAAAAQ");
    for wire in [&mut stranger, &mut removed] {
        assert_eq!(wire.ask(&topic(&conversation), b"{}").await.code, 0x87);
        assert_eq!(wire.ask(&unknown, b"{}").await.code, 0x87);
    }
    // Without an acknowledgement it is said on me/device.
    let packet = stranger.publish_packet(0x30, 0, &topic(&conversation), &[], b"{}");
    stranger.send(&packet).await;
    let refused = stranger.delivery().await.json();
    assert_eq!(
        (refused["event"].as_str(), refused["code"].as_u64()),
        (Some("refused"), Some(0x87))
    );
    bob.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_may_not_write_does_not_type(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker
        .conversation(&["alice", "bob", "carol", "dave", "erin"])
        .await;
    for (user, set) in [
        ("bob", "role = 'readonly'"),
        ("carol", "silenced_until = now() + interval '1 hour'"),
        ("dave", "is_blocked = true"),
        ("erin", "silenced_until = now() - interval '1 hour'"),
    ] {
        let update = format!(
            "update participants set {set} from users u
             where u.user_id = participants.user_id and u.subject = '{user}'"
        );
        sqlx::query(sqlx::AssertSqlSafe(update))
            .execute(&pool)
            .await
            .unwrap();
    }
    let mut alice = hearer(&broker, "alice", "phone").await;
    for (user, code) in [("bob", 0x87), ("carol", 0x87), ("dave", 0x87), ("erin", 0)] {
        let mut wire = broker.device(user, "phone").await;
        assert_eq!(
            wire.ask(&topic(&conversation), b"{}").await.code,
            code,
            "{user}"
        );
    }
    assert_eq!(heard(&mut alice, &conversation).await["user"], "erin");
    alice.assert_quiet().await;
    broker.stop().await;
}

/// Goal: a device may say it with every key; the others hear one of many.
#[sqlx::test(migrator = "MIGRATOR")]
async fn typing_is_told_once_per_interval(pool: PgPool) {
    let settings = [
        ("presence.typing_interval", "1h"),
        ("presence.typing_ttl", "1h"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let first = broker.conversation(&["alice", "bob"]).await;
    let second = broker.conversation(&["alice", "bob"]).await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let mut alice = broker.device("alice", "phone").await;
    let mut tablet = broker.device("alice", "tablet").await;
    for _ in 0..20 {
        types(&mut alice, &first, b"{}").await;
        types(&mut tablet, &first, br#"{"typing":true}"#).await;
    }
    types(&mut alice, &second, b"{}").await;
    assert_eq!(heard(&mut bob, &first).await["expires_in"], 3600);
    heard(&mut bob, &second).await;
    bob.assert_quiet().await;
    broker.stop().await;

    let settings = [("presence.typing_interval", "0s")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let mut alice = broker.device("alice", "phone").await;
    for _ in 0..3 {
        types(&mut alice, &first, b"{}").await;
        heard(&mut bob, &first).await;
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn large_conversations_are_not_told_who_types(pool: PgPool) {
    let settings = [("message.receipts_participants_max", "2")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let large = broker.conversation(&["alice", "bob", "carol"]).await;
    let small = broker.conversation(&["alice", "bob"]).await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let mut alice = broker.device("alice", "phone").await;
    types(&mut alice, &large, b"{}").await;
    types(&mut alice, &small, b"{}").await;
    heard(&mut bob, &small).await;
    bob.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_says_nothing_about_typing_is_refused_with_a_cure(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let mut alice = broker.device("alice", "phone").await;
    for payload in [&b""[..], b"true", b"[]", br#"{"typing":"yes"}"#, b"\xff"] {
        let refused = alice.ask(&topic(&conversation), payload).await;
        assert_eq!(refused.code, 0x99, "{payload:?}");
        let why = refused.properties.text(0x1f).unwrap();
        assert!(why.contains(r#"{"typing": false}"#), "{why}");
    }
    bob.assert_quiet().await;
    broker.stop().await;
}

/// Goal: what is ephemeral is never written, whatever happens to a row counts.
#[sqlx::test(migrator = "MIGRATOR")]
async fn typing_writes_no_row(pool: PgPool) {
    let settings = [("presence.typing_interval", "0s")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut bob = broker.device("bob", "phone").await;
    bob.subscribe(&["c/+/typing"]).await;
    let mut alice = broker.device("alice", "phone").await;
    let writes = crate::writes::watch(&pool).await;
    for _ in 0..10 {
        types(&mut alice, &conversation, b"{}").await;
        heard(&mut bob, &conversation).await;
    }
    assert_eq!(writes.all().await, []);
    // The same measure sees a message.
    alice.say(&conversation, "hello").await;
    let tables: Vec<_> = writes
        .all()
        .await
        .into_iter()
        .map(|(table, _)| table)
        .collect();
    assert!(tables.contains(&"messages".to_owned()), "{tables:?}");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn typing_over_rest_reaches_devices(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut bob = hearer(&broker, "bob", "phone").await;
    let path = format!("/{conversation}/typing");
    for (user, body, status) in [
        ("alice", json!({}), 204),
        ("alice", json!({"typing": false}), 204),
        ("alice", json!({"typing": 1}), 400),
        ("mallory", json!({}), 404),
    ] {
        let (answered, answer) = broker.rest(Method::POST, user, &path, Some(body)).await;
        assert_eq!(answered, status, "{user} {answer}");
    }
    let told = json!({"user": "alice", "typing": true, "expires_in": 5});
    assert_eq!(heard(&mut bob, &conversation).await, told);
    assert_eq!(heard(&mut bob, &conversation).await["typing"], false);
    bob.assert_quiet().await;
    broker.stop().await;
}
