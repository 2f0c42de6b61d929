//! Packets of the server, read byte by byte, and by a decoder that the product does not use.

use serde_json::Value;

/// A packet of the server, or that there is none any more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Received {
    ConnAck(ConnAck),
    Publish(Delivery),
    PubAck(PubAck),
    SubAck { packet_id: u16, codes: Vec<u8> },
    UnsubAck { packet_id: u16, codes: Vec<u8> },
    PingResp,
    Disconnect { code: u8, why: String },
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnAck {
    pub(crate) is_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PubAck {
    pub(crate) packet_id: u16,
    pub(crate) code: u8,
    pub(crate) properties: Properties,
}

/// A PUBLISH of the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delivery {
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) is_repeated: bool,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) properties: Properties,
    pub(crate) packet_bytes: usize,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    pub(crate) fn seq(&self) -> i64 {
        self.json()["seq"].as_i64().unwrap()
    }

    pub(crate) fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Properties(Vec<(u8, Property)>);

#[derive(Clone, Debug, PartialEq)]
enum Property {
    Number(u32),
    Text(String),
    Binary(Vec<u8>),
    Pair(String, String),
}

impl Properties {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        self.numbers(id).first().copied()
    }

    pub(crate) fn numbers(&self, id: u8) -> Vec<u32> {
        let numbers = self.0.iter().filter_map(|(known, value)| match value {
            Property::Number(number) if *known == id => Some(*number),
            _ => None,
        });
        numbers.collect()
    }

    pub(crate) fn text(&self, id: u8) -> Option<&str> {
        self.0.iter().find_map(|(known, value)| match value {
            Property::Text(text) if *known == id => Some(text.as_str()),
            _ => None,
        })
    }

    pub(crate) fn binary(&self, id: u8) -> Option<&[u8]> {
        self.0.iter().find_map(|(known, value)| match value {
            Property::Binary(data) if *known == id => Some(data.as_slice()),
            _ => None,
        })
    }

    /// The user property of this name.
    pub(crate) fn user(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(_, value)| match value {
            Property::Pair(known, text) if known == name => Some(text.as_str()),
            _ => None,
        })
    }
}

/// Bytes of one packet that are read from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        front
    }

    fn number(&mut self, bytes: usize) -> u32 {
        let number = self.take(bytes).iter();
        number.fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn id(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap()
    }

    fn variable(&mut self) -> u32 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u32::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.binary()).unwrap()
    }

    fn binary(&mut self) -> Vec<u8> {
        let length = usize::from(self.id());
        self.take(length).to_vec()
    }

    fn properties(&mut self) -> Properties {
        let length = self.variable();
        let mut inner = Reader(self.take(length as usize));
        let mut properties = Vec::new();
        while !inner.0.is_empty() {
            let id = inner.byte();
            let value = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                    Property::Number(inner.number(1))
                }
                0x13 | 0x21 | 0x22 | 0x23 => Property::Number(inner.number(2)),
                0x02 | 0x11 | 0x18 | 0x27 => Property::Number(inner.number(4)),
                0x0b => Property::Number(inner.variable()),
                0x09 => Property::Binary(inner.binary()),
                0x26 => Property::Pair(inner.text(), inner.text()),
                _ => Property::Text(inner.text()),
            };
            properties.push((id, value));
        }
        Properties(properties)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn properties_if(&mut self, has_some: bool) -> Properties {
        if has_some && !self.0.is_empty() {
            self.properties()
        } else {
            Properties::default()
        }
    }
}

/// Takes the next packet from the front of `bytes`, if it is complete.
pub(crate) fn take(bytes: &mut Vec<u8>, is_v5: bool) -> Option<Received> {
    let length_bytes = bytes.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
    let remaining = Reader(&bytes[1..]).variable() as usize;
    let packet_bytes = 1 + length_bytes + remaining;
    if bytes.len() < packet_bytes {
        return None;
    }
    let packet: Vec<u8> = bytes.drain(..packet_bytes).collect();
    let received = read(&packet, length_bytes + 1, is_v5);
    assert_read_by_others(&packet, &received, is_v5);
    Some(received)
}

fn read(packet: &[u8], header_bytes: usize, is_v5: bool) -> Received {
    let (first, mut body) = (packet[0], Reader(&packet[header_bytes..]));
    match first >> 4 {
        2 => Received::ConnAck(ConnAck {
            is_present: body.byte() == 1,
            code: body.byte(),
            properties: body.properties_if(is_v5),
        }),
        3 => {
            let has_packet_id = first & 0b110 != 0;
            Received::Publish(Delivery {
                topic: body.text(),
                packet_id: if has_packet_id { body.id() } else { 0 },
                is_repeated: first & 0b1000 != 0,
                properties: body.properties_if(is_v5),
                payload: body.rest(),
                packet_bytes: packet.len(),
            })
        }
        4 => Received::PubAck(PubAck {
            packet_id: body.id(),
            code: if body.0.is_empty() { 0 } else { body.byte() },
            properties: body.properties_if(is_v5),
        }),
        kind @ (9 | 11) => {
            let packet_id = body.id();
            body.properties_if(is_v5);
            let codes = body.rest();
            match kind {
                9 => Received::SubAck { packet_id, codes },
                _ => Received::UnsubAck { packet_id, codes },
            }
        }
        13 => Received::PingResp,
        14 => Received::Disconnect {
            code: if body.0.is_empty() { 0 } else { body.byte() },
            why: body
                .properties_if(is_v5)
                .text(0x1f)
                .unwrap_or_default()
                .to_owned(),
        },
        _ => panic!("a server does not send {packet:?}"),
    }
}

/// What we can read might still be wrong for everybody else.
fn assert_read_by_others(packet: &[u8], received: &Received, is_v5: bool) {
    let has_many_identifiers = matches!(
        received,
        Received::Publish(delivery) if delivery.properties.numbers(0x0b).len() > 1
    );
    let is_aliased = matches!(received, Received::Publish(delivery) if delivery.topic.is_empty());
    if has_many_identifiers || is_aliased {
        return; // rightly sent, and more than that decoder knows
    }
    let is_read = if is_v5 {
        matches!(mqtt_proto::v5::Packet::decode(packet), Ok(Some(_)))
    } else {
        matches!(mqtt_proto::v3::Packet::decode(packet), Ok(Some(_)))
    };
    assert!(is_read, "another decoder cannot read {packet:?}");
}
