//! Messages of every kind, and what is said about them later: over MQTT and REST alike.

mod changes;
mod contents;
mod expiry;
mod outgoing;
mod refusals;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{TestBroker, Wire};

/// Publishes to a conversation; answers the sequence.
async fn send(wire: &mut Wire, conversation: &str, message: &Value) -> i64 {
    let topic = format!("c/{conversation}/send");
    let puback = wire.ask(&topic, message.to_string().as_bytes()).await;
    assert_eq!(puback.code, 0, "{message}: {puback:?}");
    puback.properties.user("seq").unwrap().parse().unwrap()
}

/// Posts over REST: the status and the body.
async fn post(
    broker: &TestBroker,
    user: &str,
    conversation: &str,
    message: &Value,
) -> (u16, Value) {
    let path = format!("/{conversation}/messages");
    let (status, body) = broker
        .rest(Method::POST, user, &path, Some(message.clone()))
        .await;
    (status.as_u16(), body)
}

/// The log as a user may see it.
async fn entries(broker: &TestBroker, user: &str, conversation: &str) -> Vec<Value> {
    let path = format!("/{conversation}/messages?after=0&limit=200");
    let (_, body) = broker.rest(Method::GET, user, &path, None).await;
    body["entries"]
        .as_array()
        .unwrap_or_else(|| panic!("{body}"))
        .clone()
}

fn text(id: &str, body: &str) -> Value {
    json!({"id": id, "body": body})
}

fn edit(id: &str, target: i64, body: &str) -> Value {
    json!({"id": id, "type": "edit", "ref": target, "body": body})
}

fn retract(id: &str, target: i64) -> Value {
    json!({"id": id, "type": "retract", "ref": target})
}

fn reaction(id: &str, target: i64, key: &str) -> Value {
    json!({"id": id, "type": "reaction", "ref": target, "body": {"key": key}})
}

/// Without what the server adds.
fn as_sent(mut entry: Value) -> Value {
    for member in ["seq", "from", "at"] {
        entry.as_object_mut().unwrap().remove(member);
    }
    entry
}
