//! One connection of one device.
//!
//! Nothing runs in the background: the connection lives while one of its methods is awaited.
//! [`Device::next`] can be cancelled; what has arrived is not lost.

use std::{collections::VecDeque, time::Duration};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event as Transport, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{
                ConnectProperties, Filter, Packet, PubAck, PubAckReason, Publish,
                SubscribeReasonCode,
            },
        },
    },
};

use super::{
    error::{DeviceError, spoken},
    message::{self, Entry, Event},
};
use crate::domain::{
    ids::{ConversationId, Subject},
    message::{Content, Sequence},
    topic::ME_DEVICE,
};

/// The largest packet a device takes; the server announces a larger message by a stub.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// Unacknowledged messages the server may have in flight to this device.
const RECEIVE_MAX: u16 = 64;
/// What may wait while an answer is awaited: the window above, and some receipts.
const ARRIVED_MAX: usize = 256;
/// Requests waiting to be written; each method waits for its own, so there is never more than one.
const REQUESTS_MAX: usize = 4;
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// How long a server may take to close after a DISCONNECT.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
const SEQUENCE_PROPERTY: &str = "seq";

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// `host:port` of the MQTT listener.
    pub mqtt: String,
    pub user: Subject,
    pub token: String,
    /// Names the session among those of the user.
    pub client_id: String,
    pub session: Session,
}

/// What the server keeps of a device that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Nothing, and what it had kept is dropped.
    Fresh,
    /// Subscriptions and cursors, for so long (the server may keep them shorter).
    Kept(Duration),
}

/// One connection of one device.
pub struct Device {
    client: AsyncClient,
    transport: EventLoop,
    arrived: VecDeque<Event>,
    /// Why the connection ended; rumqttc would open another one if it were polled again.
    ended: Option<DeviceError>,
    has_session: bool,
}

impl Device {
    /// Connects and waits for the server's answer.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]: nobody there, not now, or not with this token.
    pub async fn connect(options: &DeviceOptions) -> Result<Self, DeviceError> {
        let (client, mut transport) = AsyncClient::new(mqtt_options(options)?, REQUESTS_MAX);
        loop {
            match transport.poll().await {
                Ok(Transport::Incoming(Packet::ConnAck(answer))) => {
                    return Ok(Self {
                        client,
                        transport,
                        arrived: VecDeque::new(),
                        ended: None,
                        has_session: answer.session_present,
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(DeviceError::from_transport(error, Some(&options.mqtt)));
                }
            }
        }
    }

    /// Whether the server still had this device's session.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.has_session
    }

    /// Subscribes to the log of one conversation, or of all that the user takes part in,
    /// and to what concerns this device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Refused`] if the server does not grant it, or why the connection ended.
    pub async fn subscribe(
        &mut self,
        conversation: Option<ConversationId>,
    ) -> Result<(), DeviceError> {
        let log = conversation.map_or_else(
            || "c/+/messages".to_owned(),
            |id| format!("c/{id}/messages"),
        );
        let filters = [log, ME_DEVICE.to_owned()].map(|path| Filter::new(path, QoS::AtLeastOnce));
        self.client
            .subscribe_many(filters)
            .await
            .map_err(|_| self.gone())?;
        loop {
            if let Packet::SubAck(answer) = self.packet().await? {
                let refused = answer
                    .return_codes
                    .iter()
                    .find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                return refused.map_or(Ok(()), |code| {
                    Err(DeviceError::Refused {
                        reason: spoken(code),
                    })
                });
            }
        }
    }

    /// Publishes a message and waits until the server has committed it.
    ///
    /// Safe to repeat with the same [`Content::id`], on any connection. A cancelled call
    /// leaves its answer to the next one: give the connection up then.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unavailable`] if the server could not store it now, others if it is
    /// refused for good or the connection ended; then it may or may not be stored.
    pub async fn publish(
        &mut self,
        conversation: ConversationId,
        content: &Content,
    ) -> Result<Option<Sequence>, DeviceError> {
        let payload = message::content_json(content).map_err(|error| DeviceError::Refused {
            reason: format!("the body is not JSON: {error}"),
        })?;
        let topic = format!("c/{conversation}/send");
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .map_err(|_| self.gone())?;
        loop {
            if let Packet::PubAck(answer) = self.packet().await? {
                return read_puback(&answer);
            }
        }
    }

    /// Waits for what arrives next. Can be cancelled.
    ///
    /// # Errors
    ///
    /// Why the connection ended.
    pub async fn next(&mut self) -> Result<Event, DeviceError> {
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return Ok(event);
            }
            self.packet().await?;
        }
    }

    /// Tells the server that an entry need not be sent again: it has been shown or stored.
    ///
    /// # Errors
    ///
    /// Why the connection ended; the entry will arrive again.
    pub async fn acknowledge(&mut self, entry: &Entry) -> Result<(), DeviceError> {
        if entry.packet_id == 0 {
            return Ok(());
        }
        let publish = Publish {
            qos: QoS::AtLeastOnce,
            pkid: entry.packet_id,
            ..Publish::default()
        };
        self.client.ack(&publish).await.map_err(|_| self.gone())?;
        self.written(Outgoing::PubAck(entry.packet_id)).await
    }

    /// Says goodbye; the session stays as long as [`Session`] says.
    ///
    /// # Errors
    ///
    /// Why the connection ended before that.
    pub async fn disconnect(mut self) -> Result<(), DeviceError> {
        self.client.disconnect().await.map_err(|_| self.gone())?;
        self.written(Outgoing::Disconnect).await?;
        // A socket closed with unread data resets the connection, and the last
        // acknowledgements could be lost with it: read until the server closes.
        let closed = async { while self.poll().await.is_ok() {} };
        drop(tokio::time::timeout(GOODBYE_TIMEOUT, closed).await);
        Ok(())
    }

    /// Polls until `packet` has been handed to the socket.
    async fn written(&mut self, packet: Outgoing) -> Result<(), DeviceError> {
        loop {
            match self.poll().await? {
                Transport::Outgoing(written) if written == packet => return Ok(()),
                Transport::Outgoing(_) => {}
                Transport::Incoming(incoming) => self.keep(&incoming),
            }
        }
    }

    /// The next packet from the server; publishes are kept for [`Device::next`] as well.
    async fn packet(&mut self) -> Result<Packet, DeviceError> {
        loop {
            if let Transport::Incoming(packet) = self.poll().await? {
                self.keep(&packet);
                return Ok(packet);
            }
        }
    }

    async fn poll(&mut self) -> Result<Transport, DeviceError> {
        if self.ended.is_none() {
            match self.transport.poll().await {
                Ok(event) => return Ok(event),
                Err(error) => self.ended = Some(DeviceError::from_transport(error, None)),
            }
        }
        // What was read together with the end, a PUBACK before a DISCONNECT for example,
        // is still there.
        match self.transport.state.events.pop_front() {
            Some(event) => Ok(event),
            None => Err(self.gone()),
        }
    }

    fn gone(&self) -> DeviceError {
        self.ended
            .clone()
            .unwrap_or_else(|| DeviceError::from_transport(ConnectionError::RequestsDone, None))
    }

    /// Keeps a publish for [`Device::next`]. One that cannot be read is left unacknowledged,
    /// and the server's window shows it.
    fn keep(&mut self, packet: &Packet) {
        let Packet::Publish(publish) = packet else {
            return;
        };
        // Only what may be lost anyway can exceed the window: receipts, sent with QoS 0.
        if self.arrived.len() >= ARRIVED_MAX && publish.qos == QoS::AtMostOnce {
            return;
        }
        let Ok(topic) = std::str::from_utf8(&publish.topic) else {
            return;
        };
        if let Ok(event) = message::read(topic, publish.payload.clone(), publish.pkid) {
            self.arrived.push_back(event);
        }
    }
}

fn mqtt_options(options: &DeviceOptions) -> Result<MqttOptions, DeviceError> {
    let invalid = || DeviceError::Address(options.mqtt.clone());
    let (host, port) = options.mqtt.rsplit_once(':').ok_or_else(invalid)?;
    let port = port.parse().map_err(|_| invalid())?;
    if host.is_empty() {
        return Err(invalid());
    }
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(PACKET_BYTES_MAX);
    properties.receive_maximum = Some(RECEIVE_MAX);
    if let Session::Kept(expiry) = options.session {
        properties.session_expiry_interval =
            Some(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX - 1));
    }
    let mut mqtt = MqttOptions::new(&options.client_id, host, port);
    mqtt.set_credentials(options.user.as_str(), &options.token)
        .set_clean_start(options.session == Session::Fresh)
        .set_keep_alive(KEEP_ALIVE)
        .set_connect_properties(properties)
        .set_manual_acks(true);
    Ok(mqtt)
}

fn read_puback(answer: &PubAck) -> Result<Option<Sequence>, DeviceError> {
    let properties = answer.properties.as_ref();
    let reason = || {
        properties
            .and_then(|properties| properties.reason_string.clone())
            .unwrap_or_else(|| spoken(&answer.reason))
    };
    match answer.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
            let sequence = properties
                .and_then(|properties| {
                    properties
                        .user_properties
                        .iter()
                        .find(|(name, _)| name == SEQUENCE_PROPERTY)
                })
                .and_then(|(_, number)| number.parse().ok())
                .and_then(|number| Sequence::new(number).ok());
            Ok(sequence)
        }
        PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::QuotaExceeded => Err(DeviceError::Unavailable { reason: reason() }),
        PubAckReason::NotAuthorized => Err(DeviceError::Forbidden { reason: reason() }),
        _ => Err(DeviceError::Refused { reason: reason() }),
    }
}

#[cfg(test)]
mod tests;
