//! One connection of a device, MQTT 3.1.1 or 5, by a codec that is not ours. It does what
//! it is told and nothing else: no acknowledgement, no repetition, no reconnect.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Buf as _, Bytes, BytesMut};
use mqtt_proto::{Pid, QoS, QosPid, TopicFilter, TopicName, v3, v5};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const SESSION_EXPIRY_SECONDS: u32 = 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// Who connects. Sessions are always kept.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) user: String,
    pub(crate) token: String,
}

/// What the server said.
#[derive(Debug)]
pub(crate) enum Packet {
    ConnAck {
        is_accepted: bool,
        has_session: bool,
        code: String,
    },
    SubAck,
    /// `refused` holds the reason code if it is not success; 3.1.1 knows neither that nor a sequence.
    PubAck {
        packet_id: u16,
        sequence: Option<i64>,
        refused: Option<String>,
    },
    Publish {
        packet_id: Option<u16>,
        topic: String,
        payload: Bytes,
    },
    /// What these devices do not expect; for the message of a failure.
    Other(#[expect(dead_code, reason = "it is printed")] String),
}

/// One PUBLISH with QoS 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) packet_id: u16,
    pub(crate) is_repeated: bool,
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a str,
}

pub(crate) struct Connection {
    version: Version,
    stream: TcpStream,
    inbound: BytesMut,
}

impl Connection {
    /// Connects and sends CONNECT; the answer comes by [`Connection::next`].
    pub(crate) async fn open(address: SocketAddr, login: &Login) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (version, inbound) = (login.version, BytesMut::new());
        let mut connection = Self {
            version,
            stream,
            inbound,
        };
        let client_id: Arc<str> = login.client_id.as_str().into();
        let username = Some(login.user.as_str().into());
        let password = Some(Bytes::copy_from_slice(login.token.as_bytes()));
        let bytes = match version {
            Version::V311 => {
                let clean_session = false;
                let connect = v3::Connect::new(client_id, 0);
                encode_v3(&v3::Packet::Connect(v3::Connect {
                    clean_session,
                    username,
                    password,
                    ..connect
                }))
            }
            Version::V5 => {
                let clean_start = false;
                let mut connect = v5::Connect::new(client_id, 0);
                connect.properties.session_expiry_interval = Some(SESSION_EXPIRY_SECONDS);
                encode_v5(&v5::Packet::Connect(v5::Connect {
                    clean_start,
                    username,
                    password,
                    ..connect
                }))
            }
        };
        connection.stream.write_all(&bytes).await?;
        Ok(connection)
    }

    /// The next packet. Nothing is lost if this is cancelled.
    pub(crate) async fn next(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(length) = packet_bytes(&self.inbound)
                && self.inbound.len() >= length
            {
                let packet = decode(self.version, &self.inbound[..length])?;
                self.inbound.advance(length);
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.inbound).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let topic = TopicFilter::try_from(filter).unwrap();
        let bytes = match self.version {
            Version::V311 => {
                let subscribe = v3::Subscribe::new(Pid::default(), vec![(topic, QoS::Level1)]);
                encode_v3(&v3::Packet::Subscribe(subscribe))
            }
            Version::V5 => {
                let options = v5::SubscriptionOptions::new(QoS::Level1);
                let subscribe = v5::Subscribe::new(Pid::default(), vec![(topic, options)]);
                encode_v5(&v5::Packet::Subscribe(subscribe))
            }
        };
        self.stream.write_all(&bytes).await
    }

    pub(crate) async fn publish(&mut self, publish: Publish<'_>) -> io::Result<()> {
        let Publish {
            packet_id,
            is_repeated: dup,
            topic,
            payload,
        } = publish;
        let qos = QosPid::Level1(Pid::try_from(packet_id).unwrap());
        let topic = TopicName::try_from(topic).unwrap();
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let bytes = match self.version {
            Version::V311 => {
                let publish = v3::Publish::new(qos, topic, payload);
                encode_v3(&v3::Packet::Publish(v3::Publish { dup, ..publish }))
            }
            Version::V5 => {
                let publish = v5::Publish::new(qos, topic, payload);
                encode_v5(&v5::Packet::Publish(v5::Publish { dup, ..publish }))
            }
        };
        self.stream.write_all(&bytes).await
    }

    /// Acknowledges deliveries, in the order given.
    pub(crate) async fn acknowledge(&mut self, packet_ids: &[u16]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(packet_ids.len() * 4);
        for &packet_id in packet_ids {
            let pid = Pid::try_from(packet_id).unwrap();
            bytes.extend(match self.version {
                Version::V311 => encode_v3(&v3::Packet::Puback(pid)),
                Version::V5 => {
                    let puback = v5::Puback::new(pid, v5::PubackReasonCode::Success);
                    encode_v5(&v5::Packet::Puback(puback))
                }
            });
        }
        self.stream.write_all(&bytes).await
    }

    /// Says goodbye and reads until the server has closed.
    pub(crate) async fn disconnect(mut self) -> io::Result<()> {
        let bytes = match self.version {
            Version::V311 => encode_v3(&v3::Packet::Disconnect),
            Version::V5 => {
                let goodbye = v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnect);
                encode_v5(&v5::Packet::Disconnect(goodbye))
            }
        };
        self.stream.write_all(&bytes).await?;
        while self.stream.read_buf(&mut self.inbound).await? > 0 {
            self.inbound.clear();
        }
        Ok(())
    }
}

fn encode_v3(packet: &v3::Packet) -> Vec<u8> {
    packet.encode().unwrap().as_ref().to_vec()
}

fn encode_v5(packet: &v5::Packet) -> Vec<u8> {
    packet.encode().unwrap().as_ref().to_vec()
}

/// The length of the packet that begins here, once enough of it is there to know.
fn packet_bytes(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (place, &byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(2 + place + remaining);
        }
    }
    None
}

fn decode(version: Version, bytes: &[u8]) -> io::Result<Packet> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let incomplete = || invalid("a packet ends early".to_owned());
    match version {
        Version::V311 => v3::Packet::decode(bytes)
            .map_err(|error| invalid(format!("{error:?}")))?
            .map(read_v3)
            .ok_or_else(incomplete),
        Version::V5 => v5::Packet::decode(bytes)
            .map_err(|error| invalid(format!("{error:?}")))?
            .map(read_v5)
            .ok_or_else(incomplete),
    }
}

fn read_v3(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::Connack(answer) => Packet::ConnAck {
            is_accepted: answer.code == v3::ConnectReturnCode::Accepted,
            has_session: answer.session_present,
            code: format!("{:?}", answer.code),
        },
        v3::Packet::Suback(_) => Packet::SubAck,
        v3::Packet::Puback(packet_id) => {
            let packet_id = packet_id.value();
            Packet::PubAck {
                packet_id,
                sequence: None,
                refused: None,
            }
        }
        v3::Packet::Publish(publish) => Packet::Publish {
            packet_id: publish.qos_pid.pid().map(Pid::value),
            topic: publish.topic_name.to_string(),
            payload: publish.payload,
        },
        other => Packet::Other(format!("{other:?}")),
    }
}

fn read_v5(packet: v5::Packet) -> Packet {
    match packet {
        v5::Packet::Connack(answer) => Packet::ConnAck {
            is_accepted: answer.reason_code == v5::ConnectReasonCode::Success,
            has_session: answer.session_present,
            code: format!("{:?}", answer.reason_code),
        },
        v5::Packet::Suback(_) => Packet::SubAck,
        v5::Packet::Puback(answer) => {
            let properties = &answer.properties;
            let seq = properties
                .user_properties
                .iter()
                .find(|property| &*property.name == "seq");
            let is_success = answer.reason_code == v5::PubackReasonCode::Success;
            Packet::PubAck {
                packet_id: answer.pid.value(),
                sequence: seq.and_then(|property| property.value.parse().ok()),
                refused: (!is_success)
                    .then(|| format!("{:?} {:?}", answer.reason_code, properties.reason_string)),
            }
        }
        v5::Packet::Publish(publish) => Packet::Publish {
            packet_id: publish.qos_pid.pid().map(Pid::value),
            topic: publish.topic_name.to_string(),
            payload: publish.payload,
        },
        other => Packet::Other(format!("{other:?}")),
    }
}
