//! Valid packets of every kind, written by another encoder.

use bytes::Bytes;
use mqtt_proto::{Pid, Protocol, QoS as ProtoQoS, QosPid, TopicFilter, TopicName, v3, v5};
use proptest::{collection::vec, option, prelude::*};

use crate::mqtt::packet::Version;

fn bytes_v3(packet: impl Into<v3::Packet>) -> Vec<u8> {
    packet.into().encode().unwrap().as_ref().to_vec()
}

fn bytes_v5(packet: impl Into<v5::Packet>) -> Vec<u8> {
    packet.into().encode().unwrap().as_ref().to_vec()
}

pub(super) fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

fn pids() -> impl Strategy<Value = Pid> {
    (1..=u16::MAX).prop_map(|id| Pid::try_from(id).unwrap())
}

/// Text without NUL and wildcards.
fn texts() -> impl Strategy<Value = String> {
    "[a-z/é$ ]{1,12}"
}

fn filters() -> impl Strategy<Value = (TopicFilter, bool, bool)> {
    (
        "[a-z]{1,5}(/[a-z]{1,4}|/\\+){0,3}(/#)?",
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(text, at_least_once, no_local)| {
            let filter = TopicFilter::try_from(text.as_str()).unwrap();
            (filter, at_least_once, no_local)
        })
}

fn proto_qos(at_least_once: bool) -> ProtoQoS {
    if at_least_once {
        ProtoQoS::Level1
    } else {
        ProtoQoS::Level0
    }
}

fn publishes() -> impl Strategy<Value = (Version, Vec<u8>)> {
    let parts = (versions(), option::of(pids()), any::<bool>(), any::<bool>());
    let content = (texts(), vec(any::<u8>(), 0..200), option::of(1..9_u16));
    (parts, content).prop_map(|((version, pid, dup, retain), (topic, payload, alias))| {
        let topic_name = TopicName::try_from(topic.as_str()).unwrap();
        let qos_pid = pid.map_or(QosPid::Level0, QosPid::Level1);
        let (dup, payload) = (dup && pid.is_some(), Bytes::from(payload));
        let bytes = match version {
            Version::V311 => bytes_v3(v3::Publish {
                dup,
                retain,
                qos_pid,
                topic_name,
                payload,
            }),
            Version::V5 => bytes_v5(v5::Publish {
                dup,
                retain,
                qos_pid,
                topic_name,
                payload,
                properties: v5::PublishProperties {
                    topic_alias: alias,
                    message_expiry_interval: alias.map(u32::from),
                    payload_is_utf8: alias.map(|_| false),
                    content_type: alias.map(|_| "text".into()),
                    correlation_data: alias.map(|_| Bytes::from_static(b"x\xff")),
                    response_topic: alias.map(|_| TopicName::try_from("me/é").unwrap()),
                    ..v5::PublishProperties::default()
                },
            }),
        };
        (version, bytes)
    })
}

fn subscribes() -> impl Strategy<Value = (Version, Vec<u8>)> {
    (
        versions(),
        pids(),
        vec(filters(), 1..4),
        option::of(1..300_000_u32),
    )
        .prop_map(|(version, pid, filters, id)| {
            let bytes = match version {
                Version::V311 => {
                    let topics = filters
                        .into_iter()
                        .map(|(filter, qos, _)| (filter, proto_qos(qos)));
                    bytes_v3(v3::Subscribe::new(pid, topics.collect()))
                }
                Version::V5 => {
                    let topics = filters.into_iter().map(|(filter, qos, no_local)| {
                        let mut options = v5::SubscriptionOptions::new(proto_qos(qos));
                        options.no_local = no_local;
                        (filter, options)
                    });
                    let mut packet = v5::Subscribe::new(pid, topics.collect());
                    packet.properties.subscription_id = id.map(|id| id.try_into().unwrap());
                    bytes_v5(packet)
                }
            };
            (version, bytes)
        })
}

fn others() -> impl Strategy<Value = (Version, Vec<u8>)> {
    (versions(), 0..4_u8, pids(), vec(filters(), 1..4)).prop_map(|(version, kind, pid, filters)| {
        let topics = filters.into_iter().map(|(filter, ..)| filter).collect();
        let bytes = match (version, kind) {
            (Version::V311, 0) => bytes_v3(v3::Packet::Puback(pid)),
            (Version::V311, 1) => bytes_v3(v3::Unsubscribe::new(pid, topics)),
            (Version::V311, 2) => bytes_v3(v3::Packet::Pingreq),
            (Version::V311, _) => bytes_v3(v3::Packet::Disconnect),
            (Version::V5, 0) => bytes_v5(v5::Puback::new(pid, v5::PubackReasonCode::Success)),
            (Version::V5, 1) => bytes_v5(v5::Unsubscribe::new(pid, topics)),
            (Version::V5, 2) => bytes_v5(v5::Packet::Pingreq),
            (Version::V5, _) => bytes_v5(v5::Disconnect::new_normal()),
        };
        (version, bytes)
    })
}

pub(super) fn packets() -> impl Strategy<Value = (Version, Vec<u8>)> {
    prop_oneof![publishes(), subscribes(), others()]
}

pub(super) fn connects() -> impl Strategy<Value = (Version, Vec<u8>)> {
    let names = (versions(), texts(), option::of(texts()), any::<bool>());
    let numbers = (
        any::<u16>(),
        option::of(1..u16::MAX),
        option::of(1..u32::MAX),
    );
    (names, numbers, any::<bool>()).prop_map(
        |((version, id, user, clean), (keep_alive, receive_max, size), has_will)| {
            let client_id = id.as_str().into();
            let password = user.as_ref().map(|_| Bytes::from_static(b"token"));
            let username = user.map(|name| name.as_str().into());
            let topic_name = TopicName::try_from("will").unwrap();
            let message = Bytes::from_static(b"gone");
            let bytes = match version {
                Version::V311 => bytes_v3(v3::Connect {
                    protocol: Protocol::V311,
                    clean_session: clean,
                    keep_alive,
                    client_id,
                    last_will: has_will
                        .then(|| v3::LastWill::new(ProtoQoS::Level1, topic_name, message)),
                    username,
                    password,
                }),
                Version::V5 => bytes_v5(v5::Connect {
                    clean_start: clean,
                    username,
                    password,
                    last_will: has_will
                        .then(|| v5::LastWill::new(ProtoQoS::Level1, topic_name, message)),
                    properties: v5::ConnectProperties {
                        receive_max,
                        max_packet_size: size,
                        session_expiry_interval: size,
                        topic_alias_max: receive_max,
                        request_problem_info: receive_max.map(|max| max > 9),
                        ..v5::ConnectProperties::default()
                    },
                    ..v5::Connect::new(client_id, keep_alive)
                }),
            };
            (version, bytes)
        },
    )
}
