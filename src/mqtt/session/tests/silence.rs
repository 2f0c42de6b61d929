//! Who is suspect, and for how long.

use std::{sync::Arc, time::Duration};

use super::{GRACE, Stage};
use crate::{
    domain::{
        ids::ConversationId,
        message::{Position, Sequence},
    },
    mqtt::{
        packet::{Packet, PacketId, QoS, Version},
        replay::Pending,
        session::{Action, Identity, Remembered, Session, tests},
    },
};

const NOTHING: [bool; 0] = [];
const MOMENT: Duration = Duration::from_millis(1);
/// A moment before the end of the grace.
const ALMOST: Duration = Duration::from_millis(7_999);

fn listening() -> Stage {
    let mut stage = Stage::open(Version::V5);
    stage.subscribe("c/#", QoS::AtLeastOnce);
    assert!(stage.actions().is_empty());
    stage
}

impl Stage {
    /// What the session told of suspicion since the last call.
    fn told(&mut self) -> Vec<bool> {
        let told = self.actions().into_iter().map(|action| match action {
            Action::Suspect(is_suspect) => is_suspect,
            other => panic!("{other:?}"),
        });
        told.collect()
    }
}

#[test]
fn a_device_that_lets_the_grace_pass_in_silence_is_suspect_once() {
    let mut stage = listening();
    stage.commit(1);
    assert_eq!(stage.session.poll_timeout(), Some(stage.now + GRACE));
    stage.pass(ALMOST);
    assert_eq!(stage.told(), NOTHING, "not yet");
    stage.pass(MOMENT);
    assert_eq!(stage.told(), [true]);
    assert_eq!(
        stage.session.poll_timeout(),
        None,
        "nothing more to wait for"
    );
    stage.commit(2);
    stage.pass(10 * GRACE);
    assert_eq!(stage.told(), NOTHING, "once");

    stage.take(Packet::PingReq);
    assert_eq!(stage.told(), [false]);
    stage.take(Packet::PingReq);
    assert_eq!(stage.told(), NOTHING, "once");
    // What is in flight was heard of; what comes now is not.
    stage.pass(10 * GRACE);
    assert_eq!(stage.told(), NOTHING);
    stage.commit(3);
    stage.pass(GRACE);
    assert_eq!(stage.told(), [true]);
}

/// Whatever it sends: it lives.
#[test]
fn a_device_that_answers_pings_and_acknowledges_nothing_is_not_suspect() {
    let mut stage = listening();
    for number in 1..=8 {
        stage.commit(number);
        stage.pass(ALMOST);
        stage.take(Packet::PingReq);
    }
    assert_eq!(stage.told(), NOTHING);
    stage.pass(10 * GRACE);
    assert_eq!(
        stage.told(),
        NOTHING,
        "its window is full, and nothing was sent to it"
    );
}

#[test]
fn the_grace_begins_with_the_first_message_after_a_sign_of_life() {
    let mut stage = listening();
    stage.commit(1);
    stage.pass(GRACE / 2);
    stage.commit(2);
    stage.pass(GRACE / 2);
    assert_eq!(stage.told(), [true]);

    let mut stage = listening();
    stage.commit(1);
    stage.pass(GRACE / 2);
    let packet_id = PacketId::MIN;
    stage.take(Packet::PubAck { packet_id });
    stage.commit(2);
    stage.pass(ALMOST);
    assert_eq!(stage.told(), NOTHING);
    stage.pass(MOMENT);
    assert_eq!(stage.told(), [true]);
}

#[test]
fn who_owes_no_acknowledgement_is_not_suspect() {
    let mut stage = listening();
    stage.pass(10 * GRACE);
    assert_eq!((stage.told(), stage.session.poll_timeout()), (vec![], None));

    let mut stage = Stage::open(Version::V5);
    stage.subscribe("c/#", QoS::AtMostOnce);
    stage.commit(1);
    assert_eq!(stage.session.poll_timeout(), None);
    stage.pass(10 * GRACE);
    assert_eq!(stage.told(), NOTHING);
}

#[test]
fn a_part_of_a_packet_is_a_sign_of_life() {
    let mut stage = listening();
    stage.commit(1);
    stage.pass(GRACE / 2);
    stage.session.handle_sign_of_life();
    stage.pass(GRACE);
    assert_eq!(stage.told(), NOTHING);
}

#[test]
fn silence_does_not_count_while_nobody_listens() {
    let mut stage = listening();
    stage.commit(1);
    stage.now += 10 * GRACE;
    stage.session.excuse_silence(stage.now);
    stage.pass(ALMOST);
    assert_eq!(stage.told(), NOTHING);
    stage.pass(MOMENT);
    assert_eq!(stage.told(), [true]);
}

/// What is sent again after a reconnection is owed like anything else.
#[test]
fn a_device_that_comes_back_and_falls_silent_is_suspect() {
    let subscriptions = listening().session.subscriptions().clone();
    let mut stage = Stage::open(Version::V5);
    let conversation = ConversationId(uuid::Uuid::from_u128(1));
    let position = Position {
        conversation,
        sequence: Sequence::FIRST,
    };
    let remembered = Remembered {
        is_present: true,
        subscriptions,
        inflight: vec![(position, Some(PacketId::MIN))],
        pending: vec![Pending {
            conversation,
            cursor: 0,
            head: 1,
        }],
        ..Remembered::default()
    };
    let identity = Identity {
        device: stage.session.device,
        token_expires: None,
    };
    let (connect, limits) = (tests::connect(Version::V5), Arc::new(tests::limits()));
    stage.session = Session::open(&connect, identity, remembered, None, limits, stage.now);
    stage.session.keep_alive = None;
    let Some(Action::Read(page)) = stage.session.poll_action() else {
        panic!("what was missed is read");
    };
    stage.pass(GRACE);
    assert_eq!(stage.told(), NOTHING, "nothing was sent yet");
    let entry = tests::entry(1);
    stage.session.handle_page(page, Some(vec![entry]));
    stage.pass(GRACE);
    assert_eq!(stage.told(), [true]);
}
