//! Whether two decoders have read the same.

use std::num::NonZeroU32;

use mqtt_proto::{QoS as ProtoQoS, QosPid, v3, v5};

use crate::mqtt::packet::{Packet, PacketId, Publish, QoS, Version};

/// What we read is what the other decoder reads.
pub(super) fn assert_same(version: Version, bytes: &[u8], packet: &Packet) {
    match version {
        Version::V311 => same_v3(&v3::Packet::decode(bytes).unwrap().unwrap(), packet),
        Version::V5 => same_v5(&v5::Packet::decode(bytes).unwrap().unwrap(), packet),
    }
}

fn pid_of(qos_pid: QosPid) -> Option<u16> {
    match qos_pid {
        QosPid::Level1(pid) => Some(pid.value()),
        _ => None,
    }
}

fn same_v3(theirs: &v3::Packet, ours: &Packet) {
    match (theirs, ours) {
        (v3::Packet::Publish(theirs), Packet::Publish(ours)) => {
            let Publish {
                topic, packet_id, ..
            } = ours;
            assert_eq!(theirs.topic_name.to_string(), *topic);
            assert_eq!(pid_of(theirs.qos_pid), packet_id.map(PacketId::get));
            assert_eq!(
                (&theirs.payload, theirs.retain),
                (&ours.payload, ours.is_retained)
            );
        }
        (v3::Packet::Puback(pid), Packet::PubAck { packet_id }) => {
            assert_eq!(pid.value(), packet_id.get());
        }
        (v3::Packet::Subscribe(theirs), Packet::Subscribe(ours)) => {
            assert_eq!(theirs.pid.value(), ours.packet_id.get());
            let wanted = theirs
                .topics
                .iter()
                .map(|(filter, qos)| (filter.to_string(), *qos as u8));
            let read = ours
                .requests
                .iter()
                .map(|one| (one.filter.clone(), one.qos as u8));
            assert!(wanted.eq(read));
        }
        (v3::Packet::Unsubscribe(theirs), Packet::Unsubscribe(ours)) => {
            let wanted = theirs.topics.iter().map(ToString::to_string);
            assert!(wanted.eq(ours.filters.iter().cloned()));
        }
        (v3::Packet::Connect(theirs), Packet::Connect(ours)) => {
            assert_eq!(
                (&*theirs.client_id, theirs.clean_session),
                (&*ours.client_id, ours.clean_start)
            );
            assert_eq!(theirs.username.as_deref(), ours.user_name.as_deref());
            assert_eq!(
                (&theirs.password, theirs.keep_alive),
                (&ours.password, ours.keep_alive_seconds)
            );
            assert_eq!(theirs.last_will.is_some(), ours.has_will);
        }
        (v3::Packet::Pingreq, Packet::PingReq)
        | (v3::Packet::Disconnect, Packet::Disconnect { .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn same_v5(theirs: &v5::Packet, ours: &Packet) {
    match (theirs, ours) {
        (v5::Packet::Publish(theirs), Packet::Publish(ours)) => {
            assert_eq!(theirs.topic_name.to_string(), ours.topic);
            assert_eq!(pid_of(theirs.qos_pid), ours.packet_id.map(PacketId::get));
            assert_eq!(theirs.properties.topic_alias, ours.topic_alias);
            let reply_to = ours.reply_to.clone().unwrap_or_default();
            let topic = theirs.properties.response_topic.as_ref();
            assert_eq!(topic.map(ToString::to_string), reply_to.topic);
            let data = &theirs.properties.correlation_data;
            assert_eq!(*data, reply_to.correlation_data);
            assert_eq!(
                (&theirs.payload, theirs.retain),
                (&ours.payload, ours.is_retained)
            );
        }
        (v5::Packet::Puback(theirs), Packet::PubAck { packet_id }) => {
            assert_eq!(theirs.pid.value(), packet_id.get());
        }
        (v5::Packet::Subscribe(theirs), Packet::Subscribe(ours)) => {
            let id = theirs.properties.subscription_id.map(v5::VarByteInt::value);
            assert_eq!(id, ours.identifier.map(NonZeroU32::get));
            let wanted = theirs.topics.iter();
            let wanted = wanted.map(|(filter, options)| {
                let qos = options.max_qos != ProtoQoS::Level0;
                (filter.to_string(), qos, options.no_local)
            });
            let read = ours.requests.iter();
            let read = read.map(|one| {
                (
                    one.filter.clone(),
                    one.qos == QoS::AtLeastOnce,
                    one.no_local,
                )
            });
            assert!(wanted.eq(read));
        }
        (v5::Packet::Unsubscribe(theirs), Packet::Unsubscribe(ours)) => {
            let wanted = theirs.topics.iter().map(ToString::to_string);
            assert!(wanted.eq(ours.filters.iter().cloned()));
        }
        (v5::Packet::Connect(theirs), Packet::Connect(ours)) => {
            assert_eq!(
                (&*theirs.client_id, theirs.clean_start),
                (&*ours.client_id, ours.clean_start)
            );
            assert_eq!(theirs.username.as_deref(), ours.user_name.as_deref());
            assert_eq!(
                (&theirs.password, theirs.keep_alive),
                (&ours.password, ours.keep_alive_seconds)
            );
            assert_eq!(theirs.last_will.is_some(), ours.has_will);
            let properties = &theirs.properties;
            assert_eq!(
                properties.receive_max.unwrap_or(u16::MAX),
                ours.receive_max.get()
            );
            assert_eq!(
                properties.max_packet_size,
                ours.packet_bytes_max.map(NonZeroU32::get)
            );
            assert_eq!(
                properties.topic_alias_max.unwrap_or(0),
                ours.topic_alias_max
            );
            assert_eq!(
                properties.session_expiry_interval.unwrap_or(0),
                ours.session_expiry_seconds
            );
            let wants = properties.request_problem_info.unwrap_or(true);
            assert_eq!(wants, ours.wants_problem_information);
        }
        (v5::Packet::Pingreq, Packet::PingReq)
        | (v5::Packet::Disconnect(_), Packet::Disconnect { .. }) => {}
        other => panic!("{other:?}"),
    }
}
