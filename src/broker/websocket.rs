//! MQTT over WebSocket, at `/mqtt` of the HTTP port. [MQTT 5, section 6]

use std::io;

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::Broker;

/// The subprotocol that a client must offer. [MQTT-6.0.0-3]
const SUBPROTOCOL: &str = "mqtt";

/// The route that upgrades to MQTT.
pub fn router(broker: Broker) -> Router {
    Router::new()
        .route("/mqtt", get(upgrade))
        .with_state(broker)
}

async fn upgrade(State(broker): State<Broker>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade
        .max_message_size(broker.0.config.packet_bytes_max as usize * 2)
        .protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let why = "offer the WebSocket subprotocol `mqtt`";
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let Some(permit) = broker.permit() else {
        broker.count_limited();
        return (StatusCode::SERVICE_UNAVAILABLE, "too many connections").into_response();
    };
    upgrade.on_upgrade(move |socket| serve(broker, socket, permit))
}

/// Control packets and frames need not match: the frames are one stream of bytes.
/// [MQTT-6.0.0-2]
async fn serve(broker: Broker, socket: WebSocket, permit: OwnedSemaphorePermit) {
    let (sink, stream) = socket.split();
    let bytes = stream
        .take_while(|frame| std::future::ready(!matches!(frame, Ok(Message::Close(_)))))
        .filter_map(|frame| {
            std::future::ready(match frame {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                // [MQTT-6.0.0-1]
                Ok(Message::Text(_)) => Some(Err(io::Error::from(io::ErrorKind::InvalidData))),
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            })
        });
    let sink = sink
        .with(|bytes: Bytes| std::future::ready(Ok::<_, axum::Error>(Message::Binary(bytes))))
        .sink_map_err(io::Error::other);
    let reader = StreamReader::new(Box::pin(bytes));
    let writer = SinkWriter::new(CopyToBytes::new(Box::pin(sink)));
    let stream = tokio::io::join(reader, writer);
    let tasks = broker.0.tasks.clone();
    // On the tracker, so that a stop waits for its farewell.
    drop(tasks.spawn(broker.serve(stream, permit)).await);
}
