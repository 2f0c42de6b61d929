//! One connection of a device.

use std::{future::Future, net::SocketAddr};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    DEADLINE,
    connect::{Connect, frame, text},
    received::{self, ConnAck, Delivery, PubAck, Received},
};

/// Waits for something that must come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// Looks again and again until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection: bytes out, packets in.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    inbound: Vec<u8>,
    is_v5: bool,
    packet_id: u16,
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            inbound: Vec::new(),
            is_v5: true,
            packet_id: 0,
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within("room to write", self.stream.write_all(bytes))
            .await
            .unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends bytes to a server that may have closed already.
    pub(crate) async fn send_anyway(&mut self, bytes: &[u8]) {
        drop(within("room to write", self.stream.write_all(bytes)).await);
    }

    /// The next packet, or the end of the connection.
    pub(crate) async fn receive(&mut self) -> Received {
        within("a packet", self.next()).await
    }

    async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = received::take(&mut self.inbound, self.is_v5) {
                return received;
            }
            match self.stream.read_buf(&mut self.inbound).await {
                Ok(0) | Err(_) => return Received::Closed,
                Ok(_) => {}
            }
        }
    }

    /// Reads MQTT 3.1.1 from now on.
    pub(crate) fn expect_v3(&mut self) {
        self.is_v5 = false;
    }

    /// Sends a CONNECT; answers what the server thinks of it.
    pub(crate) async fn connect(&mut self, connect: Connect) -> ConnAck {
        self.is_v5 = connect.is_v5();
        self.send(&connect.bytes()).await;
        match self.receive().await {
            Received::ConnAck(connack) => connack,
            other => panic!("{other:?} in place of CONNACK"),
        }
    }

    /// Says good-bye and waits until the server has closed: its session is stored then, or
    /// the next CONNECT of this device waits until it is.
    pub(crate) async fn disconnect(mut self) {
        self.send(&[0xe0, 0]).await;
        self.assert_closed().await;
    }

    pub(crate) async fn assert_closed(&mut self) {
        loop {
            match self.receive().await {
                Received::Closed => return,
                Received::Publish(_) => {}
                other => panic!("{other:?} in place of the end"),
            }
        }
    }

    /// The server says why it closes, and closes.
    pub(crate) async fn assert_disconnected(&mut self, code: u8) {
        loop {
            match self.receive().await {
                Received::Disconnect { code: said, why } => {
                    assert_eq!(said, code, "{why}");
                    assert_eq!(self.receive().await, Received::Closed);
                    return;
                }
                Received::Publish(_) => {}
                other => panic!("{other:?} in place of DISCONNECT"),
            }
        }
    }

    /// Subscribes with QoS 1; answers the codes.
    pub(crate) async fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let requests: Vec<_> = filters.iter().map(|&filter| (filter, 1)).collect();
        self.subscribe_with(&requests, &[]).await
    }

    /// Subscribes with these options for each filter, and properties of MQTT 5.
    pub(crate) async fn subscribe_with(
        &mut self,
        requests: &[(&str, u8)],
        properties: &[u8],
    ) -> Vec<u8> {
        let sent = self.send_subscribe(requests, properties).await;
        match self.receive().await {
            Received::SubAck { packet_id, codes } => {
                assert_eq!(packet_id, sent);
                codes
            }
            other => panic!("{other:?} in place of SUBACK"),
        }
    }

    pub(crate) async fn send_subscribe(
        &mut self,
        requests: &[(&str, u8)],
        properties: &[u8],
    ) -> u16 {
        let packet_id = self.fresh_packet_id();
        let mut body = packet_id.to_be_bytes().to_vec();
        if self.is_v5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend(properties);
        }
        for (filter, options) in requests {
            body.extend(text(filter));
            body.push(*options);
        }
        self.send(&frame(0x82, &body)).await;
        packet_id
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let sent = self.fresh_packet_id();
        let mut body = sent.to_be_bytes().to_vec();
        body.extend(self.is_v5.then_some(0));
        body.extend(text(filter));
        self.send(&frame(0xa2, &body)).await;
        match self.receive().await {
            Received::UnsubAck { packet_id, codes } => {
                assert_eq!(packet_id, sent);
                codes
            }
            other => panic!("{other:?} in place of UNSUBACK"),
        }
    }

    fn fresh_packet_id(&mut self) -> u16 {
        self.packet_id += 1;
        self.packet_id
    }

    /// Publishes with QoS 1 and does not wait; answers the packet id.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let packet_id = self.fresh_packet_id();
        self.publish_as(packet_id, topic, payload).await;
        packet_id
    }

    pub(crate) async fn publish_as(&mut self, packet_id: u16, topic: &str, payload: &[u8]) {
        let packet = self.publish_packet(0x32, packet_id, topic, &[], payload);
        self.send(&packet).await;
    }

    /// A PUBLISH; without a packet id if it is 0 and the QoS is 0.
    pub(crate) fn publish_packet(
        &self,
        first_byte: u8,
        packet_id: u16,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        publish(
            self.is_v5, first_byte, packet_id, topic, properties, payload,
        )
    }

    /// A PUBLISH of MQTT 5.
    pub(crate) fn publish_v5(
        first_byte: u8,
        packet_id: u16,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        publish(true, first_byte, packet_id, topic, properties, payload)
    }

    /// The next packet, which must be a PUBACK.
    pub(crate) async fn puback(&mut self) -> PubAck {
        match self.receive().await {
            Received::PubAck(puback) => puback,
            other => panic!("{other:?} in place of PUBACK"),
        }
    }

    /// Publishes and waits for the answer.
    pub(crate) async fn ask(&mut self, topic: &str, payload: &[u8]) -> PubAck {
        let packet_id = self.publish(topic, payload).await;
        let puback = self.puback().await;
        assert_eq!(puback.packet_id, packet_id);
        puback
    }

    /// Publishes what is refused, with MQTT 3.1.1: what is said on `me/device` comes first, so that
    /// whoever has the PUBACK knows.
    pub(crate) async fn ask_refused(&mut self, topic: &str, payload: &[u8]) -> Delivery {
        let packet_id = self.publish(topic, payload).await;
        let told = self.delivery().await;
        assert_eq!((told.topic.as_str(), told.packet_id), ("me/device", 0));
        let puback = self.puback().await;
        assert_eq!((puback.packet_id, puback.code), (packet_id, 0));
        told
    }

    /// Says something in a conversation without waiting; answers the packet id.
    pub(crate) async fn begin_say(&mut self, conversation: &str, id: &str) -> u16 {
        let payload = json!({"id": id, "body": format!("{id} says hello")}).to_string();
        self.publish(&format!("c/{conversation}/send"), payload.as_bytes())
            .await
    }

    /// Says something in a conversation; answers its sequence. MQTT 5 only.
    pub(crate) async fn say(&mut self, conversation: &str, id: &str) -> i64 {
        let packet_id = self.begin_say(conversation, id).await;
        let puback = self.puback().await;
        assert_eq!(
            (puback.packet_id, puback.code),
            (packet_id, 0),
            "{puback:?}"
        );
        puback.properties.user("seq").unwrap().parse().unwrap()
    }

    /// The next packet, which must be a PUBLISH.
    pub(crate) async fn delivery(&mut self) -> Delivery {
        match self.receive().await {
            Received::Publish(delivery) => delivery,
            other => panic!("{other:?} in place of PUBLISH"),
        }
    }

    /// The next delivery on this kind of topic, as `messages` or `receipts`.
    pub(crate) async fn delivery_of(&mut self, leaf: &str) -> Delivery {
        loop {
            let delivery = self.delivery().await;
            if delivery.topic.ends_with(leaf) {
                return delivery;
            }
        }
    }

    /// Receives and acknowledges messages until this sequence; answers the ids, which came
    /// without a gap.
    pub(crate) async fn drain(&mut self, from: i64, to: i64) -> Vec<String> {
        let mut ids = Vec::new();
        for seq in from..=to {
            let delivery = self.delivery_of("/messages").await;
            assert_eq!(delivery.seq(), seq);
            self.acknowledge(delivery.packet_id).await;
            ids.push(delivery.id());
        }
        ids
    }

    pub(crate) async fn acknowledge(&mut self, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        self.send(&[0x40, 2, high, low]).await;
    }

    /// All bytes until the server closes, whatever they are.
    pub(crate) async fn raw(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        drop(within("the end", self.stream.read_to_end(&mut bytes)).await);
        bytes
    }

    /// Nothing waits for this device: the answer to a ping comes next. The server has taken
    /// all that was sent before.
    pub(crate) async fn assert_quiet(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.receive().await, Received::PingResp);
    }
}

fn publish(
    is_v5: bool,
    first_byte: u8,
    packet_id: u16,
    topic: &str,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = text(topic);
    if first_byte & 0b110 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    if is_v5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(payload);
    frame(first_byte, &body)
}
