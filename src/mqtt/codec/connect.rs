//! CONNECT, whose sender must be told exactly what is wrong with it. [MQTT 5, 3.1]

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Buf as _, Bytes};

use super::{
    CUT_OFF, CodecError, error, malformed, read_binary, read_text, take_properties, violation,
};
use crate::domain::format::FORMAT_PROPERTY;
use crate::mqtt::{
    packet::{Connect, Version},
    reason::ReasonCode,
};

/// Connect flags. [MQTT 5, 3.1.2.3]
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// Looks at protocol name and level only, so that an unknown level gets its own answer.
pub(super) fn version(body: &[u8]) -> Result<Version, CodecError> {
    let (is_old, rest) = match (
        body.strip_prefix(b"\x00\x04MQTT"),
        body.strip_prefix(b"\x00\x06MQIsdp"),
    ) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(violation("this is not MQTT")),
    };
    match (is_old, rest.first()) {
        (true, Some(3)) | (false, Some(4)) => Ok(Version::V311),
        (false, Some(5)) => Ok(Version::V5),
        (_, Some(_)) => Err(error(
            ReasonCode::UNSUPPORTED_VERSION,
            "MQTT 3.1.1 and 5 are spoken here",
        )),
        (_, None) => Err(CUT_OFF),
    }
}

/// Reads what follows the fixed header.
pub(super) fn decode(version: Version, mut body: Bytes) -> Result<Connect, CodecError> {
    read_binary(&mut body)?; // the protocol name
    body.try_get_u8().map_err(|_| CUT_OFF)?; // its level
    let flags = body.try_get_u8().map_err(|_| CUT_OFF)?;
    check_flags(version, flags)?;
    let keep_alive_seconds = body.try_get_u16().map_err(|_| CUT_OFF)?;
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => Properties::read(take_properties(&mut body)?)?,
    };
    let client_id = read_text(&mut body)?;
    let has_will = flags & flag::WILL != 0;
    if has_will {
        if version == Version::V5 {
            take_properties(&mut body)?;
        }
        read_text(&mut body)?;
        read_binary(&mut body)?;
    }
    let user_name = (flags & flag::USER_NAME != 0).then(|| read_text(&mut body));
    let user_name = user_name.transpose()?;
    let password = (flags & flag::PASSWORD != 0).then(|| read_binary(&mut body));
    let password = password.transpose()?;
    if body.has_remaining() {
        return Err(malformed("CONNECT is too long"));
    }
    let clean_start = flags & flag::CLEAN_START != 0;
    if version == Version::V311 && client_id.is_empty() && !clean_start {
        // [MQTT-3.1.3-8] of 3.1.1
        let why = "no client id needs a clean session";
        return Err(error(ReasonCode::CLIENT_ID_NOT_VALID, why));
    }
    let session_expiry_seconds = match (version, clean_start) {
        (Version::V311, false) => u32::MAX,
        (Version::V311, true) => 0,
        (Version::V5, _) => properties.session_expiry_seconds.unwrap_or(0),
    };
    Ok(Connect {
        version,
        client_id,
        clean_start,
        keep_alive_seconds,
        user_name,
        password,
        session_expiry_seconds,
        receive_max: properties.receive_max.unwrap_or(NonZeroU16::MAX),
        packet_bytes_max: properties.packet_bytes_max,
        topic_alias_max: properties.topic_alias_max.unwrap_or(0),
        wants_problem_information: version == Version::V5
            && properties.wants_problem_information.unwrap_or(true),
        has_will,
        has_authentication_method: properties.has_authentication_method,
        format: properties
            .format
            .as_deref()
            .and_then(|name| name.parse().ok()),
        asks_for_format: properties.format.is_some(),
    })
}

fn check_flags(version: Version, flags: u8) -> Result<(), CodecError> {
    // [MQTT-3.1.2-3]
    if flags & flag::RESERVED != 0 {
        return Err(malformed("the reserved flag of CONNECT is set"));
    }
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    if flags & flag::WILL == 0 && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        return Err(malformed("without a will there is no QoS and no retain"));
    }
    // [MQTT-3.1.2-12]
    if flags & flag::WILL_QOS == flag::WILL_QOS {
        return Err(malformed("QoS 3 does not exist"));
    }
    // [MQTT-3.1.2-22] of 3.1.1
    let has_only_password = flags & (flag::PASSWORD | flag::USER_NAME) == flag::PASSWORD;
    if version == Version::V311 && has_only_password {
        return Err(malformed("a password needs a user name in MQTT 3.1.1"));
    }
    Ok(())
}

/// The properties that matter here. [MQTT 5, 3.1.2.11]
#[derive(Default)]
struct Properties {
    session_expiry_seconds: Option<u32>,
    receive_max: Option<NonZeroU16>,
    packet_bytes_max: Option<NonZeroU32>,
    topic_alias_max: Option<u16>,
    wants_problem_information: Option<bool>,
    has_authentication_method: bool,
    format: Option<String>,
}

impl Properties {
    fn read(mut bytes: Bytes) -> Result<Self, CodecError> {
        let mut properties = Self::default();
        let (mut seen, mut has_authentication_data) = (0_u64, false);
        while let Ok(property) = bytes.try_get_u8() {
            let bit = 1_u64.checked_shl(u32::from(property)).unwrap_or(0);
            if property != 0x26 && seen & bit != 0 {
                return Err(violation("a property appears twice"));
            }
            seen |= bit;
            match property {
                0x11 => properties.session_expiry_seconds = Some(read_u32(&mut bytes)?),
                0x15 => {
                    read_text(&mut bytes)?;
                    properties.has_authentication_method = true;
                }
                0x16 => {
                    read_binary(&mut bytes)?;
                    has_authentication_data = true;
                }
                0x17 => properties.wants_problem_information = Some(read_bool(&mut bytes)?),
                0x19 => {
                    read_bool(&mut bytes)?;
                }
                0x21 => {
                    let count = NonZeroU16::new(read_u16(&mut bytes)?);
                    let why = "a Receive Maximum of 0 lets nothing through";
                    properties.receive_max = Some(count.ok_or(violation(why))?);
                }
                0x22 => properties.topic_alias_max = Some(read_u16(&mut bytes)?),
                0x26 => {
                    let (name, value) = (read_text(&mut bytes)?, read_text(&mut bytes)?);
                    if name == FORMAT_PROPERTY {
                        properties.format = Some(value);
                    }
                }
                0x27 => {
                    let size = NonZeroU32::new(read_u32(&mut bytes)?);
                    let why = "a Maximum Packet Size of 0 lets nothing through";
                    properties.packet_bytes_max = Some(size.ok_or(violation(why))?);
                }
                _ => return Err(malformed("CONNECT has no such property")),
            }
        }
        if has_authentication_data && !properties.has_authentication_method {
            let why = "authentication data needs an authentication method";
            return Err(violation(why));
        }
        Ok(properties)
    }
}

fn read_u16(bytes: &mut Bytes) -> Result<u16, CodecError> {
    bytes.try_get_u16().map_err(|_| CUT_OFF)
}

fn read_u32(bytes: &mut Bytes) -> Result<u32, CodecError> {
    bytes.try_get_u32().map_err(|_| CUT_OFF)
}

fn read_bool(bytes: &mut Bytes) -> Result<bool, CodecError> {
    match bytes.try_get_u8().map_err(|_| CUT_OFF)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(violation("the value of this property is 0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: no CONNECT panics, whatever is cut off or changed in it.
        #[test]
        fn any_bytes_are_read_or_refused(
            is_v5: bool,
            flags: u8,
            rest in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8], 0..60),
        ) {
            let level = if is_v5 { 5 } else { 4 };
            let body = [b"\x00\x04MQTT", &[level, flags][..], &rest].concat();
            let version = version(&body).unwrap();
            let _either: Result<_, _> = decode(version, body.into());
        }
    }
}
