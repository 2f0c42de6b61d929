//! What is for the user alone, on topics that begin with `me/`.

use super::*;
use crate::domain::topic::{ME_INBOX, ME_PRESENCE};

fn published(stage: &mut Stage) -> Vec<(String, Vec<u8>)> {
    let packets = stage.packets().into_iter();
    let publishes = packets.map(|packet| match packet {
        v5::Packet::Publish(publish) => (publish.topic.to_string(), publish.payload.to_vec()),
        other => panic!("{other:?} in place of PUBLISH"),
    });
    publishes.collect()
}

#[test]
fn it_reaches_who_subscribes_and_nobody_else() {
    let mut stage = Stage::open(Version::V5);
    assert!(!stage.session.take_has_new_subscriptions());
    stage.session.handle_mine(ME_INBOX, b"1");
    assert!(published(&mut stage).is_empty());

    stage.subscribe(ME_INBOX, QoS::AtLeastOnce);
    assert!(stage.session.take_has_new_subscriptions());
    assert!(!stage.session.take_has_new_subscriptions());
    stage.session.handle_mine(ME_INBOX, b"2");
    stage.session.handle_mine(ME_PRESENCE, b"3");
    let told = [(ME_INBOX.to_owned(), b"2".to_vec())];
    assert_eq!(published(&mut stage), told);
}

/// Goal: who reads slowly gets no more than there is room for, and what was dropped is counted.
#[test]
fn what_a_slow_reader_does_not_get_is_counted() {
    let mut stage = Stage::open(Version::V5);
    stage.subscribe("me/#", QoS::AtMostOnce);
    let payload = vec![b' '; 1500];
    for _ in 0..5 {
        stage.session.handle_mine(ME_PRESENCE, &payload);
    }
    assert_eq!(published(&mut stage).len(), 3, "4,096 bytes may wait");
    assert_eq!(stage.session.take_events_dropped(), 2);
}
