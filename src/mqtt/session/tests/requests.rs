//! Requests and their answers.

use std::num::NonZeroU32;

use bytes::Bytes;
use rmqtt_codec::v5;
use serde_json::{Value, json, value::to_raw_value};

use super::{Stage, connect};
use crate::{
    domain::request::Answer,
    mqtt::{
        packet::{Packet, PacketId, Publish, QoS, ReplyTo, Version},
        session::{Action, Ask},
    },
};

fn publish(number: u16, topic: &str, payload: &'static str, reply_to: Option<ReplyTo>) -> Packet {
    Packet::Publish(Publish {
        packet_id: PacketId::new(number),
        topic: topic.to_owned(),
        topic_alias: None,
        payload: Bytes::from_static(payload.as_bytes()),
        is_retained: false,
        is_text: false,
        reply_to: reply_to.map(Box::new),
    })
}

fn reply_to(topic: &str) -> ReplyTo {
    ReplyTo {
        topic: Some(topic.to_owned()),
        correlation_data: Some(Bytes::from_static(b"\xff\x00")),
    }
}

fn answer(body: &Value) -> Answer {
    Answer::ok(to_raw_value(body).unwrap())
}

impl Stage {
    fn asked(&mut self) -> Box<Ask> {
        match &mut self.actions()[..] {
            [Action::Request(ask)] => ask.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn refusals(packets: &[v5::Packet]) -> Vec<u8> {
    let codes = packets.iter().map(|packet| match packet {
        v5::Packet::PublishAck(ack) => u8::from(ack.reason_code),
        other => panic!("{other:?}"),
    });
    codes.collect()
}

#[test]
fn an_answer_goes_where_it_is_wanted_and_the_puback_follows() {
    for (topic, reply_to) in [
        ("me/device", None),
        ("me/answers/7", Some(reply_to("me/answers/7"))),
    ] {
        let mut stage = Stage::open(Version::V5);
        stage.subscribe("me/#", QoS::AtLeastOnce);
        let data = reply_to.clone().and_then(|to| to.correlation_data);
        stage.take(publish(
            3,
            "q/a/b",
            r#"{"x":1,"correlation":"c"}"#,
            reply_to,
        ));
        let ask = stage.asked();
        assert_eq!(&*ask.request.operation, "a/b");
        assert_eq!(Value::from(ask.request.arguments.clone()), json!({"x": 1}));
        assert!(stage.packets().is_empty(), "not before it is done");

        stage.session.handle_answer(&ask, &answer(&json!({"y": 2})));
        let [v5::Packet::Publish(publish), v5::Packet::PublishAck(ack)] = &stage.packets()[..]
        else {
            panic!("an answer and a PUBACK");
        };
        assert_eq!(
            (publish.topic.to_string().as_str(), publish.packet_id),
            (topic, None)
        );
        let properties = publish.properties.clone().unwrap_or_default();
        assert_eq!(properties.correlation_data, data);
        let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
        let expected = json!({
            "event": "answer", "operation": "a/b", "correlation": "c", "status": 200,
            "body": {"y": 2},
        });
        assert_eq!(payload, expected);
        assert_eq!((ack.packet_id.get(), u8::from(ack.reason_code)), (3, 0));
    }
}

#[test]
fn a_response_topic_is_one_that_the_device_listens_to() {
    let mut stage = Stage::open(Version::V5);
    stage.subscribe("me/device", QoS::AtLeastOnce);
    let topics = ["c/x/send", "q/a", "me", "", "me/answers", "me/device"];
    for (number, topic) in (1..).zip(topics) {
        stage.take(publish(number, "q/a", "", Some(reply_to(topic))));
    }
    let ask = stage.asked();
    assert_eq!(refusals(&stage.packets()), [0x90, 0x90, 0x90, 0x90, 0x87]);
    // Who unsubscribes meanwhile gets no answer, only the PUBACK.
    stage.session.subscriptions.remove("me/device");
    stage.session.handle_answer(&ask, &answer(&json!(1)));
    assert_eq!(refusals(&stage.packets()), [0]);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let mut stage = Stage::open(Version::V5);
    for (number, payload) in (1..).zip(["x", "[]", r#"{"correlation":{}}"#]) {
        stage.take(publish(number, "q/a", payload, None));
    }
    assert!(stage.actions().is_empty());
    assert_eq!(refusals(&stage.packets()), [0x99; 3]);
}

/// Goal: a device cannot pile up work: the ninth request is not even read.
#[test]
fn with_eight_requests_without_an_answer_nothing_is_read() {
    let mut stage = Stage::open(Version::V5);
    for number in 1..=8 {
        assert!(stage.session.can_read(stage.now));
        stage.take(publish(number, "q/a", "", None));
    }
    assert!(!stage.session.can_read(stage.now));
    let actions = stage.actions();
    let [Action::Request(first), ..] = &actions[..] else {
        panic!("{actions:?}");
    };
    stage.session.handle_answer(first, &Answer::done());
    assert!(stage.session.can_read(stage.now));
    // Those that cannot be read take no room.
    for number in 9..=12 {
        stage.take(publish(number, "q/a", "x", None));
    }
    assert!(stage.session.can_read(stage.now));
}

#[test]
fn an_answer_that_the_device_cannot_take_is_told_so() {
    let mut connect = connect(Version::V5);
    connect.packet_bytes_max = NonZeroU32::new(400);
    let now = Stage::open(Version::V5).now;
    let mut stage = Stage::open_with(&connect, now);
    stage.subscribe("me/#", QoS::AtLeastOnce);
    stage.take(publish(1, "q/a", r#"{"correlation":7}"#, None));
    let ask = stage.asked();
    let body = json!("x".repeat(400));
    stage.session.handle_answer(&ask, &answer(&body));
    let packets = stage.packets();
    let [v5::Packet::Publish(publish), v5::Packet::PublishAck(_)] = &packets[..] else {
        panic!("{packets:?}");
    };
    let payload: Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(
        (&payload["status"], &payload["correlation"]),
        (&json!(413), &json!(7))
    );
    assert_eq!(stage.session.take_events_dropped(), 0);
}
