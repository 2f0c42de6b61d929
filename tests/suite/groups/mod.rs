//! Groups and the direct conversations of two: who may what, and from which sequence on.

mod blocks;
mod concurrency;
mod direct;
mod history;
mod large;
mod roles;
mod roster;
mod settings;
mod silence;
mod transfer;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::TestBroker;

/// What a request was answered with.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    /// The sequence of the entry that says what changed.
    #[track_caller]
    fn seq(&self) -> i64 {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["seq"].as_i64().unwrap()
    }

    #[track_caller]
    fn assert_unchanged(&self) {
        assert_eq!((self.status, &self.body), (204, &Value::Null));
    }

    #[track_caller]
    fn assert_problem(&self, status: u16, kind: &str, says: &str) {
        let expected = format!("urn:homing:problem:{kind}");
        assert_eq!(
            (self.status, self.body["type"].as_str()),
            (status, Some(expected.as_str())),
            "{}",
            self.body
        );
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{detail}");
    }
}

/// A request over REST; the path stands behind `/v1`.
async fn ask(
    broker: &TestBroker,
    method: Method,
    user: &str,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let path = format!("/v1{path}");
    let (status, body) = broker.request(method, user, &path, body).await;
    let status = status.as_u16();
    Answer { status, body }
}

/// A group whose first participant owns it, with the roles that are said of others.
async fn group(broker: &TestBroker, participants: &[&str], roles: Value) -> String {
    let body = json!({"participants": participants, "kind": "group", "roles": roles});
    let made = ask(broker, Method::POST, "admin", "/conversations", Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body["id"].as_str().unwrap().to_owned()
}

async fn put_participant(
    broker: &TestBroker,
    by: &str,
    conversation: &str,
    user: &str,
    body: Value,
) -> Answer {
    let path = format!("/conversations/{conversation}/participants/{user}");
    ask(broker, Method::PUT, by, &path, Some(body)).await
}

async fn give_role(
    broker: &TestBroker,
    by: &str,
    conversation: &str,
    user: &str,
    role: &str,
) -> Answer {
    put_participant(broker, by, conversation, user, json!({"role": role})).await
}

async fn remove(broker: &TestBroker, by: &str, conversation: &str, user: &str) -> Answer {
    let path = format!("/conversations/{conversation}/participants/{user}");
    ask(broker, Method::DELETE, by, &path, None).await
}

async fn change(broker: &TestBroker, by: &str, conversation: &str, body: Value) -> Answer {
    let path = format!("/conversations/{conversation}");
    ask(broker, Method::PATCH, by, &path, Some(body)).await
}

/// What a participant sees of a conversation.
async fn seen(broker: &TestBroker, by: &str, conversation: &str) -> Value {
    let path = format!("/conversations/{conversation}");
    let answer = ask(broker, Method::GET, by, &path, None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Type and body of every entry that a participant may read, from the oldest on.
async fn entries(broker: &TestBroker, by: &str, conversation: &str) -> Vec<(i64, Value)> {
    let path = format!("/conversations/{conversation}/messages?after=0&limit=200");
    let answer = ask(broker, Method::GET, by, &path, None).await;
    let entries = answer.body["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| (entry["seq"].as_i64().unwrap(), entry["body"].clone()))
        .collect()
}

/// The sequences of the entries that a participant may read.
async fn sequences(broker: &TestBroker, by: &str, conversation: &str) -> Vec<i64> {
    let entries = entries(broker, by, conversation).await;
    entries.into_iter().map(|(seq, _)| seq).collect()
}

/// Says something over REST.
async fn say(broker: &TestBroker, by: &str, conversation: &str, id: &str) -> Answer {
    let path = format!("/conversations/{conversation}/messages");
    let body = Some(json!({"id": id, "body": "hello"}));
    ask(broker, Method::POST, by, &path, body).await
}

/// How many users there are.
async fn users(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from users")
        .fetch_one(pool)
        .await
        .unwrap()
}
