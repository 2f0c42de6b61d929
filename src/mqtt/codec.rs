//! Bytes to packets.
//!
//! Framing, PUBLISH and PUBACK are read here, since nearly every packet is one of them, and
//! CONNECT by its own module; the rare packets are read by `rmqtt-codec`. What that crate lets through and the
//! standard forbids is checked here too. A broken peer gets a reason code, never a panic.

use bytes::{Buf, Bytes, BytesMut};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::{
    connect,
    packet::{
        Connect, Packet, PacketId, Publish, QoS, Subscribe, SubscribeRequest, Unsubscribe, Version,
    },
    reason::ReasonCode,
};

/// Types of control packets: the upper half of the first byte. [MQTT 5, 2.1.2]
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const DISCONNECT: u8 = 14;
}

/// Why bytes are no packet, and what to tell the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct CodecError {
    pub code: ReasonCode,
    pub what: &'static str,
}

pub(super) const fn error(code: ReasonCode, what: &'static str) -> CodecError {
    CodecError { code, what }
}

pub(super) const fn malformed(what: &'static str) -> CodecError {
    error(ReasonCode::MALFORMED_PACKET, what)
}

pub(super) const fn violation(what: &'static str) -> CodecError {
    error(ReasonCode::PROTOCOL_ERROR, what)
}

/// Reads the packets of one connection.
#[derive(Debug)]
pub struct Decoder {
    /// Known after the CONNECT.
    version: Option<Version>,
    packet_bytes_max: u32,
}

impl Decoder {
    /// For a connection that has not sent its CONNECT yet.
    #[must_use]
    pub fn new(packet_bytes_max: u32) -> Self {
        Self {
            version: None,
            packet_bytes_max,
        }
    }

    /// Takes larger packets from somebody who has shown a token.
    pub fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// What the peer speaks, as far as its CONNECT could be read.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Takes the next packet out of `buffer`, if it is complete.
    ///
    /// # Errors
    ///
    /// [`CodecError`]: the connection cannot go on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, CodecError> {
        let Some(header) = Header::read(buffer)? else {
            return Ok(None);
        };
        self.check(header)?;
        if buffer.len() < header.packet_bytes() {
            return Ok(None);
        }
        let frame = buffer.split_to(header.packet_bytes());
        match self.version {
            None => self
                .connect(header, frame)
                .map(|connect| Some(Packet::Connect(Box::new(connect)))),
            Some(version) => decode_packet(version, header, frame).map(Some),
        }
    }

    fn check(&self, header: Header) -> Result<(), CodecError> {
        if self.version.is_none() && header.kind() != kind::CONNECT {
            // [MQTT-3.1.0-1]
            return Err(violation("the first packet must be CONNECT"));
        }
        if self.version.is_some() && header.kind() == kind::CONNECT {
            // [MQTT-3.1.0-2]
            return Err(violation("CONNECT was sent twice"));
        }
        if header.packet_bytes() > self.packet_bytes_max as usize {
            return Err(error(
                ReasonCode::PACKET_TOO_LARGE,
                "the packet is larger than allowed",
            ));
        }
        // [MQTT-2.1.3-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
        let flags_expected = match header.kind() {
            kind::PUBLISH => return Ok(()),
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
            _ => 0,
        };
        if header.flags() == flags_expected {
            Ok(())
        } else {
            Err(malformed("reserved bits of the fixed header are set"))
        }
    }

    fn connect(&mut self, header: Header, frame: BytesMut) -> Result<Connect, CodecError> {
        let body = frame.freeze().slice(header.own_bytes..);
        let version = connect::version(&body)?;
        self.version = Some(version);
        connect::read(version, body)
    }
}

/// The fixed header of a packet. [MQTT 5, 2.1]
#[derive(Clone, Copy)]
struct Header {
    first_byte: u8,
    own_bytes: usize,
    remaining_bytes: usize,
}

impl Header {
    fn read(buffer: &[u8]) -> Result<Option<Self>, CodecError> {
        let Some((&first_byte, rest)) = buffer.split_first() else {
            return Ok(None);
        };
        let mut remaining_bytes = 0;
        for (place, &byte) in rest.iter().take(4).enumerate() {
            remaining_bytes |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(Some(Self {
                    first_byte,
                    own_bytes: place + 2,
                    remaining_bytes,
                }));
            }
        }
        if rest.len() < 4 {
            Ok(None)
        } else {
            Err(malformed("the remaining length has no end"))
        }
    }

    fn kind(self) -> u8 {
        self.first_byte >> 4
    }

    fn flags(self) -> u8 {
        self.first_byte & 0x0f
    }

    fn packet_bytes(self) -> usize {
        self.own_bytes + self.remaining_bytes
    }
}

fn decode_packet(
    version: Version,
    header: Header,
    mut frame: BytesMut,
) -> Result<Packet, CodecError> {
    match header.kind() {
        kind::PUBLISH => {
            frame.advance(header.own_bytes);
            publish(version, header.flags(), frame.freeze())
        }
        kind::PUBACK => {
            frame.advance(header.own_bytes);
            puback(version, frame.freeze())
        }
        kind::PINGREQ if header.remaining_bytes == 0 => Ok(Packet::PingReq),
        kind::PINGREQ => Err(malformed("PINGREQ has a body")),
        kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::DISCONNECT => match version {
            Version::V311 => rare_v3(header, frame),
            Version::V5 => rare_v5(frame),
        },
        _ => Err(violation("a client does not send this packet here")),
    }
}

fn publish(version: Version, flags: u8, mut body: Bytes) -> Result<Packet, CodecError> {
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
    let topic_alias = match version {
        Version::V311 => None,
        Version::V5 => publish_properties(&mut body)?,
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
        is_retained: flags & 1 != 0,
    }))
}

/// Reads the properties of a PUBLISH and returns its topic alias. [MQTT 5, 3.3.2.3]
fn publish_properties(body: &mut Bytes) -> Result<Option<u16>, CodecError> {
    let mut properties = take_properties(body)?;
    let (mut seen, mut topic_alias) = (0_u64, None);
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
            }
            0x02 => {
                properties.try_get_u32().map_err(|_| CUT_OFF)?;
            }
            0x03 | 0x08 => {
                read_text(&mut properties)?;
            }
            0x09 => {
                read_binary(&mut properties)?;
            }
            0x23 => {
                let alias = properties.try_get_u16().map_err(|_| CUT_OFF)?;
                topic_alias = Some(alias);
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
    Ok(topic_alias)
}

fn puback(version: Version, mut body: Bytes) -> Result<Packet, CodecError> {
    let packet_id = read_packet_id(&mut body)?;
    if version == Version::V5 && body.has_remaining() {
        body.advance(1); // the reason: whatever it is, the client has the message
        if body.has_remaining() {
            take_properties(&mut body)?;
        }
    }
    if body.has_remaining() {
        return Err(malformed("PUBACK is too long"));
    }
    Ok(Packet::PubAck { packet_id })
}

fn rare_v3(header: Header, mut frame: BytesMut) -> Result<Packet, CodecError> {
    if header.kind() == kind::SUBSCRIBE {
        check_subscribe_bits_v3(frame.get(header.own_bytes..).unwrap_or_default())?;
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

fn rare_v5(mut frame: BytesMut) -> Result<Packet, CodecError> {
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
    check_text(filter)?;
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
    filters.iter().try_for_each(|filter| check_text(filter))?;
    Ok(Packet::Unsubscribe(Unsubscribe { packet_id, filters }))
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

pub(super) const CUT_OFF: CodecError = malformed("the packet is cut off");

fn read_packet_id(body: &mut Bytes) -> Result<PacketId, CodecError> {
    let id = body.try_get_u16().map_err(|_| CUT_OFF)?;
    // [MQTT-2.2.1-3]
    PacketId::new(id).ok_or(violation("packet identifier 0 does not exist"))
}

pub(super) fn read_binary(body: &mut Bytes) -> Result<Bytes, CodecError> {
    let length = usize::from(body.try_get_u16().map_err(|_| CUT_OFF)?);
    if body.remaining() < length {
        return Err(CUT_OFF);
    }
    Ok(body.split_to(length))
}

/// [MQTT-1.5.4-1] and [MQTT-1.5.4-2]: UTF-8 without U+0000.
pub(super) fn read_text(body: &mut Bytes) -> Result<String, CodecError> {
    let bytes = read_binary(body)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("a string is not UTF-8"))?;
    check_text(text)?;
    Ok(text.to_owned())
}

fn check_text(text: &str) -> Result<(), CodecError> {
    if text.contains('\0') {
        Err(malformed("a string contains U+0000"))
    } else {
        Ok(())
    }
}

pub(super) fn take_properties(body: &mut Bytes) -> Result<Bytes, CodecError> {
    let mut length = 0;
    for place in 0..4 {
        let byte = body.try_get_u8().map_err(|_| CUT_OFF)?;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if body.remaining() < length {
                return Err(CUT_OFF);
            }
            return Ok(body.split_to(length));
        }
    }
    Err(malformed("the property length has no end"))
}
