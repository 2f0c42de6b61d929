//! Who takes part: judged at each publish and each delivery, and from a sequence on.

use homing::store::MIGRATOR;
use reqwest::Method;
use sqlx::PgPool;

use crate::harness::TestBroker;

/// Goal: removal takes effect at a sequence, for a connected device in the same moment.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_removed_gets_the_removal_and_nothing_after(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob", "carol"]).await;
    let mut bobs = broker.listener("bob", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("bob", "old")).await;
    old.subscribe(&["c/+/messages", "me/device"]).await;
    let mut witness = broker.listener("carol", "witness").await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "before").await;
    assert_eq!(broker.remove(&conversation, "bob").await, 2);
    assert_eq!(sender.say(&conversation, "after").await, 3);

    for wire in [&mut bobs, &mut old] {
        let before = wire.delivery().await;
        wire.acknowledge(before.packet_id).await;
        let removal = wire.delivery().await;
        assert_eq!(removal.json()["type"], "homing.membership");
        assert_eq!(removal.json()["body"]["change"], "removed");
        assert_eq!((before.id().as_str(), removal.seq()), ("before", 2));
        wire.acknowledge(removal.packet_id).await;
    }
    assert_eq!(witness.drain(1, 3).await[2], "after");
    bobs.assert_quiet().await;
    old.assert_quiet().await;

    let topic = format!("c/{conversation}/send");
    let message = br#"{"id":"b","body":"still here"}"#;
    assert_eq!(bobs.ask(&topic, message).await.code, 0x87);
    let event = old.ask_refused(&topic, message).await.json();
    assert_eq!((&event["code"], &event["id"]), (&0x87.into(), &"b".into()));

    bobs.disconnect().await;
    sender.say(&conversation, "long after").await;
    let mut bobs = broker.device("bob", "phone").await;
    bobs.assert_quiet().await;
    assert_eq!(broker.log("bob", &conversation).await.len(), 2);
    broker.stop().await;
}

/// Who was away when removed still gets what was said before, and the removal.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_removed_while_away_gets_what_was_before(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let phone = broker.listener("bob", "phone").await;
    phone.disconnect().await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "before").await;
    broker.remove(&conversation, "bob").await;
    sender.say(&conversation, "after").await;
    let mut phone = broker.device("bob", "phone").await;
    assert_eq!(phone.drain(1, 2).await[0], "before");
    phone.assert_quiet().await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_added_sees_from_there_on(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice"]).await;
    let mut sender = broker.device("alice", "sender").await;
    let mut phone = broker.listener("bob", "phone").await;
    sender.say(&conversation, "secret").await;
    assert_eq!(broker.add(&conversation, "bob").await, 2);
    sender.say(&conversation, "welcome").await;
    assert_eq!(phone.drain(2, 3).await[1], "welcome");

    // Removed and added again: nothing of the time between.
    broker.remove(&conversation, "bob").await;
    assert_eq!(phone.drain(4, 4).await.len(), 1);
    sender.say(&conversation, "secret again").await;
    assert_eq!(broker.add(&conversation, "bob").await, 6);
    sender.say(&conversation, "welcome back").await;
    let back = [phone.delivery().await, phone.delivery().await];
    assert_eq!((back[0].seq(), back[1].seq()), (6, 7));
    assert_eq!(back[1].id(), "welcome back");
    for delivery in back {
        phone.acknowledge(delivery.packet_id).await;
    }
    assert_eq!(phone.say(&conversation, "thanks").await, 8);
    broker.stop().await;
}

/// Goal: while one is removed and added again and again, and others talk, both sides of
/// every change hold: no message of the time outside, every message of the time inside.
#[sqlx::test(migrator = "MIGRATOR")]
async fn changes_amid_talk_take_effect_at_their_sequence(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    let mut visible = Vec::new();
    let mut inside_since = Some(1);
    let mut seq = 0;
    for round in 0..12 {
        for number in 0..4 {
            sender
                .begin_say(&conversation, &format!("{round} {number}"))
                .await;
        }
        let change = if let Some(since) = inside_since.take() {
            let change = broker.remove(&conversation, "bob").await;
            visible.extend(since..=change);
            change
        } else {
            let change = broker.add(&conversation, "bob").await;
            inside_since = Some(change);
            change
        };
        for _ in 0..4 {
            assert_eq!(sender.puback().await.code, 0);
        }
        assert!(change > seq);
        seq = change;
    }
    let last = sender.say(&conversation, "last").await;
    visible.extend(inside_since.into_iter().flat_map(|since| since..=last));
    for expected in visible {
        let delivery = phone.delivery().await;
        assert_eq!(delivery.seq(), expected);
        phone.acknowledge(delivery.packet_id).await;
    }
    phone.assert_quiet().await;
    broker.stop().await;
}

/// Only participants see anything of a conversation, its existence included.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stranger_sees_nothing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut mallory = broker.device("mallory", "phone").await;
    let exact = [
        format!("c/{conversation}/messages"),
        format!("c/{conversation}/#"),
    ];
    for filter in [exact[0].as_str(), &exact[1], "c/#"] {
        assert_eq!(mallory.subscribe(&[filter]).await, [1]);
    }
    let mut bobs = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "for bob").await;
    bobs.drain(1, 1).await;
    bobs.say(&conversation, "for alice").await;
    mallory.assert_quiet().await;
    mallory.disconnect().await;
    let mut mallory = broker.device("mallory", "phone").await;
    mallory.assert_quiet().await;
    let path = format!("/{conversation}/messages");
    let (status, _) = broker.rest(Method::GET, "mallory", &path, None).await;
    assert_eq!(status, 404);
    broker.stop().await;
}
