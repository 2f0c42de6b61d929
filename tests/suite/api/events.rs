//! `GET /v1/events`: what happens, as it happens.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Api, answer, now_unix};
use crate::harness::{TestBroker, within};

/// An open stream, read event by event.
struct Stream {
    response: Response,
    text: String,
}

/// One event; its name is empty if it is a comment.
#[derive(Debug, Default)]
struct Seen {
    name: String,
    id: String,
    data: Value,
}

impl Stream {
    async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = within("a stream", request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = String::new();
        let mut stream = Self { response, text };
        // The first heartbeat comes at once: it is open.
        let begin = stream.any().await.unwrap();
        if begin.name == "resync" {
            stream.text =
                format!("event: resync\nid: {}\ndata: {}\n\n", begin.id, begin.data) + &stream.text;
        }
        stream
    }

    async fn of(api: &Api, user: &str) -> Self {
        let request = api.request(Method::GET, "/v1/events");
        Self::open(request.bearer_auth(api.token(user))).await
    }

    /// The next event or comment; none at the end.
    async fn any(&mut self) -> Option<Seen> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut seen = Seen::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", name)) => name.clone_into(&mut seen.name),
                        Some(("id", id)) => id.clone_into(&mut seen.id),
                        Some(("data", data)) => seen.data = serde_json::from_str(data).unwrap(),
                        _ => {}
                    }
                }
                let rest = rest.to_owned();
                self.text = rest;
                return Some(seen);
            }
            let chunk = within("an event", self.response.chunk()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event of this name.
    async fn next(&mut self, name: &str) -> Seen {
        loop {
            let seen = self.any().await.expect("the stream goes on");
            if seen.name == name {
                return seen;
            }
        }
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_tells_of_messages_as_they_come(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let foreign = api
        .conversation("carol", json!({"participants": ["dave"]}))
        .await;
    api.say("alice", &path, "before").await;
    let mut stream = Stream::of(&api, "bob").await;
    api.say("carol", &foreign, "secret").await;
    for id in ["1", "2"] {
        api.say("alice", &path, id).await;
        let mut seen = stream.next("message").await;
        if seen.data["entry"]["id"] == "before" {
            seen = stream.next("message").await; // told of a moment after it was stored
        }
        assert_eq!(seen.data["entry"]["id"], id);
        assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
        assert!(seen.id.parse::<u64>().unwrap() > 1_600_000_000_000);
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_tells_of_receipts_and_the_inbox(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let mut stream = Stream::of(&api, "alice").await;
    let seq = api.say("alice", &path, "1").await;
    let receipts = format!("{path}/receipts");
    let read = api.put("bob", &receipts, json!({"read": seq})).await;
    assert!(read.status < 300, "{}", read.text);
    let seen = stream.next("receipt").await;
    assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
    let told = &seen.data["receipt"];
    assert_eq!((&told["user"], &told["read"]), (&json!("bob"), &json!(seq)));
    let inbox = format!("{path}/inbox");
    let request = api
        .request(Method::PATCH, &inbox)
        .json(&json!({"pinned": true}));
    let row = answer(request.bearer_auth(api.token("alice"))).await;
    loop {
        let seen = stream.next("inbox").await;
        assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
        if seen.data["version"] == row.body["version"] {
            assert_eq!(seen.data, row.body);
            break;
        }
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_tells_who_types(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let mut stream = Stream::of(&api, "bob").await;
    let typing = format!("{path}/typing");
    for is_typing in [true, false] {
        let answer = api
            .post("alice", &typing, json!({"typing": is_typing}))
            .await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        let seen = stream.next("typing").await;
        assert!(path.ends_with(seen.data["conversation"].as_str().unwrap()));
        let told = &seen.data["typing"];
        assert_eq!(
            (&told["user"], &told["typing"]),
            (&json!("alice"), &json!(is_typing))
        );
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_comes_back_is_told_what_to_ask_for(pool: PgPool) {
    let api = Api::start(pool).await;
    for (id, since) in [
        ("1700000000000", json!(1_699_999_990_000_u64)),
        ("x", Value::Null),
    ] {
        let request = api
            .request(Method::GET, "/v1/events")
            .header("last-event-id", id);
        let mut stream = Stream::open(request.bearer_auth(api.token("bob"))).await;
        let seen = stream.next("resync").await;
        assert_eq!(seen.data["changed_since"], since);
        let inbox = api.get("bob", seen.data["href"].as_str().unwrap()).await;
        assert_eq!(inbox.status, 200, "{}", inbox.text);
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn streams_are_bounded_and_give_their_place_back(pool: PgPool) {
    let settings = [
        ("HOMING__HTTP__EVENTS_MAX", "3"),
        ("HOMING__HTTP__EVENTS_PER_USER_MAX", "2"),
    ];
    let api = Api::start_with(pool, &settings).await;
    let ask = async |user: &str| {
        let request = api.request(Method::GET, "/v1/events");
        answer(request.bearer_auth(api.token(user))).await
    };
    let first = Stream::of(&api, "alice").await;
    let _second = Stream::of(&api, "alice").await;
    let refused = ask("alice").await;
    refused.assert_problem(429, "too-many", "close one");
    assert_eq!(refused.header("retry-after"), "1");
    let _other = Stream::of(&api, "bob").await;
    ask("carol")
        .await
        .assert_problem(503, "unavailable", "later");
    drop(first);
    // The server notices that the connection is gone.
    let free = async {
        loop {
            let request = api.request(Method::GET, "/v1/events");
            let response = request
                .bearer_auth(api.token("alice"))
                .send()
                .await
                .unwrap();
            if response.status() == 200 {
                break;
            }
        }
    };
    within("a free place", free).await;
    answer(api.request(Method::GET, "/v1/events"))
        .await
        .assert_problem(401, "unauthorized", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_ends_with_its_token(pool: PgPool) {
    let api = Api::start(pool).await;
    // Issued for an hour, almost an hour ago.
    let token = api.issue("alice", now_unix() - 3598);
    let request = api.request(Method::GET, "/v1/events").bearer_auth(token);
    let mut stream = Stream::open(request).await;
    while stream.any().await.is_some() {}
}

/// Goal: a stream that would never end does not hold up the stop.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_ends_with_the_server(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let url = format!("http://{}/v1/events", broker.http());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut stream = Stream::open(client.get(url).bearer_auth(broker.token("alice"))).await;
    let (_, ()) = tokio::join!(broker.stop(), async {
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(30), stream.any()).await {}
    });
}
