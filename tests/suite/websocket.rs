//! MQTT over WebSocket, at `/mqtt` of the HTTP port.

use futures_util::{SinkExt as _, StreamExt as _};
use homing::store::MIGRATOR;
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::HeaderValue},
};

use crate::harness::{TestBroker, frame, within};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(broker: &TestBroker, subprotocol: Option<&'static str>) -> Result<Socket, Error> {
    let url = format!("ws://{}/mqtt", broker.http());
    let mut request = url.into_client_request().unwrap();
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::from_static(subprotocol);
        request
            .headers_mut()
            .insert("sec-websocket-protocol", value);
    }
    connect_async(request).await.map(|(socket, _)| socket)
}

/// The bytes of the next frame that carries some; none if the server closes.
async fn receive(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match within("a frame", socket.next()).await {
            Some(Ok(Message::Binary(bytes))) => return Some(bytes.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return None,
        }
    }
}

/// Goal: frames and packets need not match: packets cut into bytes, several in one frame.
#[sqlx::test(migrator = "MIGRATOR")]
async fn packets_travel_in_any_frames(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut socket = open(&broker, Some("mqtt")).await.unwrap();
    for byte in broker.v5("alice", "browser").bytes() {
        socket.send(Message::binary(vec![byte])).await.unwrap();
    }
    assert_eq!(receive(&mut socket).await.unwrap()[0], 0x20);
    let subscribe = [&[0, 1, 0, 0, 3][..], b"c/#", &[1]].concat();
    let both = [frame(0x82, &subscribe), frame(0xc0, &[])].concat();
    socket.send(Message::binary(both)).await.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < 8 {
        bytes.extend(receive(&mut socket).await.unwrap());
    }
    bytes.sort_unstable();
    let mut expected = vec![0x90, 4, 0, 1, 0, 1, 0xd0, 0];
    expected.sort_unstable();
    assert_eq!(bytes, expected);

    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut sender = broker.device("bob", "phone").await;
    sender.say(&conversation, "to a browser").await;
    let delivery = receive(&mut socket).await.unwrap();
    assert!(String::from_utf8_lossy(&delivery).contains("to a browser"));
    broker.stop().await;
    assert_eq!(receive(&mut socket).await.unwrap()[0], 0xe0);
    assert_eq!(receive(&mut socket).await, None);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_websocket_without_the_subprotocol_is_refused(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    for subprotocol in [None, Some("chat")] {
        match open(&broker, subprotocol).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 400),
            other => panic!("{other:?}"),
        }
    }
    broker.stop().await;
}

/// [MQTT-6.0.0-1]
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_text_frame_ends_the_connection(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    for connects_first in [false, true] {
        let mut socket = open(&broker, Some("mqtt")).await.unwrap();
        if connects_first {
            let connect = broker.v5("alice", "browser").bytes();
            socket.send(Message::binary(connect)).await.unwrap();
            assert_eq!(receive(&mut socket).await.unwrap()[0], 0x20);
        }
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(receive(&mut socket).await, None);
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_websocket_counts_as_a_connection(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("mqtt.connections_max", "1")]).await;
    let mut socket = open(&broker, Some("mqtt")).await.unwrap();
    match open(&broker, Some("mqtt")).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 503),
        other => panic!("{other:?}"),
    }
    socket
        .send(Message::binary(broker.v5("alice", "browser").bytes()))
        .await
        .unwrap();
    assert_eq!(receive(&mut socket).await.unwrap()[0], 0x20);
    broker.stop().await;
}
