//! The inbox: what a user sees of all conversations at once.

mod erased;
mod large;
mod pages;
mod patches;
mod refusals;
mod rows;
mod settings;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::TestBroker;

/// A page of an inbox; `query` begins with `?`, or is empty.
async fn page(broker: &TestBroker, user: &str, query: &str) -> Value {
    let path = format!("/v1/inbox{query}");
    let (status, body) = broker.request(Method::GET, user, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body
}

/// The ids on a page, in order.
fn ids(page: &Value) -> Vec<&str> {
    let rows = page["conversations"].as_array().unwrap();
    rows.iter()
        .map(|row| row["conversation"].as_str().unwrap())
        .collect()
}

/// The row of one conversation.
async fn row(broker: &TestBroker, user: &str, conversation: &str) -> Value {
    let path = format!("/{conversation}/inbox");
    let (status, body) = broker.rest(Method::GET, user, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

/// Sends a message over REST; answers its sequence.
async fn post(broker: &TestBroker, user: &str, conversation: &str, message: &Value) -> i64 {
    let path = format!("/{conversation}/messages");
    let (status, body) = broker
        .rest(Method::POST, user, &path, Some(message.clone()))
        .await;
    assert!(status.is_success(), "{message}: {body}");
    body["seq"].as_i64().unwrap()
}

async fn say(broker: &TestBroker, user: &str, conversation: &str, id: &str) -> i64 {
    let message = json!({"id": id, "body": format!("this is {id}")});
    post(broker, user, conversation, &message).await
}

/// Changes what the user has set; answers the row.
async fn set(broker: &TestBroker, user: &str, conversation: &str, change: Value) -> Value {
    let path = format!("/{conversation}/inbox");
    let (status, body) = broker.rest(Method::PATCH, user, &path, Some(change)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}
