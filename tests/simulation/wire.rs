//! MQTT as a device speaks it, with encoders and decoders that nobody here wrote.

use std::{collections::BTreeMap, num::NonZeroU16};

use bytes::{Bytes, BytesMut};
use homing::mqtt::packet::{PacketId, Version};
use mqtt_proto::{Pid, Protocol, QoS, QosPid, TopicFilter, TopicName, v3, v5};
use tokio_util::codec::Decoder as _;

/// What a device announces in its CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) is_persistent: bool,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) topic_alias_max: u16,
}

/// One filter that a device wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) at_least_once: bool,
    pub(crate) no_local: bool,
    pub(crate) identifier: Option<u32>,
}

/// A PUBLISH of the server.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) topic: String,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) is_repeated: bool,
    pub(crate) payload: Bytes,
}

/// A packet of the server, the same for both versions.
#[derive(Clone, Debug)]
pub(crate) enum FromServer {
    Connected { is_session_present: bool },
    Refused,
    Delivery(Delivery),
    Acknowledged { packet_id: u16, is_taken: bool },
    Subscribed { packet_id: u16, is_granted: bool },
    Unsubscribed { packet_id: u16, is_done: bool },
    Pong,
    Disconnected,
}

fn qos(at_least_once: bool) -> QoS {
    if at_least_once {
        QoS::Level1
    } else {
        QoS::Level0
    }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::try_from(text).unwrap()
}

fn pid(packet_id: u16) -> Pid {
    Pid::try_from(packet_id).unwrap()
}

pub(crate) fn connect(hello: &Hello) -> Vec<u8> {
    let user = Some("user".into());
    let password = Some(Bytes::from_static(b"token"));
    let client_id = hello.client_id.as_str().into();
    match hello.version {
        Version::V311 => encode_v3(
            &v3::Connect {
                protocol: Protocol::V311,
                clean_session: !hello.is_persistent,
                keep_alive: 0,
                client_id,
                last_will: None,
                username: user,
                password,
            }
            .into(),
        ),
        Version::V5 => {
            let properties = v5::ConnectProperties {
                session_expiry_interval: hello.is_persistent.then_some(u32::MAX),
                receive_max: Some(hello.receive_max),
                max_packet_size: hello.packet_bytes_max,
                topic_alias_max: Some(hello.topic_alias_max),
                ..v5::ConnectProperties::default()
            };
            let connect = v5::Connect {
                clean_start: hello.clean_start,
                properties,
                username: user,
                password,
                ..v5::Connect::new(client_id, 0)
            };
            encode_v5(&connect.into())
        }
    }
}

pub(crate) fn publish(
    version: Version,
    topic: &str,
    packet_id: Option<u16>,
    is_repeated: bool,
    payload: String,
) -> Vec<u8> {
    let topic_name = TopicName::try_from(topic).unwrap();
    let qos_pid = packet_id.map_or(QosPid::Level0, |id| QosPid::Level1(pid(id)));
    let (dup, retain, payload) = (is_repeated, false, Bytes::from(payload));
    match version {
        Version::V311 => encode_v3(
            &v3::Publish {
                dup,
                retain,
                qos_pid,
                topic_name,
                payload,
            }
            .into(),
        ),
        Version::V5 => encode_v5(
            &v5::Publish {
                dup,
                retain,
                qos_pid,
                topic_name,
                payload,
                properties: v5::PublishProperties::default(),
            }
            .into(),
        ),
    }
}

pub(crate) fn puback(version: Version, packet_id: PacketId) -> Vec<u8> {
    let pid = pid(packet_id.get());
    match version {
        Version::V311 => encode_v3(&v3::Packet::Puback(pid)),
        Version::V5 => encode_v5(&v5::Puback::new(pid, v5::PubackReasonCode::Success).into()),
    }
}

pub(crate) fn subscribe(version: Version, packet_id: u16, text: &str, wish: Wish) -> Vec<u8> {
    match version {
        Version::V311 => {
            let topics = vec![(filter(text), qos(wish.at_least_once))];
            encode_v3(&v3::Subscribe::new(pid(packet_id), topics).into())
        }
        Version::V5 => {
            let mut options = v5::SubscriptionOptions::new(qos(wish.at_least_once));
            options.no_local = wish.no_local;
            let mut packet = v5::Subscribe::new(pid(packet_id), vec![(filter(text), options)]);
            packet.properties.subscription_id = wish.identifier.map(|id| id.try_into().unwrap());
            encode_v5(&packet.into())
        }
    }
}

pub(crate) fn unsubscribe(version: Version, packet_id: u16, text: &str) -> Vec<u8> {
    let topics = vec![filter(text)];
    match version {
        Version::V311 => encode_v3(&v3::Unsubscribe::new(pid(packet_id), topics).into()),
        Version::V5 => encode_v5(&v5::Unsubscribe::new(pid(packet_id), topics).into()),
    }
}

pub(crate) fn ping(version: Version) -> Vec<u8> {
    match version {
        Version::V311 => encode_v3(&v3::Packet::Pingreq),
        Version::V5 => encode_v5(&v5::Packet::Pingreq),
    }
}

pub(crate) fn disconnect(version: Version) -> Vec<u8> {
    match version {
        Version::V311 => encode_v3(&v3::Packet::Disconnect),
        Version::V5 => encode_v5(&v5::Disconnect::new_normal().into()),
    }
}

fn encode_v3(packet: &v3::Packet) -> Vec<u8> {
    packet.encode().unwrap().as_ref().to_vec()
}

fn encode_v5(packet: &v5::Packet) -> Vec<u8> {
    packet.encode().unwrap().as_ref().to_vec()
}

/// Reads what a server sends on one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    version: Version,
    aliases: BTreeMap<NonZeroU16, String>,
    buffer: BytesMut,
    /// The size of the largest packet so far.
    pub(crate) packet_bytes_max: usize,
}

impl Reader {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            aliases: BTreeMap::new(),
            buffer: BytesMut::new(),
            packet_bytes_max: 0,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next packet, if it is complete.
    pub(crate) fn read(&mut self) -> Result<Option<FromServer>, String> {
        let Some(bytes) = packet_bytes(&self.buffer).filter(|bytes| *bytes <= self.buffer.len())
        else {
            return Ok(None);
        };
        self.packet_bytes_max = self.packet_bytes_max.max(bytes);
        let mut frame = self.buffer.split_to(bytes);
        let unreadable = |error: &dyn std::fmt::Display| format!("unreadable packet: {error}");
        match self.version {
            Version::V311 => {
                let packet = rmqtt_codec::v3::Codec::new(0).decode(&mut frame);
                let (packet, _) = packet
                    .map_err(|error| unreadable(&error))?
                    .ok_or("cut off")?;
                from_v3(packet).map(Some)
            }
            Version::V5 => {
                let packet = rmqtt_codec::v5::Codec::new(0, 0).decode(&mut frame);
                let (packet, _) = packet
                    .map_err(|error| unreadable(&error))?
                    .ok_or("cut off")?;
                self.read_v5(packet).map(Some)
            }
        }
    }

    fn read_v5(&mut self, packet: rmqtt_codec::v5::Packet) -> Result<FromServer, String> {
        use rmqtt_codec::v5::Packet;
        Ok(match packet {
            Packet::ConnectAck(ack) if u8::from(ack.reason_code) == 0 => FromServer::Connected {
                is_session_present: ack.session_present,
            },
            Packet::ConnectAck(_) => FromServer::Refused,
            Packet::Publish(publish) => {
                let alias = publish.properties.and_then(|known| known.topic_alias);
                let mut topic = publish.topic.to_string();
                if let Some(alias) = alias {
                    if topic.is_empty() {
                        topic.clone_from(self.aliases.get(&alias).ok_or("unknown alias")?);
                    } else {
                        self.aliases.insert(alias, topic.clone());
                    }
                }
                FromServer::Delivery(Delivery {
                    topic,
                    packet_id: publish.packet_id,
                    is_repeated: publish.dup,
                    payload: publish.payload,
                })
            }
            Packet::PublishAck(ack) => FromServer::Acknowledged {
                packet_id: ack.packet_id.get(),
                is_taken: u8::from(ack.reason_code) < 0x80,
            },
            Packet::SubscribeAck(ack) => FromServer::Subscribed {
                packet_id: ack.packet_id.get(),
                is_granted: ack.status.iter().all(|code| u8::from(*code) < 0x80),
            },
            Packet::UnsubscribeAck(ack) => FromServer::Unsubscribed {
                packet_id: ack.packet_id.get(),
                is_done: ack.status.iter().all(|code| u8::from(*code) < 0x80),
            },
            Packet::PingResponse => FromServer::Pong,
            Packet::Disconnect(_) => FromServer::Disconnected,
            other => return Err(format!("a server does not send {other:?}")),
        })
    }
}

fn from_v3(packet: rmqtt_codec::v3::Packet) -> Result<FromServer, String> {
    use rmqtt_codec::v3::{ConnectAckReason, Packet, SubscribeReturnCode};
    Ok(match packet {
        Packet::ConnectAck(ack) if ack.return_code == ConnectAckReason::ConnectionAccepted => {
            FromServer::Connected {
                is_session_present: ack.session_present,
            }
        }
        Packet::ConnectAck(_) => FromServer::Refused,
        Packet::Publish(publish) => FromServer::Delivery(Delivery {
            topic: publish.topic.to_string(),
            packet_id: publish.packet_id,
            is_repeated: publish.dup,
            payload: publish.payload,
        }),
        Packet::PublishAck { packet_id } => FromServer::Acknowledged {
            packet_id: packet_id.get(),
            is_taken: true,
        },
        Packet::SubscribeAck { packet_id, status } => FromServer::Subscribed {
            packet_id: packet_id.get(),
            is_granted: !status.contains(&SubscribeReturnCode::Failure),
        },
        Packet::UnsubscribeAck { packet_id } => FromServer::Unsubscribed {
            packet_id: packet_id.get(),
            is_done: true,
        },
        Packet::PingResponse => FromServer::Pong,
        other => return Err(format!("a server does not send {other:?}")),
    })
}

/// The size of the packet that `buffer` begins with, once its header is complete.
fn packet_bytes(buffer: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (place, byte) in buffer.get(1..)?.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(place + 2 + remaining);
        }
    }
    None
}
