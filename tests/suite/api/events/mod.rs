//! `GET /v1/events`: what happens, as it happens.

mod ends;
mod gaps;
mod live;
mod presence;
mod there;

use std::collections::VecDeque;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::Api;
use crate::harness::{DEADLINE, TestBroker, within};

/// Everything that is said of typing is told: it shows that all before it was.
const TYPING: (&str, &str) = ("HOMING__PRESENCE__TYPING_INTERVAL", "0s");

/// An open stream, read event by event.
struct Stream {
    response: Response,
    text: String,
    read: VecDeque<Seen>,
}

/// One event; its name is empty if it is a comment.
#[derive(Debug, Default)]
struct Seen {
    name: String,
    id: String,
    data: Value,
}

impl Seen {
    fn parse(block: &str) -> Self {
        let mut seen = Self::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut seen.name),
                Some(("id", id)) => id.clone_into(&mut seen.id),
                Some(("data", data)) => seen.data = serde_json::from_str(data).unwrap(),
                _ => {}
            }
        }
        seen
    }
}

impl Stream {
    async fn open(request: RequestBuilder) -> Self {
        let response = within("a stream", request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self {
            response,
            text: String::new(),
            read: VecDeque::new(),
        };
        // The first heartbeat comes at once, after what there is to say: it is open.
        let mut begin = Vec::new();
        loop {
            let seen = stream.any().await.expect("a stream begins");
            if seen.name.is_empty() {
                break;
            }
            begin.push(seen);
        }
        stream.read.extend(begin);
        stream
    }

    async fn of(api: &Api, user: &str) -> Self {
        let request = api.request(Method::GET, "/v1/events");
        Self::open(request.bearer_auth(api.token(user))).await
    }

    /// Of a broker with devices; `query` begins with `?`, or is empty.
    async fn at(broker: &TestBroker, user: &str, query: &str) -> Self {
        let url = format!("http://{}/v1/events{query}", broker.http());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self::open(client.get(url).bearer_auth(broker.token(user))).await
    }

    /// The next event or comment; none at the end.
    async fn any(&mut self) -> Option<Seen> {
        if let Some(seen) = self.read.pop_front() {
            return Some(seen);
        }
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let seen = Seen::parse(block);
                self.text = rest.into();
                return Some(seen);
            }
            let chunk = within("an event", self.response.chunk()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event, which must have this name. Only heartbeats come between, and patches of
    /// the inbox, which take their time.
    async fn next(&mut self, name: &str) -> Seen {
        let mut between = Vec::new();
        let next = async {
            loop {
                match self.any().await {
                    Some(seen) if seen.name == name => return seen,
                    Some(seen) if ["", "inbox"].contains(&seen.name.as_str()) => between.push(seen),
                    other => panic!("{other:?} in place of {name}"),
                }
            }
        };
        // Heartbeats come for ever.
        let seen = tokio::time::timeout(DEADLINE, next).await;
        seen.unwrap_or_else(|_| panic!("{between:?} in place of {name}"))
    }

    /// What has been told until now, but for patches of the inbox, to one who hears when `user`
    /// types.
    async fn told(&mut self, api: &Api, user: &str, conversation: &str) -> Vec<Seen> {
        let path = format!("{conversation}/typing");
        let typing = api.post(user, &path, json!({})).await;
        assert_eq!(typing.status, 204, "{}", typing.text);
        let told = async {
            let mut told = Vec::new();
            loop {
                let seen = self.any().await.expect("the stream goes on");
                match seen.name.as_str() {
                    "typing" => return told,
                    "" | "inbox" => {}
                    _ => told.push(seen),
                }
            }
        };
        within("what was said", told).await
    }
}

/// The ids of the messages, if there is nothing else.
fn ids(told: &[Seen]) -> Vec<&str> {
    let id = |seen: &Seen| seen.data["entry"]["id"].as_str().map(|_| ());
    assert!(told.iter().all(|seen| id(seen).is_some()), "{told:?}");
    let ids = told.iter().map(|seen| &seen.data["entry"]["id"]);
    ids.map(|id| id.as_str().unwrap()).collect()
}
