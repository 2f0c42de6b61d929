//! Packets to bytes.
//!
//! Deliveries and acknowledgements are written straight into the output of a session: the
//! payload was encoded once for all receivers, what differs is a header of some 40 bytes.
//! The rare packets are written by `rmqtt-codec`.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, BytesMut};
use rmqtt_codec::{types::QoS as CodecQoS, v5};
use tokio_util::codec::Encoder as _;

use super::{
    packet::{PacketId, QoS, Version},
    reason::ReasonCode,
};
use crate::domain::format::{FORMAT_PROPERTY, WireFormat};

/// What the server grants at CONNECT, in the terms of MQTT 5, section 3.2.2.3.
#[derive(Clone, Debug)]
pub struct ConnAck {
    pub is_session_present: bool,
    pub session_expiry_seconds: Option<u32>,
    pub receive_max: NonZeroU16,
    pub packet_bytes_max: u32,
    pub assigned_client_id: Option<String>,
    pub topic_alias_max: u16,
    pub server_keep_alive_seconds: Option<u16>,
    /// Told if the client asked for it.
    pub format: Option<WireFormat>,
}

/// A PUBLISH to a device.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Empty if `topic_alias` is known to the client already.
    pub topic: &'a str,
    pub topic_alias: Option<u16>,
    /// Present with QoS 1.
    pub packet_id: Option<PacketId>,
    /// Set when the packet was sent before. [MQTT-3.3.1-1]
    pub is_repeated: bool,
    pub subscription_ids: &'a [NonZeroU32],
    /// Present if the packet answers a request that had some. [MQTT 5, 4.10]
    pub correlation_data: Option<&'a [u8]>,
    pub payload: &'a [u8],
}

impl Delivery<'_> {
    /// The size of the whole packet, in bytes.
    #[must_use]
    pub fn packet_bytes(&self, version: Version) -> usize {
        let remaining = self.remaining_bytes(version);
        1 + variable_length_bytes(remaining) + remaining
    }

    fn remaining_bytes(&self, version: Version) -> usize {
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => {
                let length = self.property_bytes();
                variable_length_bytes(length) + length
            }
        };
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    fn property_bytes(&self) -> usize {
        let identifiers = self
            .subscription_ids
            .iter()
            .map(|identifier| 1 + variable_length_bytes(identifier.get() as usize));
        let correlation = self.correlation_data.map_or(0, |data| 3 + data.len());
        identifiers.sum::<usize>() + correlation + if self.topic_alias.is_some() { 3 } else { 0 }
    }

    /// Writes the packet.
    pub fn write(&self, version: Version, out: &mut BytesMut) {
        let qos = u8::from(self.packet_id.is_some());
        let dup = u8::from(self.is_repeated && self.packet_id.is_some());
        out.reserve(self.packet_bytes(version));
        out.put_u8(0x30 | dup << 3 | qos << 1);
        put_variable_length(out, self.remaining_bytes(version));
        put_text(out, self.topic);
        if let Some(packet_id) = self.packet_id {
            out.put_u16(packet_id.get());
        }
        if version == Version::V5 {
            put_variable_length(out, self.property_bytes());
            if let Some(alias) = self.topic_alias {
                out.put_u8(0x23);
                out.put_u16(alias);
            }
            if let Some(data) = self.correlation_data {
                out.put_u8(0x09);
                put_binary(out, data);
            }
            for identifier in self.subscription_ids {
                out.put_u8(0x0b);
                put_variable_length(out, identifier.get() as usize);
            }
        }
        out.put_slice(self.payload);
    }
}

/// Writes the acknowledgement of a publish. `detail` goes to MQTT 5 clients that want
/// problem information: the sequence, or why it was refused.
pub fn write_puback(
    version: Version,
    packet_id: PacketId,
    reason: ReasonCode,
    detail: &[(PubAckDetail, &str)],
    out: &mut BytesMut,
) {
    if version == Version::V311 || (reason == ReasonCode::SUCCESS && detail.is_empty()) {
        out.put_slice(&[0x40, 2]);
        out.put_u16(packet_id.get());
        return;
    }
    let properties: usize = detail
        .iter()
        .map(|(kind, text)| kind.bytes() + text.len())
        .sum();
    out.put_u8(0x40);
    put_variable_length(out, 3 + variable_length_bytes(properties) + properties);
    out.put_u16(packet_id.get());
    out.put_u8(reason.0);
    put_variable_length(out, properties);
    for (kind, text) in detail {
        kind.write(text, out);
    }
}

/// A property of a PUBACK. [MQTT 5, 3.4.2.2]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PubAckDetail {
    /// The user property `seq`: the sequence of the stored message.
    Sequence,
    /// The user property `retry-after`: seconds.
    RetryAfter,
    /// The reason string.
    Reason,
}

impl PubAckDetail {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Sequence => Some("seq"),
            Self::RetryAfter => Some("retry-after"),
            Self::Reason => None,
        }
    }

    fn bytes(self) -> usize {
        3 + self.name().map_or(0, |name| 2 + name.len())
    }

    fn write(self, text: &str, out: &mut BytesMut) {
        if let Some(name) = self.name() {
            out.put_u8(0x26);
            put_text(out, name);
        } else {
            out.put_u8(0x1f);
        }
        put_text(out, text);
    }
}

/// Writes the answer to a CONNECT that is accepted.
pub fn write_connack(version: Version, connack: &ConnAck, out: &mut BytesMut) {
    if version == Version::V311 {
        out.put_slice(&[0x20, 2, u8::from(connack.is_session_present), 0]);
        return;
    }
    let format = connack.format.iter();
    let user_properties = format.map(|format| (FORMAT_PROPERTY.into(), format.as_str().into()));
    let packet = v5::ConnectAck {
        session_present: connack.is_session_present,
        session_expiry_interval_secs: connack.session_expiry_seconds,
        receive_max: connack.receive_max,
        max_qos: CodecQoS::AtLeastOnce,
        max_packet_size: Some(connack.packet_bytes_max),
        assigned_client_id: connack.assigned_client_id.clone().map(Into::into),
        topic_alias_max: connack.topic_alias_max,
        retain_available: false,
        shared_subscription_available: false,
        server_keepalive_sec: connack.server_keep_alive_seconds,
        user_properties: user_properties.collect(),
        ..v5::ConnectAck::default()
    };
    encode_v5(v5::Packet::ConnectAck(Box::new(packet)), out);
}

/// Writes the answer to a CONNECT that is refused. [MQTT-3.2.2-6]: no session is present.
pub fn write_connack_refusal(version: Version, code: ReasonCode, why: &str, out: &mut BytesMut) {
    if version == Version::V311 {
        out.put_slice(&[0x20, 2, 0, code.connack_v3()]);
        return;
    }
    // Written by hand: a refusal needs its reason and nothing else.
    let why = shortened(why);
    let properties = 3 + why.len();
    out.put_u8(0x20);
    put_variable_length(out, 2 + variable_length_bytes(properties) + properties);
    out.put_slice(&[0, code.0]);
    put_variable_length(out, properties);
    out.put_u8(0x1f);
    put_text(out, why);
}

/// Writes the answer to a SUBSCRIBE: one code for each filter, in order. [MQTT-3.9.3-1]
pub fn write_suback(
    version: Version,
    packet_id: PacketId,
    codes: &[Result<QoS, ReasonCode>],
    out: &mut BytesMut,
) {
    let codes = codes.iter().map(|code| match (code, version) {
        (Ok(qos), _) => *qos as u8,
        (Err(_), Version::V311) => 0x80,
        (Err(reason), Version::V5) => reason.0,
    });
    write_codes(0x90, version, packet_id, codes, out);
}

/// Writes the answer to an UNSUBSCRIBE.
pub fn write_unsuback(
    version: Version,
    packet_id: PacketId,
    codes: &[ReasonCode],
    out: &mut BytesMut,
) {
    let codes: &[ReasonCode] = if version == Version::V311 { &[] } else { codes };
    write_codes(
        0xb0,
        version,
        packet_id,
        codes.iter().map(|code| code.0),
        out,
    );
}

fn write_codes(
    first_byte: u8,
    version: Version,
    packet_id: PacketId,
    codes: impl ExactSizeIterator<Item = u8>,
    out: &mut BytesMut,
) {
    let properties = usize::from(version == Version::V5);
    out.put_u8(first_byte);
    put_variable_length(out, 2 + properties + codes.len());
    out.put_u16(packet_id.get());
    out.put_bytes(0, properties);
    out.extend(codes);
}

/// Writes the answer to a PINGREQ.
pub fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// Tells an MQTT 5 client why the connection ends. MQTT 3.1.1 has no such packet.
pub fn write_disconnect(version: Version, reason: ReasonCode, why: &str, out: &mut BytesMut) {
    if version == Version::V311 {
        return;
    }
    let why = shortened(why);
    let properties = if why.is_empty() { 0 } else { 3 + why.len() };
    out.put_u8(0xe0);
    put_variable_length(out, 1 + variable_length_bytes(properties) + properties);
    out.put_u8(reason.0);
    put_variable_length(out, properties);
    if !why.is_empty() {
        out.put_u8(0x1f);
        put_text(out, why);
    }
}

fn encode_v5(packet: v5::Packet, out: &mut BytesMut) {
    v5::Codec::new(0, 0)
        .encode(packet, out)
        .expect("packets of the server are within the limits of the encoding");
}

/// Reason strings are for people; a long one helps nobody.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(500);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_binary(out, text.as_bytes());
}

fn put_binary(out: &mut BytesMut, data: &[u8]) {
    let length = u16::try_from(data.len());
    out.put_u16(length.expect("topics and reasons are short, and correlation data came so"));
    out.put_slice(data);
}

fn variable_length_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// [MQTT 5, 1.5.5]
fn put_variable_length(out: &mut BytesMut, mut value: usize) {
    loop {
        let byte = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::v3;

    use super::*;

    fn packet_id() -> PacketId {
        PacketId::new(0x0102).unwrap()
    }

    /// Goal: what we write is what a decoder nobody here wrote reads.
    #[test]
    fn a_delivery_is_read_back_by_another_decoder() {
        let payload = [7; 300];
        let ids = [NonZeroU32::new(200).unwrap()];
        for version in [Version::V311, Version::V5] {
            let delivery = Delivery {
                topic: "c/x/messages",
                topic_alias: (version == Version::V5).then_some(3),
                packet_id: Some(packet_id()),
                is_repeated: true,
                subscription_ids: if version == Version::V5 { &ids } else { &[] },
                correlation_data: Some(b"\xff\0"),
                payload: &payload,
            };
            let mut out = BytesMut::new();
            delivery.write(version, &mut out);
            assert_eq!(out.len(), delivery.packet_bytes(version));
            assert_read_back(version, &mut out, &payload);
            assert!(out.is_empty());
        }
    }

    fn assert_read_back(version: Version, out: &mut BytesMut, payload: &[u8]) {
        use tokio_util::codec::Decoder as _;
        let publish = match version {
            Version::V311 => match v3::Codec::new(0).decode(out).unwrap().unwrap().0 {
                v3::Packet::Publish(publish) => publish,
                other => panic!("{other:?}"),
            },
            Version::V5 => match v5::Codec::new(0, 0).decode(out).unwrap().unwrap().0 {
                v5::Packet::Publish(publish) => publish,
                other => panic!("{other:?}"),
            },
        };
        assert_eq!((publish.dup, publish.packet_id), (true, Some(packet_id())));
        assert_eq!(publish.topic.to_string(), "c/x/messages");
        assert_eq!(publish.payload, payload);
        if let Some(properties) = publish.properties {
            assert_eq!(properties.topic_alias.map(NonZeroU16::get), Some(3));
            assert_eq!(properties.subscription_ids.len(), 1);
            assert_eq!(properties.correlation_data.as_deref(), Some(&b"\xff\0"[..]));
        }
    }

    #[test]
    fn acknowledgements_are_read_back_by_another_decoder() {
        use tokio_util::codec::Decoder as _;
        let mut out = BytesMut::new();
        write_puback(
            Version::V5,
            packet_id(),
            ReasonCode::SUCCESS,
            &[(PubAckDetail::Sequence, "42")],
            &mut out,
        );
        write_puback(
            Version::V5,
            packet_id(),
            ReasonCode::NOT_AUTHORIZED,
            &[(PubAckDetail::Reason, "no")],
            &mut out,
        );
        write_suback(
            Version::V5,
            packet_id(),
            &[Ok(QoS::AtLeastOnce), Err(ReasonCode::NOT_AUTHORIZED)],
            &mut out,
        );
        write_unsuback(Version::V5, packet_id(), &[ReasonCode::SUCCESS], &mut out);
        write_disconnect(
            Version::V5,
            ReasonCode::SESSION_TAKEN_OVER,
            "elsewhere",
            &mut out,
        );
        write_connack_refusal(
            Version::V5,
            ReasonCode::NOT_AUTHORIZED,
            "the token is expired",
            &mut out,
        );
        let mut names = Vec::new();
        let mut codec = v5::Codec::new(0, 0);
        while let Some((packet, _)) = codec.decode(&mut out).unwrap() {
            names.push(match packet {
                v5::Packet::PublishAck(ack) => {
                    format!("{:?} {:?}", ack.reason_code, ack.properties)
                }
                v5::Packet::SubscribeAck(ack) => format!("{:?}", ack.status),
                v5::Packet::UnsubscribeAck(ack) => format!("{:?}", ack.status),
                v5::Packet::Disconnect(packet) => format!("{:?}", packet.reason_code),
                v5::Packet::ConnectAck(ack) => format!("{:?}", ack.reason_string),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(names[0], "Success [(\"seq\", \"42\")]");
        assert!(names[1].starts_with("NotAuthorized"));
        assert_eq!(names[2], "[GrantedQos1, NotAuthorized]");
        assert_eq!(names[4], "SessionTakenOver");
        assert_eq!(names[5], "Some(\"the token is expired\")");
    }
}
