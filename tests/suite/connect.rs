//! CONNECT: who is let in, and what everybody else is told.

use std::time::Duration;

use homing::store::MIGRATOR;
use sqlx::PgPool;

use crate::{
    harness::{Connect, Received, TestBroker, Wire, frame, now_unix, text, until},
    store::{server_process, until_blocking},
};

/// Goal: every CONNECT that is refused gets its own reason code in MQTT 5 and the nearest
/// return code in MQTT 3.1.1, and then the connection is closed.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_refused_connect_says_why_and_closes(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let now = now_unix();
    let hour = Duration::from_hours(1);
    let good = broker.token("alice");
    let foreign = {
        let elsewhere = TestBroker::start(&pool).await;
        let token = elsewhere.token("alice");
        elsewhere.stop().await;
        token
    };
    let expired = broker.token_at("alice", now - 7200, hour);
    let future = broker.token_at("alice", now + 7200, hour);
    let unsigned = format!("{}.", &good[..good.rfind('.').unwrap()]);
    for (what, token, v5, v3) in [
        ("empty", "", 0x86, 4),
        ("no token at all", "hello", 0x86, 4),
        ("foreign", &foreign, 0x86, 4),
        ("unsigned", &unsigned, 0x86, 4),
        ("expired", &expired, 0x87, 5),
        ("future", &future, 0x86, 4),
    ] {
        refused(&broker, Connect::v5("phone", token), v5, what).await;
        refused(&broker, Connect::v3("phone", "alice", token), v3, what).await;
    }
    let phone = || Connect::v5("phone", &good);
    let old_phone = || Connect::v3("phone", "alice", &good);
    let long = "x".repeat(129);
    for (what, connect, code) in [
        ("no password", phone().password(None), 0x86),
        ("another's name", phone().user_name(Some("bob")), 0x86),
        ("a will", phone().will(), 0x87),
        (
            "a method",
            phone().property(&[&[0x15][..], &text("X")].concat()),
            0x8c,
        ),
        ("a long client id", Connect::v5(&long, &good), 0x85),
        ("a control character", Connect::v5("a\u{7}b", &good), 0x85),
        ("a reserved flag", phone().flags(1), 0x81),
        ("a will's QoS without a will", phone().flags(0x08), 0x81),
        ("receive maximum 0", phone().receive_max(0), 0x82),
        ("maximum packet size 0", phone().packet_bytes_max(0), 0x82),
        ("a property twice", phone().expiry(1).expiry(1), 0x82),
        (
            "data without a method",
            phone().property(&[0x16, 0, 1, 7]),
            0x82,
        ),
        ("no such version", old_phone().level(6), 1),
        ("no such version", old_phone().level(3), 1),
        ("a will", old_phone().will(), 5),
        ("a long client id", Connect::v3(&long, "alice", &good), 2),
        (
            "no client id and no clean session",
            Connect::v3("", "alice", &good),
            2,
        ),
    ] {
        refused(&broker, connect, code, what).await;
    }
    broker.stop().await;
}

async fn refused(broker: &TestBroker, connect: Connect, code: u8, what: &str) {
    let mut wire = broker.open().await;
    let connack = wire.connect(connect).await;
    assert_eq!(
        (connack.code, connack.is_present),
        (code, false),
        "{what}: {connack:?}"
    );
    if code >= 0x80 {
        let why = connack.properties.text(0x1f).unwrap();
        assert!(!why.is_empty(), "{what}");
    }
    wire.assert_closed().await;
}

/// [MQTT-3.1.4-1] of 3.1.1: what does not conform is closed without a CONNACK.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_no_mqtt_is_closed_without_an_answer(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let token = broker.token("alice");
    let old = || Connect::v3("phone", "alice", &token);
    let mut cut_off = Connect::v5("phone", &token).bytes();
    cut_off[1] = 4;
    cut_off.truncate(6);
    for (what, bytes) in [
        ("garbage", b"\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        (
            "an HTTP request",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("an endless length", b"\x10\xff\xff\xff\xff\x7f".to_vec()),
        ("a huge CONNECT", b"\x10\xff\xff\xff\x7f".to_vec()),
        ("another first packet", b"\xc0\x00".to_vec()),
        ("another protocol", old().name("XMPP").bytes()),
        ("a name that is cut off", cut_off),
        ("a reserved flag", old().flags(1).bytes()),
        (
            "a password without a user name",
            old().user_name(None).bytes(),
        ),
        ("reserved bits", {
            let mut bytes = old().bytes();
            bytes[0] |= 2;
            bytes
        }),
    ] {
        let mut wire = broker.open().await;
        wire.expect_v3();
        wire.send(&bytes).await;
        assert_eq!(wire.receive().await, Received::Closed, "{what}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_without_a_name_is_given_one(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let nameless = || broker.v5("alice", "");
    let (first, connack) = broker.connect(nameless()).await;
    let name = connack.properties.text(0x12).unwrap().to_owned();
    let (_second, other) = broker.connect(nameless()).await;
    assert_ne!(other.properties.text(0x12).unwrap(), name);
    first.disconnect().await;
    let (_again, connack) = broker.connect(broker.v5("alice", &name)).await;
    assert!(connack.is_present);
    assert_eq!(connack.properties.text(0x12), None);
    let (_old, connack) = broker.connect(broker.v3("alice", "").clean()).await;
    assert!(!connack.is_present);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_server_says_what_it_grants(pool: PgPool) {
    let settings = [
        ("mqtt.keep_alive_max", "60s"),
        ("mqtt.session_expiry_max", "1h"),
        ("mqtt.receive_max", "7"),
        ("mqtt.topic_alias_max", "3"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let token = broker.token("alice");
    let greedy = Connect::v5("phone", &token)
        .keep_alive(600)
        .expiry(u32::MAX);
    let (_phone, connack) = broker.connect(greedy).await;
    let granted = &connack.properties;
    assert_eq!(granted.number(0x13), Some(60), "server keep alive");
    assert_eq!(granted.number(0x11), Some(3600), "session expiry");
    assert_eq!(granted.number(0x21), Some(7), "receive maximum");
    assert_eq!(granted.number(0x22), Some(3), "topic alias maximum");
    assert_eq!(granted.number(0x24), Some(1), "maximum QoS");
    assert_eq!(granted.number(0x25), Some(0), "retain available");
    assert_eq!(granted.number(0x27), Some(131_072), "maximum packet size");
    assert_eq!(granted.number(0x2a), Some(0), "shared subscriptions");

    let modest = Connect::v5("tablet", &token).keep_alive(30).expiry(60);
    let (_tablet, connack) = broker.connect(modest).await;
    assert_eq!(connack.properties.number(0x13), None);
    assert_eq!(connack.properties.number(0x11), None);
    let (_never, connack) = broker.connect(Connect::v5("watch", &token)).await;
    assert_eq!(connack.properties.number(0x13), Some(60));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_second_connect_is_a_protocol_error(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let connect = broker.v5("alice", "phone");
    let (mut phone, _) = broker.connect(connect.clone()).await;
    phone.send(&connect.bytes()).await;
    phone.assert_disconnected(0x82).await;

    let connect = broker.v3("alice", "phone");
    let (mut phone, _) = broker.connect(connect.clone()).await;
    phone.send(&connect.bytes()).await;
    phone.assert_closed().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_says_nothing_is_closed(pool: PgPool) {
    let settings = [("mqtt.connect_timeout", "200ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let mut silent = broker.open().await;
    let mut slow = broker.open().await;
    slow.send(&broker.v5("alice", "phone").bytes()[..10]).await;
    assert_eq!(silent.receive().await, Received::Closed);
    assert_eq!(slow.receive().await, Received::Closed);
    broker.stop().await;
}

/// Goal: the store answers too late; what it opened does not stay connected with nobody there.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_session_that_opens_too_late_is_closed_again(pool: PgPool) {
    let settings = [("mqtt.connect_timeout", "300ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    broker.device("alice", "phone").await.disconnect().await;
    let sessions = "select count(*) from sessions where node is not null";
    let connected = async || {
        let connected = sqlx::query_scalar::<_, i64>(sessions).fetch_one(&pool);
        connected.await.unwrap()
    };
    until("the session is closed", async || connected().await == 0).await;
    let mut other = pool.begin().await.unwrap();
    let lock = "lock table sessions in share mode";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let process = server_process(&mut other).await;
    let mut phone = broker.open().await;
    phone.send(&broker.v5("alice", "phone").bytes()).await;
    until_blocking(&pool, process).await;
    let Received::ConnAck(refused) = phone.receive().await else {
        panic!("an answer");
    };
    assert_eq!(refused.code, 0x88);
    let opened = "select generation from sessions";
    let generation = async || {
        let generation = sqlx::query_scalar::<_, i64>(opened).fetch_one(&pool);
        generation.await.unwrap()
    };
    let before = generation().await;
    other.commit().await.unwrap();
    until("the store opens it", async || generation().await > before).await;
    until("it is closed again", async || connected().await == 0).await;
    broker.stop().await;
}

/// Goal: somebody who connects and says nothing cannot hold up a stop.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stop_does_not_wait_for_a_connect(pool: PgPool) {
    let settings = [("mqtt.connect_timeout", "10m")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let mut silent = broker.open().await;
    let mut phone = broker.device("alice", "phone").await;
    phone.assert_quiet().await;
    broker.stop().await;
    assert_eq!(silent.receive().await, Received::Closed);
    phone.assert_disconnected(0x8b).await;
}

/// What follows a CONNECT at once, without waiting for its answer, is not lost.
#[sqlx::test(migrator = "MIGRATOR")]
async fn packets_may_follow_a_connect_at_once(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut wire = Wire::open(broker.mqtt()).await;
    let topic = format!("c/{conversation}/send");
    let bytes = [
        broker.v5("alice", "phone").bytes(),
        wire.publish_packet(0x32, 1, &topic, &[], br#"{"id":"1","body":1}"#),
        frame(0xc0, &[]),
    ]
    .concat();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    wire.send(first).await;
    wire.send(rest).await;
    assert!(matches!(wire.receive().await, Received::ConnAck(_)));
    let mut left = [wire.receive().await, wire.receive().await];
    left.sort_by_key(|received| matches!(received, Received::PingResp));
    assert!(matches!(&left[0], Received::PubAck(puback) if puback.code == 0));
    assert_eq!(left[1], Received::PingResp);
    broker.stop().await;
}
