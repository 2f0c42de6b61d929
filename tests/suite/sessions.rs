//! Sessions: what a device finds when it comes back, and what a takeover leaves.

use homing::store::MIGRATOR;
use sqlx::PgPool;

use crate::harness::{Connect, Received, TestBroker, until};

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_session_goes_on_where_the_connection_broke(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut sender = broker.device("alice", "sender").await;
    for is_v5 in [true, false] {
        let connect = || {
            if is_v5 {
                broker.v5("bob", "new phone")
            } else {
                broker.v3("bob", "old phone")
            }
        };
        let head = i64::try_from(broker.log("bob", &conversation).await.len()).unwrap();
        let (mut phone, connack) = broker.connect(connect()).await;
        assert!(!connack.is_present);
        assert_eq!(phone.subscribe(&["c/+/messages"]).await, [1]);
        for number in 1..=3 {
            sender
                .say(&conversation, &format!("{is_v5} {number}"))
                .await;
        }
        let first = phone.delivery().await;
        phone.acknowledge(first.packet_id).await;
        let unacknowledged = [phone.delivery().await, phone.delivery().await];
        drop(phone); // without a DISCONNECT, as mobile networks do
        sender.say(&conversation, &format!("{is_v5} missed")).await;

        let (mut phone, connack) = broker.connect(connect()).await;
        assert!(connack.is_present);
        for before in unacknowledged {
            let again = phone.delivery().await;
            assert!(again.is_repeated && !before.is_repeated);
            assert_eq!(again.packet_id, before.packet_id);
            assert_eq!(again.payload, before.payload);
            phone.acknowledge(again.packet_id).await;
        }
        let missed = phone.delivery().await;
        assert_eq!((missed.seq(), missed.is_repeated), (head + 4, false));
        phone.acknowledge(missed.packet_id).await;
        phone.disconnect().await;
        let (mut phone, _) = broker.connect(connect()).await;
        phone.assert_quiet().await;
        phone.disconnect().await;
    }
    broker.stop().await;
}

/// Goal: a stop and a start of the broker are one more lost connection, no more.
#[sqlx::test(migrator = "MIGRATOR")]
async fn sessions_outlive_the_broker(pool: PgPool) {
    let mut broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("bob", "old")).await;
    old.subscribe(&["c/+/messages"]).await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "1").await;
    sender.say(&conversation, "2").await;
    let first = phone.delivery().await;
    let second = phone.delivery().await;
    phone.acknowledge(first.packet_id).await;
    let old_first = old.delivery().await;
    phone.assert_quiet().await;

    broker = broker.restart().await;
    phone.assert_disconnected(0x8b).await;
    let mut sender = broker.device("alice", "sender").await;
    assert_eq!(sender.say(&conversation, "3").await, 3);
    assert_eq!(sender.say(&conversation, "1").await, 1, "a repeat");
    let (mut phone, connack) = broker.connect(broker.v5("bob", "phone")).await;
    assert!(connack.is_present);
    let again = phone.delivery().await;
    assert_eq!(again.packet_id, second.packet_id);
    assert_eq!((again.seq(), again.is_repeated), (2, true));
    let third = phone.delivery().await;
    assert_eq!((third.seq(), third.is_repeated), (3, false));
    let (mut old, connack) = broker.connect(broker.v3("bob", "old")).await;
    assert!(connack.is_present);
    let again = old.delivery().await;
    assert_eq!((again.packet_id, again.seq()), (old_first.packet_id, 1));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_clean_start_forgets_the_session(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut sender = broker.device("alice", "sender").await;
    let listener = broker.listener("bob", "phone").await;
    listener.disconnect().await;
    sender.say(&conversation, "missed").await;
    let (mut phone, connack) = broker.connect(broker.v5("bob", "phone").clean()).await;
    assert!(!connack.is_present);
    sender.say(&conversation, "not subscribed").await;
    phone.assert_quiet().await;
    phone.subscribe(&["c/+/messages"]).await;
    sender.say(&conversation, "subscribed").await;
    assert_eq!(phone.delivery().await.id(), "subscribed");
    phone.disconnect().await;

    // Clean Session of MQTT 3.1.1 also leaves nothing behind.
    let (mut phone, connack) = broker.connect(broker.v3("bob", "phone").clean()).await;
    assert!(!connack.is_present);
    phone.subscribe(&["c/+/messages"]).await;
    phone.disconnect().await;
    let (_phone, connack) = broker.connect(broker.v3("bob", "phone")).await;
    assert!(!connack.is_present);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_session_ends_when_it_says(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let token = broker.token("bob");
    let is_present = async |connect: Connect| {
        let (wire, connack) = broker.connect(connect).await;
        wire.disconnect().await;
        connack.is_present
    };
    let brief = || Connect::v5("phone", &token);
    let lasting = || Connect::v5("phone", &token).expiry(3600);
    assert!(!is_present(lasting()).await);
    assert!(
        is_present(brief()).await,
        "it was still there, and ends now"
    );
    assert!(!is_present(brief()).await);
    assert!(!is_present(lasting()).await);

    let (mut phone, _) = broker.connect(lasting()).await;
    phone.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    phone.assert_closed().await;
    assert!(!is_present(brief()).await, "DISCONNECT ended it");
    let (mut phone, _) = broker.connect(brief()).await;
    phone.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]).await;
    phone.assert_disconnected(0x82).await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_session_that_stayed_away_too_long_has_expired(pool: PgPool) {
    let settings = [("mqtt.session_expiry_max", "1h")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let greedy = || Connect::v5("phone", &broker.token("bob")).expiry(7200);
    let (phone, _) = broker.connect(greedy()).await;
    phone.disconnect().await;
    // The server closes the socket first, and then the session.
    let later = async |seconds: i64| {
        until("the end of the session", async || {
            sqlx::query("update sessions set expires_at = expires_at - make_interval(secs => $1) where expires_at is not null")
                .bind(seconds)
                .execute(&pool)
                .await
                .unwrap()
                .rows_affected()
                == 1
        })
        .await;
    };
    later(3500).await;
    let (phone, connack) = broker.connect(greedy()).await;
    assert!(connack.is_present);
    phone.disconnect().await;
    later(3700).await;
    let (_phone, connack) = broker.connect(broker.v5("bob", "phone")).await;
    assert!(
        !connack.is_present,
        "the hour is over, whatever it asked for"
    );
    broker.stop().await;
}

/// Goal: the newer of two connections has the session; the older is told; what is not
/// acknowledged comes again, and nothing else does.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_takeover_loses_nothing_and_repeats_nothing_acknowledged(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut sender = broker.device("alice", "sender").await;
    let mut phone = broker.listener("bob", "phone").await;
    for round in 0..10_i64 {
        for number in 1..=3 {
            sender
                .say(&conversation, &format!("{round} {number}"))
                .await;
        }
        for seq in round * 3 + 1..=round * 3 + 2 {
            let delivery = phone.delivery().await;
            assert_eq!((delivery.seq(), delivery.is_repeated), (seq, false));
            phone.acknowledge(delivery.packet_id).await;
        }
        let unacknowledged = phone.delivery().await;
        phone.assert_quiet().await;
        let (mut newer, connack) = broker.connect(broker.v5("bob", "phone")).await;
        assert!(connack.is_present);
        let last = newer.delivery().await;
        assert_eq!((last.seq(), last.is_repeated), (round * 3 + 3, true));
        assert_eq!(last.packet_id, unacknowledged.packet_id);
        newer.acknowledge(last.packet_id).await;
        phone.assert_disconnected(0x8e).await;
        phone = newer;
    }
    let (mut old, _) = broker.connect(broker.v3("bob", "phone")).await;
    phone.assert_disconnected(0x8e).await;
    let (_newer, _) = broker.connect(broker.v3("bob", "phone")).await;
    assert_eq!(old.receive().await, Received::Closed);
    broker.stop().await;
}

/// Nobody can take another user's session by naming its client id.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_same_client_id_of_two_users_is_two_sessions(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut bobs = broker.listener("bob", "phone").await;
    let (mut carols, connack) = broker.connect(broker.v5("carol", "phone")).await;
    assert!(!connack.is_present);
    carols.subscribe(&["c/#"]).await;
    let mut sender = broker.device("alice", "phone").await;
    sender.say(&conversation, "for bob").await;
    assert_eq!(bobs.drain(1, 1).await, ["for bob"]);
    bobs.assert_quiet().await;
    carols.assert_quiet().await;
    broker.stop().await;
}

/// A device that comes back after many messages reads them all, in order, once.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_long_absence_is_replayed_in_order(pool: PgPool) {
    let settings = [("mqtt.backlog_entries_max", "8")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let one = broker.conversation(&["alice", "bob"]).await;
    let two = broker.conversation(&["alice", "bob"]).await;
    let phone = broker.listener("bob", "phone").await;
    phone.disconnect().await;
    let mut sender = broker.device("alice", "sender").await;
    for number in 0..100 {
        sender.say(&one, &number.to_string()).await;
        if number % 5 == 0 {
            sender.say(&two, &number.to_string()).await;
        }
    }
    let mut phone = broker.device("bob", "phone").await;
    sender.say(&one, "while it replays").await;
    let (mut next_one, mut next_two) = (1, 1);
    while (next_one, next_two) != (102, 21) {
        let delivery = phone.delivery().await;
        let next = if delivery.topic.contains(&one) {
            &mut next_one
        } else {
            &mut next_two
        };
        assert_eq!(delivery.seq(), *next);
        *next += 1;
        phone.acknowledge(delivery.packet_id).await;
    }
    phone.assert_quiet().await;
    broker.stop().await;
}
