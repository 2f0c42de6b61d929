//! SUBSCRIBE, UNSUBSCRIBE and DISCONNECT.

use bytes::BytesMut;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::{CodecError, Header, check_text, kind, malformed, violation};
use crate::mqtt::{
    packet::{Packet, PacketId, QoS, Subscribe, SubscribeRequest, Unsubscribe},
    reason::ReasonCode,
};

pub(super) fn decode_v3(header: Header, mut frame: BytesMut) -> Result<Packet, CodecError> {
    if header.kind() == kind::SUBSCRIBE {
        check_subscribe_bits_v3(frame.get(header.body_at..).unwrap_or_default())?;
    }
    if header.kind() == kind::DISCONNECT && header.remaining_bytes != 0 {
        return Err(malformed("DISCONNECT has a body"));
    }
    let (packet, _) = v3::Codec::new(0)
        .decode(&mut frame)
        .map_err(decode_error)?
        .ok_or(malformed("the packet is cut off"))?;
    match packet {
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => {
            let requests = topic_filters
                .into_iter()
                .map(|(filter, qos)| request(&filter, qos, false))
                .collect::<Result<_, _>>()?;
            Ok(Packet::Subscribe(Subscribe {
                packet_id,
                identifier: None,
                requests,
            }))
        }
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => unsubscribe(packet_id, &topic_filters),
        v3::Packet::Disconnect => Ok(Packet::Disconnect {
            reason: ReasonCode::SUCCESS,
            session_expiry_seconds: None,
        }),
        _ => Err(violation("a client does not send this packet here")),
    }
}

/// [MQTT-3.8.3-4] of 3.1.1: the upper six bits of the requested QoS are reserved.
fn check_subscribe_bits_v3(body: &[u8]) -> Result<(), CodecError> {
    let mut rest = body.get(2..).unwrap_or_default();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match after.get(length) {
            Some(options) if options & 0b1111_1100 == 0 => {}
            _ => return Err(malformed("reserved bits of a subscription are set")),
        }
        rest = after.get(length + 1..).unwrap_or_default();
    }
    Ok(())
}

pub(super) fn decode_v5(mut frame: BytesMut) -> Result<Packet, CodecError> {
    let (packet, _) = v5::Codec::new(0, 0)
        .decode(&mut frame)
        .map_err(decode_error)?
        .ok_or(malformed("the packet is cut off"))?;
    match packet {
        v5::Packet::Subscribe(subscribe) => {
            let requests = subscribe
                .topic_filters
                .into_iter()
                .map(|(filter, options)| request(&filter, options.qos, options.no_local))
                .collect::<Result<_, _>>()?;
            Ok(Packet::Subscribe(Subscribe {
                packet_id: subscribe.packet_id,
                identifier: subscribe.id,
                requests,
            }))
        }
        v5::Packet::Unsubscribe(packet) => unsubscribe(packet.packet_id, &packet.topic_filters),
        // [MQTT 5, 3.14.2.2.5]: only a server sends it.
        v5::Packet::Disconnect(disconnect) if disconnect.server_reference.is_some() => {
            Err(violation("a client sends no server reference"))
        }
        v5::Packet::Disconnect(disconnect) => Ok(Packet::Disconnect {
            reason: ReasonCode(disconnect.reason_code.into()),
            session_expiry_seconds: disconnect.session_expiry_interval_secs,
        }),
        _ => Err(violation("a client does not send this packet here")),
    }
}

fn request(
    filter: &str,
    qos: rmqtt_codec::types::QoS,
    no_local: bool,
) -> Result<SubscribeRequest, CodecError> {
    check_filter(filter)?;
    if no_local && filter.starts_with("$share/") {
        // [MQTT-3.8.3-4]
        return Err(violation("No Local is not for shared subscriptions"));
    }
    let qos = match qos {
        rmqtt_codec::types::QoS::AtMostOnce => QoS::AtMostOnce,
        _ => QoS::AtLeastOnce,
    };
    Ok(SubscribeRequest {
        filter: filter.to_owned(),
        qos,
        no_local,
    })
}

fn unsubscribe<T: AsRef<str>>(packet_id: PacketId, filters: &[T]) -> Result<Packet, CodecError> {
    let filters: Vec<String> = filters
        .iter()
        .map(|filter| filter.as_ref().to_owned())
        .collect();
    filters.iter().try_for_each(|filter| check_filter(filter))?;
    Ok(Packet::Unsubscribe(Unsubscribe { packet_id, filters }))
}

/// [MQTT-4.7.3-1], [MQTT-1.5.4-2]. A filter that is text and none of ours is refused alone.
fn check_filter(filter: &str) -> Result<(), CodecError> {
    if filter.is_empty() {
        return Err(violation("a topic filter has at least one character"));
    }
    check_text(filter)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn decode_error(error: rmqtt_codec::error::DecodeError) -> CodecError {
    match error {
        rmqtt_codec::error::DecodeError::InvalidTopicFilter => {
            violation("a packet with filters has at least one")
        }
        _ => malformed("the packet cannot be read"),
    }
}
