//! A stream of server-sent events, read as far as it has come.

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;

use crate::harness::{TestBroker, within};

pub(super) struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    pub(super) async fn open(broker: &TestBroker, user: &str) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        let request = client
            .get(format!("http://{}/v1/events", broker.http()))
            .bearer_auth(broker.token(user));
        let response = within("a stream", request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            response,
            text: String::new(),
        }
    }

    /// The names and the data of the events that are there; waits for none.
    pub(super) async fn ready(&mut self) -> Vec<(String, Value)> {
        let there = Duration::ZERO;
        while let Ok(chunk) = tokio::time::timeout(there, self.response.chunk()).await {
            let chunk = chunk.unwrap().expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let mut events = Vec::new();
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let member = |name: &str| {
                let mut lines = block.lines();
                lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if let (Some(name), Some(data)) = (member("event"), member("data")) {
                events.push((name.to_owned(), serde_json::from_str(data).unwrap()));
            }
            let rest = rest.to_owned();
            self.text = rest;
        }
        events
    }
}
