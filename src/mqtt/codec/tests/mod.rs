//! The decoder against the encoder of `mqtt-proto`, and against what the standard forbids.

mod generate;
mod same;

use generate::{connects, packets, versions};
use proptest::{collection::vec, prelude::*};
use same::assert_same;

use super::*;

const PACKET_BYTES_MAX: u32 = 2048;

/// A decoder that has seen its CONNECT.
fn decoder(version: Version) -> Decoder {
    Decoder {
        version: Some(version),
        packet_bytes_max: PACKET_BYTES_MAX,
    }
}

fn decode(version: Version, bytes: &[u8]) -> Result<Option<Packet>, CodecError> {
    decoder(version).decode(&mut bytes.into())
}

fn decode_connect(bytes: &[u8]) -> Result<Option<Packet>, CodecError> {
    Decoder::new(PACKET_BYTES_MAX).decode(&mut bytes.into())
}

/// What no accepted packet may hold.
fn assert_lawful(packet: &Packet) {
    let is_text = |text: &str| !text.contains('\0');
    match packet {
        Packet::Publish(publish) => {
            assert!(is_text(&publish.topic) && !publish.topic.contains(['+', '#']));
            assert!(!publish.topic.is_empty() || publish.topic_alias.is_some());
        }
        Packet::Subscribe(subscribe) => {
            assert!(!subscribe.requests.is_empty());
            let mut filters = subscribe.requests.iter().map(|one| &one.filter);
            assert!(filters.all(|filter| is_text(filter) && !filter.is_empty()));
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(!unsubscribe.filters.is_empty());
            assert!(unsubscribe.filters.iter().all(|filter| is_text(filter)));
        }
        Packet::Connect(connect) => {
            let has_name = connect.user_name.is_some() || connect.password.is_none();
            assert!(has_name || connect.version == Version::V5);
            assert!(is_text(&connect.client_id));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn valid_packets_are_read_as_another_decoder_reads_them((version, bytes) in packets()) {
        let packet = decode(version, &bytes).unwrap().unwrap();
        assert_same(version, &bytes, &packet);
    }

    #[test]
    fn valid_connects_are_read_as_another_decoder_reads_them((version, bytes) in connects()) {
        let mut decoder = Decoder::new(PACKET_BYTES_MAX);
        let packet = decoder.decode(&mut bytes[..].into()).unwrap().unwrap();
        prop_assert_eq!(decoder.version(), Some(version));
        assert_same(version, &bytes, &packet);
    }

    #[test]
    fn bytes_that_come_one_by_one_are_the_same_packets(
        version in versions(),
        all in vec(packets(), 1..6),
    ) {
        let of_version = all.into_iter().filter(|(known, _)| *known == version);
        let stream: Vec<u8> = of_version.flat_map(|(_, bytes)| bytes).collect();
        let (mut at_once, mut one_by_one) = (Vec::new(), Vec::new());
        let (mut first, mut second) = (decoder(version), decoder(version));
        let mut buffer = BytesMut::from(&stream[..]);
        while let Some(packet) = first.decode(&mut buffer).unwrap() {
            at_once.push(format!("{packet:?}"));
        }
        for byte in stream {
            buffer.extend_from_slice(&[byte]);
            one_by_one.extend(second.decode(&mut buffer).unwrap().map(|one| format!("{one:?}")));
        }
        prop_assert_eq!(at_once, one_by_one);
    }

    #[test]
    fn random_bytes_do_not_panic(version in versions(), bytes in vec(any::<u8>(), 0..64)) {
        drop(decode(version, &bytes));
        drop(decode_connect(&bytes));
    }

    /// Goal: no damage to a packet makes us accept what the standard forbids.
    /// Method: change, insert or remove some bytes, and mend the remaining length.
    #[test]
    fn damaged_packets_are_lawful_or_refused(
        (version, mut bytes) in prop_oneof![packets(), connects()],
        damage in vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        for (place, kind, byte) in damage {
            let place = place.index(bytes.len());
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ if bytes.len() > 2 => drop(bytes.remove(place)),
                _ => {}
            }
        }
        if let Ok(Some(header)) = Header::read(&bytes)
            && (2..100).contains(&bytes.len())
        {
            let body = bytes.get(header.body_at..).unwrap_or_default().to_vec();
            bytes = vec![bytes[0], u8::try_from(body.len()).unwrap()];
            bytes.extend(body);
        }
        for read in [decode(version, &bytes), decode_connect(&bytes)] {
            if let Ok(Some(packet)) = read {
                assert_lawful(&packet);
            }
        }
    }
}

fn assert_refused(version: Version, cases: &[(&str, &[u8])]) {
    for (what, bytes) in cases {
        let read = match bytes[0] >> 4 {
            kind::CONNECT => decode_connect(bytes),
            _ => decode(version, bytes),
        };
        assert!(read.is_err(), "{what}: {read:?}");
    }
}

const FORBIDDEN_IN_3: &[(&str, &[u8])] = &[
    (
        "password without user name",
        b"\x10\x12\0\x04MQTT\x04\x42\0\0\0\x01a\0\x03abc",
    ),
    (
        "bytes after CONNECT",
        b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x01a\0",
    ),
    (
        "reserved connect flag",
        b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a",
    ),
    (
        "will QoS without will",
        b"\x10\x0d\0\x04MQTT\x04\x0a\0\0\0\x01a",
    ),
    (
        "NUL in the client id",
        b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\0",
    ),
    (
        "no client id, no clean session",
        b"\x10\x0c\0\x04MQTT\x04\x00\0\0\0\0",
    ),
    (
        "MQIsdp of level 4",
        b"\x10\x0f\0\x06MQIsdp\x04\x02\0\0\0\x01a",
    ),
    ("DUP with QoS 0", b"\x38\x03\0\x01a"),
    ("QoS 2", b"\x34\x05\0\x01a\0\x01"),
    ("QoS 3", b"\x36\x05\0\x01a\0\x01"),
    ("wildcard in a topic", b"\x30\x03\0\x01+"),
    ("NUL in a topic", b"\x30\x03\0\x01\0"),
    ("empty topic", b"\x30\x02\0\0"),
    ("topic that is not UTF-8", b"\x30\x03\0\x01\xff"),
    ("surrogate in a topic", b"\x30\x05\0\x03\xed\xa0\x80"),
    ("packet id 0", b"\x32\x05\0\x01a\0\0"),
    ("PUBACK of 0", b"\x40\x02\0\0"),
    ("PUBACK too long", b"\x40\x03\0\x01\0"),
    ("PUBACK with flags", b"\x41\x02\0\x01"),
    ("SUBSCRIBE without its flags", b"\x80\x06\0\x01\0\x01a\0"),
    ("SUBSCRIBE without filters", b"\x82\x02\0\x01"),
    ("SUBSCRIBE with an empty filter", b"\x82\x05\0\x01\0\0\0"),
    ("SUBSCRIBE of packet id 0", b"\x82\x06\0\0\0\x01a\0"),
    (
        "reserved bits of a subscription",
        b"\x82\x06\0\x01\0\x01a\x05",
    ),
    ("SUBSCRIBE with QoS 3", b"\x82\x06\0\x01\0\x01a\x03"),
    ("NUL in a filter", b"\x82\x06\0\x01\0\x01\0\0"),
    ("UNSUBSCRIBE without filters", b"\xa2\x02\0\x01"),
    ("PINGREQ with a body", b"\xc0\x01\0"),
    ("PINGREQ with flags", b"\xc1\0"),
    ("DISCONNECT with a body", b"\xe0\x01\0"),
    (
        "a remaining length of five bytes",
        b"\x30\xff\xff\xff\xff\x01",
    ),
    ("a packet that is too large", b"\x30\xff\x7f"),
    ("AUTH", b"\xf0\0"),
    ("packet type 0", b"\x00\0"),
    ("PUBREC", b"\x50\x02\0\x01"),
    ("CONNACK", b"\x20\x02\0\0"),
];

#[test]
fn what_mqtt_3_forbids_is_refused() {
    assert_refused(Version::V311, FORBIDDEN_IN_3);
}

const FORBIDDEN_IN_5: &[(&str, &[u8])] = &[
    (
        "bytes after CONNECT",
        b"\x10\x0f\0\x04MQTT\x05\x02\0\0\0\0\x01a\0",
    ),
    (
        "reserved connect flag",
        b"\x10\x0e\0\x04MQTT\x05\x03\0\0\0\0\x01a",
    ),
    (
        "will retain without will",
        b"\x10\x0e\0\x04MQTT\x05\x22\0\0\0\0\x01a",
    ),
    (
        "will QoS without will",
        b"\x10\x0e\0\x04MQTT\x05\x0a\0\0\0\0\x01a",
    ),
    (
        "will QoS 3",
        b"\x10\x14\0\x04MQTT\x05\x1e\0\0\0\0\x01a\0\0\x01t\0\0",
    ),
    (
        "receive maximum 0",
        b"\x10\x11\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01a",
    ),
    (
        "maximum packet size 0",
        b"\x10\x13\0\x04MQTT\x05\x02\0\0\x05\x27\0\0\0\0\0\x01a",
    ),
    (
        "a property twice",
        b"\x10\x14\0\x04MQTT\x05\x02\0\0\x06\x21\0\x01\x21\0\x01\0\x01a",
    ),
    (
        "an unknown property",
        b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x7f\0\0\x01a",
    ),
    (
        "request problem information 2",
        b"\x10\x10\0\x04MQTT\x05\x02\0\0\x02\x17\x02\0\x01a",
    ),
    (
        "authentication data alone",
        b"\x10\x12\0\x04MQTT\x05\x02\0\0\x04\x16\0\x01x\0\x01a",
    ),
    (
        "PUBLISH: a property twice",
        b"\x30\x0a\0\x01a\x06\x23\0\x01\x23\0\x01",
    ),
    ("PUBLISH: an unknown property", b"\x30\x06\0\x01a\x02\x11\0"),
    (
        "PUBLISH: a property that is cut off",
        b"\x30\x06\0\x01a\x02\x23\0",
    ),
    (
        "PUBLISH: properties that are cut off",
        b"\x30\x05\0\x01a\x09\x23",
    ),
    (
        "PUBLISH: subscription identifier",
        b"\x30\x06\0\x01a\x02\x0b\x01",
    ),
    ("PUBLISH: payload format 2", b"\x30\x06\0\x01a\x02\x01\x02"),
    (
        "PUBLISH: wildcard in the response topic",
        b"\x30\x08\0\x01a\x04\x08\0\x01#",
    ),
    ("PUBLISH: neither topic nor alias", b"\x30\x03\0\0\0"),
    (
        "PUBLISH: property length of five bytes",
        b"\x30\x08\0\x01a\xff\xff\xff\xff\x01",
    ),
    ("PUBACK: unknown reason", b"\x40\x03\0\x01\x01"),
    ("PUBACK: unknown property", b"\x40\x06\0\x01\0\x02\x11\0"),
    (
        "PUBACK: reason string twice",
        b"\x40\x0a\0\x01\0\x06\x1f\0\0\x1f\0\0",
    ),
    (
        "PUBACK: bytes after its properties",
        b"\x40\x05\0\x01\0\0\0",
    ),
    (
        "SUBSCRIBE: subscription identifier 0",
        b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0",
    ),
    (
        "SUBSCRIBE: identifier twice",
        b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x01\0\x01a\0",
    ),
    (
        "SUBSCRIBE: retain handling 3",
        b"\x82\x07\0\x01\0\0\x01a\x30",
    ),
    ("SUBSCRIBE: reserved bits", b"\x82\x07\0\x01\0\0\x01a\x40"),
    ("SUBSCRIBE: QoS 3", b"\x82\x07\0\x01\0\0\x01a\x03"),
    (
        "SUBSCRIBE: unknown property",
        b"\x82\x09\0\x01\x02\x11\0\0\x01a\0",
    ),
    (
        "SUBSCRIBE: No Local of a share",
        b"\x82\x0e\0\x01\0\0\x08$share/a\x04",
    ),
    ("SUBSCRIBE: empty filter", b"\x82\x06\0\x01\0\0\0\0"),
    ("UNSUBSCRIBE: empty filter", b"\xa2\x05\0\x01\0\0\0"),
    ("UNSUBSCRIBE: packet id 0", b"\xa2\x06\0\0\0\0\x01a"),
    ("DISCONNECT: unknown property", b"\xe0\x04\0\x02\x21\0"),
    ("DISCONNECT: unknown reason", b"\xe0\x01\x01"),
    ("DISCONNECT: server reference", b"\xe0\x06\0\x04\x1c\0\x01a"),
    ("DISCONNECT: bytes after it", b"\xe0\x03\0\0\0"),
    ("QoS 2", b"\x34\x06\0\x01a\0\x01\0"),
];

#[test]
fn what_mqtt_5_forbids_is_refused() {
    assert_refused(Version::V5, FORBIDDEN_IN_5);
}

#[test]
fn what_is_told_to_a_peer_that_cannot_connect() {
    let code = |bytes: &[u8]| decode_connect(bytes).unwrap_err().code;
    let unknown_level = b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01a";
    assert_eq!(code(unknown_level), ReasonCode::UNSUPPORTED_VERSION);
    let no_client_id = b"\x10\x0c\0\x04MQTT\x04\x00\0\0\0\0";
    assert_eq!(code(no_client_id), ReasonCode::CLIENT_ID_NOT_VALID);
    let no_client_id = b"\x10\x0d\0\x04MQTT\x05\x00\0\0\0\0\0";
    assert!(
        decode_connect(no_client_id).is_ok(),
        "the server chooses one"
    );
    assert_eq!(code(b"\x30\x03\0\x01a"), ReasonCode::PROTOCOL_ERROR);
    assert_eq!(code(b"GET / HTTP/1.1\r\n\r\n"), ReasonCode::PROTOCOL_ERROR);
}

#[test]
fn a_connect_comes_once() {
    for version in [Version::V311, Version::V5] {
        let again = decode(version, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a");
        assert_eq!(again.unwrap_err().code, ReasonCode::PROTOCOL_ERROR);
    }
}
