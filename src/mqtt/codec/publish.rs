//! PUBLISH and PUBACK: nearly every packet is one of them.

use bytes::{Buf as _, Bytes};

use super::{
    CUT_OFF, CodecError, error, malformed, read_binary, read_packet_id, read_text, take_properties,
    violation,
};
use crate::mqtt::{
    packet::{Packet, Publish, ReplyTo, Version},
    reason::ReasonCode,
};

pub(super) fn decode(version: Version, flags: u8, mut body: Bytes) -> Result<Packet, CodecError> {
    let packet_id = match (flags >> 1) & 0b11 {
        // [MQTT-3.3.1-2]
        0 if flags & 0b1000 != 0 => return Err(malformed("DUP is set with QoS 0")),
        0 => None,
        1 => Some(()),
        2 => {
            return Err(error(
                ReasonCode::QOS_NOT_SUPPORTED,
                "QoS 2 is not supported; use QoS 1",
            ));
        }
        // [MQTT-3.3.1-4]
        _ => return Err(malformed("QoS 3 does not exist")),
    };
    let topic = read_text(&mut body)?;
    let packet_id = packet_id.map(|()| read_packet_id(&mut body)).transpose()?;
    let Properties {
        topic_alias,
        is_text,
        reply_to,
    } = match version {
        Version::V311 => Properties::default(),
        Version::V5 => read_properties(&mut body)?,
    };
    if topic.contains(['+', '#']) {
        // [MQTT-3.3.2-2]
        return Err(error(
            ReasonCode::TOPIC_NAME_INVALID,
            "a topic name has no wildcards",
        ));
    }
    if topic.is_empty() && topic_alias.is_none() {
        // [MQTT-4.7.3-1]
        return Err(violation("a topic name has at least one character"));
    }
    Ok(Packet::Publish(Publish {
        packet_id,
        topic,
        topic_alias,
        payload: body,
        is_text,
        is_retained: flags & 1 != 0,
        reply_to,
    }))
}

/// The properties of a PUBLISH that mean something here.
#[derive(Default)]
struct Properties {
    topic_alias: Option<u16>,
    is_text: bool,
    reply_to: Option<Box<ReplyTo>>,
}

/// Reads the properties of a PUBLISH. [MQTT 5, 3.3.2.3]
fn read_properties(body: &mut Bytes) -> Result<Properties, CodecError> {
    let mut properties = take_properties(body)?;
    let (mut seen, mut read) = (0_u64, Properties::default());
    while let Ok(property) = properties.try_get_u8() {
        let is_repeated = property != 0x26 && property < 64 && seen & (1 << property) != 0;
        if is_repeated {
            return Err(violation("a property appears twice"));
        }
        seen |= 1_u64.checked_shl(u32::from(property)).unwrap_or(0);
        match property {
            0x01 => {
                let format = properties.try_get_u8().map_err(|_| CUT_OFF)?;
                if format > 1 {
                    return Err(violation("the payload format indicator is 0 or 1"));
                }
                read.is_text |= format == 1;
            }
            0x02 => {
                properties.try_get_u32().map_err(|_| CUT_OFF)?;
            }
            0x03 => {
                let content_type = read_text(&mut properties)?;
                read.is_text |= content_type == "application/json";
            }
            0x08 => {
                let topic = read_text(&mut properties)?;
                if topic.contains(['+', '#']) {
                    // [MQTT-3.3.2-14]
                    return Err(violation("a response topic has no wildcards"));
                }
                read.reply_to.get_or_insert_default().topic = Some(topic);
            }
            0x09 => {
                let data = read_binary(&mut properties)?;
                read.reply_to.get_or_insert_default().correlation_data = Some(data);
            }
            0x23 => {
                let alias = properties.try_get_u16().map_err(|_| CUT_OFF)?;
                read.topic_alias = Some(alias);
            }
            0x26 => {
                read_text(&mut properties)?;
                read_text(&mut properties)?;
            }
            // [MQTT-3.3.4-6]
            0x0b => {
                return Err(violation(
                    "a client sends no subscription identifier in PUBLISH",
                ));
            }
            _ => return Err(malformed("PUBLISH has no such property")),
        }
    }
    Ok(read)
}

pub(super) fn decode_puback(version: Version, mut body: Bytes) -> Result<Packet, CodecError> {
    let packet_id = read_packet_id(&mut body)?;
    if version == Version::V5 && body.has_remaining() {
        // [MQTT-3.4.2-1]; whatever it is, the client has the message.
        let reason = body.try_get_u8().map_err(|_| CUT_OFF)?;
        if !matches!(
            reason,
            0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
        ) {
            return Err(malformed("PUBACK has no such reason code"));
        }
        if body.has_remaining() {
            check_puback_properties(take_properties(&mut body)?)?;
        }
    }
    if body.has_remaining() {
        return Err(malformed("PUBACK is too long"));
    }
    Ok(Packet::PubAck { packet_id })
}

/// [MQTT 5, 3.4.2.2]
fn check_puback_properties(mut properties: Bytes) -> Result<(), CodecError> {
    let mut has_reason = false;
    while let Ok(property) = properties.try_get_u8() {
        match property {
            0x1f if has_reason => return Err(violation("a property appears twice")),
            0x1f => {
                has_reason = true;
                read_text(&mut properties)?;
            }
            0x26 => {
                read_text(&mut properties)?;
                read_text(&mut properties)?;
            }
            _ => return Err(malformed("PUBACK has no such property")),
        }
    }
    Ok(())
}
