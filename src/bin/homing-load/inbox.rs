//! What an MQTT 3.1.1 client reads: bytes as they arrive, packets as they are complete.
//!
//! One buffer for each connection; a packet borrows from it, nothing is copied. Only as
//! strict as a load generator must be: what it cannot read ends the connection.

use std::ops::Range;

/// Room that is worth a read.
const ROOM_BYTES_MIN: usize = 256;
/// MQTT allows 256 MB; nobody here sends more than this.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// A packet from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Connack {
        is_session_present: bool,
        code: u8,
    },
    Suback {
        codes: &'a [u8],
    },
    Puback {
        packet_id: u16,
    },
    Publish(Publish<'a>),
    /// PINGRESP, UNSUBACK: nothing to do.
    Other,
}

/// A message from the server; without packet id it is QoS 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) is_repeat: bool,
    pub(crate) packet_id: Option<u16>,
    pub(crate) topic: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Bytes that are no MQTT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent what is no MQTT packet (first byte {0:#04x})")]
pub(crate) struct Malformed(u8);

/// The bytes of one connection that are read and not yet taken.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes.max(ROOM_BYTES_MIN)],
            begin: 0,
            end: 0,
        }
    }

    /// Where the next read puts its bytes; never empty.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        if self.bytes.len() - self.end < ROOM_BYTES_MIN {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if self.bytes.len() - self.end < ROOM_BYTES_MIN {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were read into [`Self::room`].
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Whether a complete packet waits.
    pub(crate) fn has_packet(&self) -> Result<bool, Malformed> {
        Ok(self.body()?.is_some())
    }

    /// Takes the next complete packet.
    pub(crate) fn take(&mut self) -> Result<Option<Packet<'_>>, Malformed> {
        let Some(body) = self.body()? else {
            return Ok(None);
        };
        let first = self.bytes[self.begin];
        self.begin = body.end;
        parse(first, &self.bytes[body])
            .ok_or(Malformed(first))
            .map(Some)
    }

    /// Where the body of the next complete packet is.
    fn body(&self) -> Result<Option<Range<usize>>, Malformed> {
        let Some((&first, rest)) = self.bytes[self.begin..self.end].split_first() else {
            return Ok(None);
        };
        let Some((bytes, length)) = remaining_length(rest).map_err(|()| Malformed(first))? else {
            return Ok(None);
        };
        let begin = self.begin + 1 + bytes;
        Ok((begin + length <= self.end).then_some(begin..begin + length))
    }
}

/// The length of a packet's body and how many bytes say so; nothing if more must be read.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ()> {
    let mut length = 0;
    for place in 0..4 {
        let Some(&byte) = bytes.get(place) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return if length > PACKET_BYTES_MAX {
                Err(())
            } else {
                Ok(Some((place + 1, length)))
            };
        }
    }
    Err(())
}

fn parse(first: u8, body: &[u8]) -> Option<Packet<'_>> {
    Some(match first >> 4 {
        2 => {
            let [flags, code] = body.try_into().ok()?;
            Packet::Connack {
                is_session_present: flags & 1 == 1,
                code,
            }
        }
        3 => Packet::Publish(parse_publish(first, body)?),
        4 => Packet::Puback {
            packet_id: u16::from_be_bytes(body.try_into().ok()?),
        },
        9 => Packet::Suback {
            codes: body.get(2..)?,
        },
        11 | 13 => Packet::Other,
        _ => return None,
    })
}

fn parse_publish(first: u8, body: &[u8]) -> Option<Publish<'_>> {
    let (length, rest) = body.split_first_chunk()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (packet_id, payload) = match first >> 1 & 3 {
        0 => (None, rest),
        1 => {
            let (packet_id, payload) = rest.split_first_chunk()?;
            (Some(u16::from_be_bytes(*packet_id)), payload)
        }
        _ => return None, // nothing here subscribes with more than QoS 1
    };
    Some(Publish {
        is_repeat: first & 0x08 != 0,
        packet_id,
        topic,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a server might send: an answer to each request, then deliveries.
    fn stream() -> (Vec<u8>, Vec<String>) {
        let mut bytes = vec![0x20, 2, 1, 0, 0x90, 3, 0, 1, 1, 0x40, 2, 0, 9, 0xD0, 0];
        let mut packets = vec![
            Packet::Connack {
                is_session_present: true,
                code: 0,
            },
            Packet::Suback { codes: &[1] },
            Packet::Puback { packet_id: 9 },
            Packet::Other,
        ];
        let large = [b'x'; 1000];
        let (delivery, ..) = crate::wire::publish("load/1", &large);
        bytes.extend_from_slice(&delivery);
        bytes.extend_from_slice(b"\x3A\x06\x00\x01t\x00\x07p");
        bytes.extend_from_slice(b"\x30\x04\x00\x01tp");
        let publish = |is_repeat, packet_id, topic, payload| {
            Packet::Publish(Publish {
                is_repeat,
                packet_id,
                topic,
                payload,
            })
        };
        packets.push(publish(false, Some(0), b"load/1", &large));
        packets.push(publish(true, Some(7), b"t", b"p"));
        packets.push(publish(false, None, b"t", b"p"));
        (
            bytes,
            packets.iter().map(|packet| format!("{packet:?}")).collect(),
        )
    }

    fn read(bytes: &[u8], cuts: &[usize], capacity: usize) -> Result<Vec<String>, Malformed> {
        let mut inbox = Inbox::with_capacity(capacity);
        let mut packets = Vec::new();
        let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
        while !rest.is_empty() {
            let room = inbox.room();
            let count = rest.len().min(room.len()).min(*cuts.next().unwrap());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            inbox.filled(count);
            while let Some(packet) = inbox.take()? {
                packets.push(format!("{packet:?}"));
            }
        }
        Ok(packets)
    }

    #[test]
    fn many_packets_in_one_read() {
        let (bytes, packets) = stream();
        assert_eq!(read(&bytes, &[usize::MAX], 4096), Ok(packets));
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for bytes in [
            &[0x20, 1, 0][..],
            &[0x00, 0],
            &[0x30, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x34, 2, 0, 0],
        ] {
            assert_eq!(read(bytes, &[1], 0), Err(Malformed(bytes[0])), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn packets_do_not_depend_on_how_the_bytes_arrive(
            cuts in prop::collection::vec(1_usize..700, 1..20),
            capacity in 0_usize..2000,
        ) {
            let (bytes, packets) = stream();
            prop_assert_eq!(read(&bytes.repeat(3), &cuts, capacity), Ok([packets.clone(), packets.clone(), packets].concat()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let _ = read(&bytes, &[7], 0);
        }
    }
}
