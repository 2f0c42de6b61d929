//! What a device says of itself on me/state, and what its silence says: both reach the store.

use homing::store::MIGRATOR;
use sqlx::PgPool;

use crate::harness::{Received, TestBroker, until};

/// The activity of a device, and whether it is suspected.
async fn stored(pool: &PgPool, client_id: &str) -> (String, bool) {
    let query = "select s.activity, s.suspected_at is not null
                 from sessions s join devices d using (device_id) where d.client_id = $1";
    let row = sqlx::query_as(query).bind(client_id).fetch_one(pool).await;
    row.unwrap()
}

async fn until_activity(pool: &PgPool, client_id: &str, activity: &str) {
    until(activity, async || {
        stored(pool, client_id).await.0 == activity
    })
    .await;
}

async fn until_suspect(pool: &PgPool, client_id: &str, is_suspect: bool) {
    until("a suspicion, or its end", async || {
        stored(pool, client_id).await.1 == is_suspect
    })
    .await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_a_device_says_of_itself_is_stored(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.device("alice", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    assert_eq!(stored(&pool, "phone").await, ("active".to_owned(), false));
    for (payload, activity) in [
        (&b"background"[..], "background"),
        (b"\"away\"", "away"),
        (b"{\"state\":\"active\"}", "active"),
        (b"{\"state\": \"background\", \"battery\": 7}", "background"),
    ] {
        let puback = phone.ask("me/state", payload).await;
        assert_eq!((puback.code, puback.properties.is_empty()), (0, true));
        old.ask("me/state", payload).await;
        until_activity(&pool, "phone", activity).await;
        until_activity(&pool, "old", activity).await;
    }
    let packet = phone.publish_packet(0x30, 0, "me/state", &[], b"away");
    phone.send(&packet).await;
    until_activity(&pool, "phone", "away").await;
    phone.assert_quiet().await;
    assert_eq!(stored(&pool, "old").await.0, "background", "another device");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_state_that_is_none_is_refused_with_a_cure(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.listener("alice", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    old.subscribe(&["me/device"]).await;
    for payload in [&b""[..], b"asleep", b"[\"away\"]", b"{}", b"\xff", b"7"] {
        let refused = phone.ask("me/state", payload).await;
        let why = refused.properties.text(0x1f).unwrap();
        assert_eq!(refused.code, 0x99, "{payload:?}");
        assert!(
            why.contains("`background`") && why.contains("{\"state\""),
            "{why}"
        );

        let event = old.ask_refused("me/state", payload).await.json();
        assert_eq!(
            (event["event"].as_str(), event["code"].as_u64()),
            (Some("refused"), Some(0x99))
        );
        assert_eq!(event["topic"], "me/state");
    }
    for client_id in ["phone", "old"] {
        assert_eq!(stored(&pool, client_id).await.0, "active");
    }
    broker.stop().await;
}

/// Goal: going away is believed at once, whatever the rhythm of the store; the last word
/// counts when the connection ends, and the next connection begins anew.
#[sqlx::test(migrator = "MIGRATOR")]
async fn away_does_not_wait_and_a_new_connection_is_active(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("store.flush_interval", "1h")]).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.ask("me/state", b"away").await;
    until_activity(&pool, "phone", "away").await;
    phone.ask("me/state", b"active").await;
    phone.ask("me/state", b"background").await;
    phone.disconnect().await;
    let phone = broker.device("alice", "phone").await;
    assert_eq!(stored(&pool, "phone").await.0, "active");
    phone.disconnect().await;

    let mut tablet = broker.device("alice", "tablet").await;
    tablet.ask("me/state", b"background").await;
    tablet.disconnect().await;
    until("the end of the session", async || {
        let away = "select disconnected_at is not null from sessions s
                    join devices d using (device_id) where d.client_id = 'tablet'";
        sqlx::query_scalar(away).fetch_one(&pool).await.unwrap()
    })
    .await;
    assert_eq!(stored(&pool, "tablet").await.0, "background");
    broker.stop().await;
}

/// Goal: a device whose connection is half open is known to be so, and is forgiven with the
/// first byte that comes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_that_does_not_answer_is_suspect_until_it_does(pool: PgPool) {
    let settings = [
        ("push.grace_offline", "200ms"),
        ("push.grace_connected", "200ms"),
        ("store.flush_interval", "1h"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let idle = broker.device("bob", "idle").await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "1").await;
    until_suspect(&pool, "phone", true).await;
    assert!(!stored(&pool, "idle").await.1, "it was sent nothing");
    assert!(!stored(&pool, "sender").await.1);
    // Half a PINGREQ: it lives.
    phone.send(&[0xc0]).await;
    until_suspect(&pool, "phone", false).await;
    phone.send(&[0]).await;
    let first = phone.delivery().await;
    assert_eq!(phone.receive().await, Received::PingResp);

    // It reads, and says nothing; then it acknowledges.
    sender.say(&conversation, "2").await;
    assert_eq!(phone.delivery().await.seq(), 2);
    until_suspect(&pool, "phone", true).await;
    phone.acknowledge(first.packet_id).await;
    until_suspect(&pool, "phone", false).await;

    // Suspected at its end, it comes back without a stain.
    sender.say(&conversation, "3").await;
    until_suspect(&pool, "phone", true).await;
    drop(phone);
    let phone = broker.device("bob", "phone").await;
    let began: bool = sqlx::query_scalar(
        "select connected_at is not null and node is not null from sessions s
         join devices d using (device_id) where d.client_id = 'phone'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(began);
    drop((phone, idle));
    broker.stop().await;
}
