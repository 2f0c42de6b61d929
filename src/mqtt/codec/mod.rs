//! Bytes to packets.
//!
//! Framing, PUBLISH and PUBACK are read here, since nearly every packet is one of them, and
//! CONNECT, whose sender must learn what is wrong with it; the others by `rmqtt-codec`. What
//! that crate lets through and the standard forbids is checked here too. A broken peer gets
//! a reason code, never a panic.

mod connect;
mod publish;
mod rare;
#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    packet::{Packet, PacketId, Version},
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

const fn error(code: ReasonCode, what: &'static str) -> CodecError {
    CodecError { code, what }
}

const fn malformed(what: &'static str) -> CodecError {
    error(ReasonCode::MALFORMED_PACKET, what)
}

const fn violation(what: &'static str) -> CodecError {
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
            None => {
                let body = frame.freeze().slice(header.body_at..);
                let version = connect::version(&body)?;
                self.version = Some(version);
                let connect = connect::decode(version, body)?;
                Ok(Some(Packet::Connect(Box::new(connect))))
            }
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
}

/// The fixed header of a packet. [MQTT 5, 2.1]
#[derive(Clone, Copy)]
struct Header {
    first_byte: u8,
    /// Where the rest begins.
    body_at: usize,
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
                    body_at: place + 2,
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
        self.body_at + self.remaining_bytes
    }
}

fn decode_packet(
    version: Version,
    header: Header,
    mut frame: BytesMut,
) -> Result<Packet, CodecError> {
    match header.kind() {
        kind::PUBLISH => {
            frame.advance(header.body_at);
            publish::decode(version, header.flags(), frame.freeze())
        }
        kind::PUBACK => {
            frame.advance(header.body_at);
            publish::decode_puback(version, frame.freeze())
        }
        kind::PINGREQ if header.remaining_bytes == 0 => Ok(Packet::PingReq),
        kind::PINGREQ => Err(malformed("PINGREQ has a body")),
        kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::DISCONNECT => match version {
            Version::V311 => rare::decode_v3(header, frame),
            Version::V5 => rare::decode_v5(frame),
        },
        _ => Err(violation("a client does not send this packet here")),
    }
}

const CUT_OFF: CodecError = malformed("the packet is cut off");

fn read_packet_id(body: &mut Bytes) -> Result<PacketId, CodecError> {
    let id = body.try_get_u16().map_err(|_| CUT_OFF)?;
    // [MQTT-2.2.1-3]
    PacketId::new(id).ok_or(violation("packet identifier 0 does not exist"))
}

fn read_binary(body: &mut Bytes) -> Result<Bytes, CodecError> {
    let length = usize::from(body.try_get_u16().map_err(|_| CUT_OFF)?);
    if body.remaining() < length {
        return Err(CUT_OFF);
    }
    Ok(body.split_to(length))
}

/// [MQTT-1.5.4-1] and [MQTT-1.5.4-2]: UTF-8 without U+0000.
fn read_text(body: &mut Bytes) -> Result<String, CodecError> {
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

fn take_properties(body: &mut Bytes) -> Result<Bytes, CodecError> {
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
