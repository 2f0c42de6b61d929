//! CONNECT.

use std::num::NonZeroU16;

use bytes::{Buf as _, Bytes, BytesMut};
use rmqtt_codec::{error::DecodeError, v3, v5};
use tokio_util::codec::Decoder as _;

use super::{
    CUT_OFF, CodecError, Header, error, malformed, read_binary, read_text, take_properties,
    violation,
};
use crate::mqtt::{
    packet::{Connect, Version},
    reason::ReasonCode,
};

/// The connect flags. [MQTT 5, 3.1.2.3]
mod flag {
    pub(super) const RESERVED: u8 = 0b0000_0001;
    pub(super) const WILL: u8 = 0b0000_0100;
    /// Will QoS and Will Retain.
    pub(super) const WILL_OPTIONS: u8 = 0b0011_1000;
    pub(super) const PASSWORD: u8 = 0b0100_0000;
    pub(super) const USER_NAME: u8 = 0b1000_0000;
}

pub(super) fn decode(
    version: Version,
    header: Header,
    mut frame: BytesMut,
) -> Result<Connect, CodecError> {
    let body = frame.get(header.body_at..).unwrap_or_default();
    check(version, Bytes::copy_from_slice(body))?;
    match version {
        Version::V311 => match v3::Codec::new(0).decode(&mut frame) {
            Ok(Some((v3::Packet::Connect(connect), _))) => Ok(connect_v3(*connect)),
            other => Err(unreadable(other.err().as_ref())),
        },
        Version::V5 => match v5::Codec::new(0, 0).decode(&mut frame) {
            Ok(Some((v5::Packet::Connect(connect), _))) => connect_v5(*connect),
            other => Err(unreadable(other.err().as_ref())),
        },
    }
}

fn unreadable(why: Option<&DecodeError>) -> CodecError {
    match why {
        // [MQTT-3.1.3-8]
        Some(DecodeError::InvalidClientId) => error(
            ReasonCode::CLIENT_ID_NOT_VALID,
            "no client id needs a clean session",
        ),
        _ => malformed("CONNECT cannot be read"),
    }
}

/// Walks through the fields: flags that agree with each other, strings that are text, and
/// nothing after the last field.
fn check(version: Version, mut body: Bytes) -> Result<(), CodecError> {
    read_binary(&mut body)?; // protocol name
    body.try_get_u8().map_err(|_| CUT_OFF)?; // protocol level
    let flags = body.try_get_u8().map_err(|_| CUT_OFF)?;
    let has = |flag: u8| flags & flag != 0;
    if has(flag::RESERVED) {
        // [MQTT-3.1.2-3]
        return Err(malformed("the reserved connect flag is set"));
    }
    if has(flag::WILL_OPTIONS) && !has(flag::WILL) {
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        return Err(malformed("options of a will are set, and there is no will"));
    }
    if version == Version::V311 && has(flag::PASSWORD) && !has(flag::USER_NAME) {
        // [MQTT-3.1.2-22] of 3.1.1
        return Err(malformed("a password needs a user name in MQTT 3.1.1"));
    }
    body.try_get_u16().map_err(|_| CUT_OFF)?; // keep alive
    if version == Version::V5 {
        take_properties(&mut body)?;
    }
    read_text(&mut body)?; // client id
    if has(flag::WILL) {
        if version == Version::V5 {
            take_properties(&mut body)?;
        }
        read_text(&mut body)?;
        read_binary(&mut body)?;
    }
    if has(flag::USER_NAME) {
        read_text(&mut body)?;
    }
    if has(flag::PASSWORD) {
        read_binary(&mut body)?;
    }
    if body.has_remaining() {
        return Err(malformed("CONNECT is too long"));
    }
    Ok(())
}

/// Looks at protocol name and level only, so that an unknown level gets its own answer.
pub(super) fn version(frame: &[u8]) -> Result<Version, CodecError> {
    let header = Header::read(frame)?.ok_or(malformed("CONNECT is cut off"))?;
    let body = frame.get(header.body_at..).unwrap_or_default();
    let unsupported = error(
        ReasonCode::UNSUPPORTED_VERSION,
        "MQTT 3.1.1 and 5 are spoken here",
    );
    if let Some([level, ..]) = body.strip_prefix(b"\x00\x04MQTT") {
        match level {
            4 => Ok(Version::V311),
            5 => Ok(Version::V5),
            _ => Err(unsupported),
        }
    } else if let Some([level, ..]) = body.strip_prefix(b"\x00\x06MQIsdp") {
        match level {
            3 => Ok(Version::V311),
            _ => Err(unsupported),
        }
    } else {
        Err(violation("this is not MQTT"))
    }
}

fn connect_v3(connect: v3::Connect) -> Connect {
    Connect {
        version: Version::V311,
        client_id: connect.client_id.to_string(),
        clean_start: connect.clean_session,
        keep_alive_seconds: connect.keep_alive,
        user_name: connect.username.map(|name| name.to_string()),
        password: connect.password,
        session_expiry_seconds: if connect.clean_session { 0 } else { u32::MAX },
        receive_max: NonZeroU16::MAX,
        packet_bytes_max: None,
        topic_alias_max: 0,
        wants_problem_information: false,
        has_will: connect.last_will.is_some(),
        has_authentication_method: false,
    }
}

fn connect_v5(connect: v5::Connect) -> Result<Connect, CodecError> {
    if connect.auth_data.is_some() && connect.auth_method.is_none() {
        return Err(violation(
            "authentication data needs an authentication method",
        ));
    }
    Ok(Connect {
        version: Version::V5,
        client_id: connect.client_id.to_string(),
        clean_start: connect.clean_start,
        keep_alive_seconds: connect.keep_alive,
        user_name: connect.username.map(|name| name.to_string()),
        password: connect.password,
        session_expiry_seconds: connect.session_expiry_interval_secs,
        receive_max: connect.receive_max.unwrap_or(NonZeroU16::MAX),
        packet_bytes_max: connect.max_packet_size,
        topic_alias_max: connect.topic_alias_max,
        wants_problem_information: connect.request_problem_info,
        has_will: connect.last_will.is_some(),
        has_authentication_method: connect.auth_method.is_some(),
    })
}
