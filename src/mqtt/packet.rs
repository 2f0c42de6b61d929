//! The packets a server receives, the same for MQTT 3.1.1 and 5.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::reason::ReasonCode;
use crate::domain::format::WireFormat;

/// An MQTT packet identifier. Zero does not exist on the wire. [MQTT-2.2.1-3]
pub type PacketId = NonZeroU16;

/// Which MQTT a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, and 3.1, which differs only in its name.
    V311,
    V5,
}

/// Quality of service that devices can have: at most once, at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QoS {
    AtMostOnce,
    AtLeastOnce,
}

/// A packet from a client.
#[derive(Debug)]
pub enum Packet {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck {
        packet_id: PacketId,
    },
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingReq,
    Disconnect {
        reason: ReasonCode,
        session_expiry_seconds: Option<u32>,
    },
}

/// The first packet of a connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of the packet"
)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    /// Clean Session in MQTT 3.1.1, Clean Start in MQTT 5.
    pub clean_start: bool,
    /// Seconds; 0 switches it off.
    pub keep_alive_seconds: u16,
    pub user_name: Option<String>,
    /// The token. Never logged.
    pub password: Option<Bytes>,
    /// How long the session outlives the connection; `u32::MAX` is for ever.
    pub session_expiry_seconds: u32,
    /// Unacknowledged QoS 1 messages the client takes.
    pub receive_max: NonZeroU16,
    /// The largest packet the client takes, in bytes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// Topic aliases the client takes.
    pub topic_alias_max: u16,
    /// Whether acknowledgements may carry reason strings and user properties.
    pub wants_problem_information: bool,
    pub has_will: bool,
    pub has_authentication_method: bool,
    /// The format of payloads that the user property `format` names, if it names one.
    pub format: Option<WireFormat>,
    /// Whether there is such a property.
    pub asks_for_format: bool,
}

/// A message on its way to the server.
#[derive(Debug)]
pub struct Publish {
    /// Present with QoS 1.
    pub packet_id: Option<PacketId>,
    /// Empty if a topic alias stands for it.
    pub topic: String,
    pub topic_alias: Option<u16>,
    pub payload: Bytes,
    /// The sender says that the payload is text: Payload Format Indicator, or Content Type JSON.
    pub is_text: bool,
    pub is_retained: bool,
    /// Only a request has it. Boxed: nearly no publish is one.
    pub reply_to: Option<Box<ReplyTo>>,
}

/// Where and under what name a client wants its answer. [MQTT 5, 4.10]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyTo {
    /// The Response Topic.
    pub topic: Option<String>,
    pub correlation_data: Option<Bytes>,
}

/// What a client wants to receive.
#[derive(Debug)]
pub struct Subscribe {
    pub packet_id: PacketId,
    /// The Subscription Identifier.
    pub identifier: Option<NonZeroU32>,
    pub requests: Vec<SubscribeRequest>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug)]
pub struct SubscribeRequest {
    pub filter: String,
    pub qos: QoS,
    /// Do not send back what this client published.
    pub no_local: bool,
}

/// What a client no longer wants to receive.
#[derive(Debug)]
pub struct Unsubscribe {
    pub packet_id: PacketId,
    pub filters: Vec<String>,
}
