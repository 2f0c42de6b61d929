//! A device against a server that plays a script: what comes in which order, and in which
//! segment, decides these cases.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Disconnect, DisconnectReasonCode, PubAckProperties, SubAck,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::domain::envelope::ContentLimits;

const CONVERSATION: &str = "AZjzwgAAcACAAAAAAAAAAQ";

fn options(mqtt: &str) -> DeviceOptions {
    DeviceOptions {
        mqtt: mqtt.to_owned(),
        user: Subject::new("alice").unwrap(),
        token: "t".to_owned(),
        client_id: "phone".to_owned(),
        session: Session::Kept(Duration::from_hours(1)),
    }
}

/// The server's side of one connection.
struct Peer {
    socket: TcpStream,
    received: BytesMut,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = listener.accept().await.unwrap();
        let mut peer = Self {
            socket,
            received: BytesMut::new(),
        };
        assert!(matches!(peer.receive().await, Packet::Connect(..)));
        peer
    }

    async fn receive(&mut self) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(&mut self.received, None) {
                return packet;
            }
            assert_ne!(self.socket.read_buf(&mut self.received).await.unwrap(), 0);
        }
    }

    /// rumqttc writes the shortest DISCONNECT, but does not read it.
    async fn receive_goodbye(&mut self) {
        while self.received.len() < 2 {
            assert_ne!(self.socket.read_buf(&mut self.received).await.unwrap(), 0);
        }
        assert_eq!(self.received[..], [0xe0, 0x00]);
    }

    /// Sends all of them in one segment.
    async fn send(&mut self, packets: Vec<Packet>) {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, None).unwrap();
        }
        self.socket.write_all(&bytes).await.unwrap();
    }
}

fn connack(code: ConnectReturnCode) -> Packet {
    Packet::ConnAck(ConnAck {
        session_present: true,
        code,
        properties: None,
    })
}

fn puback(packet_id: u16, sequence: i64) -> Packet {
    let properties = PubAckProperties {
        reason_string: None,
        user_properties: vec![(SEQUENCE_PROPERTY.to_owned(), sequence.to_string())],
    };
    Packet::PubAck(PubAck::new(packet_id, Some(properties)))
}

fn entry(packet_id: u16, sequence: i64) -> Packet {
    let payload =
        format!(r#"{{"seq":{sequence},"id":"1","from":"bob","at":1,"type":"text","body":"hi"}}"#);
    let topic = format!("c/{CONVERSATION}/messages");
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
    publish.pkid = packet_id;
    Packet::Publish(publish)
}

fn shutting_down() -> Packet {
    Packet::Disconnect(Disconnect::new(DisconnectReasonCode::ServerShuttingDown))
}

fn content() -> Content {
    let limits = ContentLimits {
        bytes_max: 1024,
        mentions_max: 0,
        attachments_max: 0,
    };
    Content::from_json(br#"{"id":"1","body":"hi"}"#, limits).unwrap()
}

/// Runs a device against a script that begins after the CONNECT; whatever happens, there is
/// no second connection.
async fn with_peer<T>(
    script: impl AsyncFnOnce(Peer),
    device: impl AsyncFnOnce(DeviceOptions) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options(&listener.local_addr().unwrap().to_string());
    let server = async { script(Peer::accept(&listener).await).await };
    let ((), outcome) = tokio::join!(server, device(options));
    let second = listener.into_std().unwrap().accept();
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    outcome
}

#[tokio::test]
async fn a_puback_counts_although_the_connection_ends_with_it() {
    let script = async |mut peer: Peer| {
        peer.send(vec![connack(ConnectReturnCode::Success)]).await;
        let Packet::Publish(publish) = peer.receive().await else {
            panic!("no publish")
        };
        peer.send(vec![puback(publish.pkid, 42), shutting_down()])
            .await;
    };
    let (published, next) = with_peer(script, async |options: DeviceOptions| {
        let mut device = Device::connect(&options).await.unwrap();
        let conversation = CONVERSATION.parse().unwrap();
        (
            device.publish(conversation, &content()).await,
            device.next().await,
        )
    })
    .await;
    assert_eq!(published.unwrap().map(Sequence::get), Some(42));
    assert!(matches!(next, Err(DeviceError::Lost { .. })), "{next:?}");
}

#[tokio::test]
async fn a_message_that_comes_before_the_puback_is_kept_and_acknowledged_when_asked() {
    let script = async |mut peer: Peer| {
        peer.send(vec![connack(ConnectReturnCode::Success)]).await;
        let Packet::Publish(publish) = peer.receive().await else {
            panic!("no publish")
        };
        peer.send(vec![entry(7, 1), puback(publish.pkid, 2), entry(8, 2)])
            .await;
        for packet_id in [7, 8] {
            let Packet::PubAck(answer) = peer.receive().await else {
                panic!("no PUBACK")
            };
            assert_eq!(answer.pkid, packet_id);
        }
        peer.receive_goodbye().await;
    };
    with_peer(script, async |options: DeviceOptions| {
        let mut device = Device::connect(&options).await.unwrap();
        assert!(device.has_session());
        device
            .publish(CONVERSATION.parse().unwrap(), &content())
            .await
            .unwrap();
        for sequence in [1, 2] {
            let Event::Entry(entry) = device.next().await.unwrap() else {
                panic!("no entry")
            };
            assert_eq!(entry.position.sequence.get(), sequence);
            device.acknowledge(&entry).await.unwrap();
        }
        device.disconnect().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_device_that_is_over_does_not_connect_again() {
    let script = async |mut peer: Peer| {
        peer.send(vec![
            connack(ConnectReturnCode::Success),
            entry(7, 1),
            shutting_down(),
        ])
        .await;
    };
    with_peer(script, async |options: DeviceOptions| {
        let mut device = Device::connect(&options).await.unwrap();
        let Event::Entry(entry) = device.next().await.unwrap() else {
            panic!("no entry")
        };
        for _ in 0..2 {
            let lost = device.next().await;
            assert!(matches!(lost, Err(DeviceError::Lost { .. })), "{lost:?}");
        }
        device.acknowledge(&entry).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn a_filter_that_is_not_granted_is_an_error() {
    let script = async |mut peer: Peer| {
        peer.send(vec![connack(ConnectReturnCode::Success)]).await;
        let Packet::Subscribe(subscribe) = peer.receive().await else {
            panic!("no SUBSCRIBE")
        };
        let return_codes = vec![
            SubscribeReasonCode::NotAuthorized,
            SubscribeReasonCode::Success(QoS::AtLeastOnce),
        ];
        let answer = SubAck {
            pkid: subscribe.pkid,
            return_codes,
            properties: None,
        };
        peer.send(vec![Packet::SubAck(answer)]).await;
    };
    let subscribed = with_peer(script, async |options: DeviceOptions| {
        Device::connect(&options)
            .await
            .unwrap()
            .subscribe(None)
            .await
    })
    .await;
    assert_eq!(
        subscribed,
        Err(DeviceError::Refused {
            reason: "not authorized".to_owned()
        })
    );
}

#[tokio::test]
async fn a_refused_connect_says_why_and_a_bare_close_says_nobody() {
    let refuse = async |mut peer: Peer| {
        peer.send(vec![connack(ConnectReturnCode::BadUserNamePassword)])
            .await;
    };
    let connect = async |options: DeviceOptions| Device::connect(&options).await.err();
    let refused = with_peer(refuse, connect).await;
    assert!(
        matches!(refused, Some(DeviceError::Unauthorized { .. })),
        "{refused:?}"
    );
    let close = async |peer: Peer| drop(peer);
    let connect = async |options: DeviceOptions| Device::connect(&options).await.err();
    let closed = with_peer(close, connect).await;
    assert!(
        matches!(closed, Some(DeviceError::Unreachable { .. })),
        "{closed:?}"
    );
}

#[test]
fn an_address_is_a_host_and_a_port() {
    for address in ["127.0.0.1:1883", "[::1]:1883", "broker.example:8000"] {
        assert!(mqtt_options(&options(address)).is_ok(), "{address}");
    }
    for address in ["", "127.0.0.1", ":1883", "host:port", "host:99999"] {
        let error = mqtt_options(&options(address)).unwrap_err();
        assert_eq!(error, DeviceError::Address(address.to_owned()));
    }
}

#[test]
fn a_refusal_is_final_and_an_outage_is_not() {
    let answer = |reason| PubAck {
        reason,
        ..PubAck::new(1, None)
    };
    let refused = read_puback(&answer(PubAckReason::NotAuthorized)).unwrap_err();
    assert_eq!(
        refused,
        DeviceError::Forbidden {
            reason: "not authorized".to_owned()
        }
    );
    let outage = read_puback(&answer(PubAckReason::UnspecifiedError)).unwrap_err();
    assert!(outage.is_transient());
    assert_eq!(read_puback(&PubAck::new(1, None)), Ok(None));
}
