//! What can go wrong between a device and the server, by what the device can do about it.

use rumqttc::v5::{
    ConnectionError, StateError,
    mqttbytes::{
        Error as PacketError,
        v5::{ConnectReturnCode, DisconnectReasonCode},
    },
};

/// Why a connection, a publish or a subscription came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not `host:port`.
    #[error("`{0}` is no address of an MQTT server; write host:port, as in 127.0.0.1:1883")]
    Address(String),
    /// Nobody answers there.
    #[error("no MQTT server answers at {address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// The server is there and does not want to serve now.
    #[error("the server cannot serve now: {reason}")]
    Unavailable { reason: String },
    /// The user or the token is not believed, or the token has expired.
    #[error("the server does not accept the token: {reason}")]
    Unauthorized { reason: String },
    /// This user may not do this there.
    #[error("the server does not allow it: {reason}")]
    Forbidden { reason: String },
    /// The server refused for good; repeating changes nothing.
    #[error("the server refused: {reason}")]
    Refused { reason: String },
    /// Another connection uses the same client id.
    #[error("another connection of this user took over the session of this client id")]
    TakenOver,
    /// The connection was there and is gone.
    #[error("the connection was lost: {reason}")]
    Lost { reason: String },
    /// The server sent what a client must not accept.
    #[error("the server broke the protocol: {reason}")]
    Protocol { reason: String },
}

impl DeviceError {
    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Lost { .. }
        )
    }

    /// Reads a failure of the transport. Before the CONNACK, silence means that nobody is
    /// there; afterwards, that the connection was lost.
    pub(super) fn from_transport(error: ConnectionError, unconnected: Option<&str>) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code)
            | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
                Self::from_connack(code)
            }
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code,
                reason_string,
            }) => Self::from_disconnect(reason_code, reason_string),
            ConnectionError::MqttState(StateError::OutgoingPacketTooLarge { pkt_size, max }) => {
                let reason =
                    format!("the packet has {pkt_size} bytes, the server takes {max} at most");
                Self::Refused { reason }
            }
            ConnectionError::Io(error)
            | ConnectionError::MqttState(
                StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)),
            ) => Self::silence(unconnected, error.to_string()),
            // The shortest DISCONNECT, which rumqttc does not read.
            ConnectionError::MqttState(StateError::Deserialization(
                PacketError::PayloadRequired,
            )) => Self::silence(unconnected, "it ended the connection".to_owned()),
            ConnectionError::Timeout(_) => Self::silence(unconnected, "no answer".to_owned()),
            ConnectionError::MqttState(StateError::ConnectionAborted) => {
                Self::silence(unconnected, "it closed the connection".to_owned())
            }
            ConnectionError::MqttState(
                StateError::AwaitPingResp | StateError::CollisionTimeout,
            )
            | ConnectionError::RequestsDone => {
                Self::silence(unconnected, "it does not answer any more".to_owned())
            }
            other => Self::Protocol {
                reason: other.to_string(),
            },
        }
    }

    fn silence(unconnected: Option<&str>, reason: String) -> Self {
        match unconnected {
            Some(address) => Self::Unreachable {
                address: address.to_owned(),
                reason,
            },
            None => Self::Lost { reason },
        }
    }

    fn from_connack(code: ConnectReturnCode) -> Self {
        use ConnectReturnCode as Code;
        let reason = match code {
            Code::BadUserNamePassword => "malformed, expired, or not signed by its keys".to_owned(),
            _ => spoken(&code),
        };
        match code {
            Code::ServerUnavailable
            | Code::ServiceUnavailable
            | Code::ServerBusy
            | Code::ConnectionRateExceeded
            | Code::UseAnotherServer => Self::Unavailable { reason },
            Code::BadUserNamePassword
            | Code::NotAuthorized
            | Code::BadAuthenticationMethod
            | Code::Banned => Self::Unauthorized { reason },
            _ => Self::Refused { reason },
        }
    }

    fn from_disconnect(code: DisconnectReasonCode, text: Option<String>) -> Self {
        use DisconnectReasonCode as Code;
        let reason = text.unwrap_or_else(|| spoken(&code));
        match code {
            Code::SessionTakenOver => Self::TakenOver,
            Code::NotAuthorized | Code::MaximumConnectTime => Self::Unauthorized { reason },
            Code::NormalDisconnection
            | Code::UnspecifiedError
            | Code::ImplementationSpecificError
            | Code::ServerBusy
            | Code::ServerShuttingDown
            | Code::KeepAliveTimeout
            | Code::MessageRateTooHigh
            | Code::AdministrativeAction
            | Code::UseAnotherServer
            | Code::ConnectionRateExceeded => Self::Lost { reason },
            _ => Self::Refused { reason },
        }
    }
}

/// `BadUserNamePassword` as words.
pub(super) fn spoken(code: &impl std::fmt::Debug) -> String {
    let name = format!("{code:?}");
    let mut words = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_unreachable_before_the_connack_and_lost_after_it() {
        let aborted = || ConnectionError::MqttState(StateError::ConnectionAborted);
        let before = DeviceError::from_transport(aborted(), Some("127.0.0.1:1"));
        assert!(matches!(before, DeviceError::Unreachable { .. }));
        let after = DeviceError::from_transport(aborted(), None);
        assert!(matches!(after, DeviceError::Lost { .. }));
        assert!(before.is_transient() && after.is_transient());
    }

    #[test]
    fn a_refused_token_is_not_tried_again() {
        let refused = ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword);
        let error = DeviceError::from_transport(refused, Some("127.0.0.1:1"));
        assert!(!error.is_transient());
        assert!(error.to_string().contains("expired"), "{error}");
    }

    #[test]
    fn a_busy_server_is_tried_again_and_a_takeover_is_not() {
        let busy = ConnectionError::ConnectionRefused(ConnectReturnCode::ServerBusy);
        assert!(DeviceError::from_transport(busy, Some("127.0.0.1:1")).is_transient());
        let taken = StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            reason_string: None,
        };
        let error = DeviceError::from_transport(ConnectionError::MqttState(taken), None);
        assert_eq!(error, DeviceError::TakenOver);
        assert!(!error.is_transient());
    }
}
