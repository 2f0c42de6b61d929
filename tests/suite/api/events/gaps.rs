//! What a stream did not tell: who was away, who reads slowly, what has been erased.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{Seen, Stream, TYPING, ids};
use crate::{
    api::Api,
    harness::{now_unix, within},
};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_comes_back_is_told_what_to_ask_for(pool: PgPool) {
    let api = Api::start(pool).await;
    for (id, since) in [
        ("1700000000000", json!(1_699_999_990_000_u64)),
        ("0", json!(0)),
        ("x", Value::Null),
        ("-1", Value::Null),
        // The year 10000 and more, of which nobody can be asked.
        ("253402300810000", Value::Null),
        ("18446744073709551615", Value::Null),
        ("18446744073709551616", Value::Null),
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

/// Goal: an id of a clock that was ahead hides nothing of what came since; one of a clock that
/// is ahead by no more than clocks are is good.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_id_that_is_still_to_come_hides_nothing(pool: PgPool) {
    let api = Api::start(pool).await;
    let group = json!({"participants": ["bob"], "kind": "group"});
    let path = api.conversation("alice", group).await;
    api.say("alice", &path, "1").await;
    let now = now_unix() * 1000;
    for (id, since) in [
        (now + 3_600_000, Value::Null),
        (now + 5_000, json!(now - 5_000)),
    ] {
        let request = api.request(Method::GET, "/v1/events");
        let request = request.header("last-event-id", id.to_string());
        let mut stream = Stream::open(request.bearer_auth(api.token("bob"))).await;
        let seen = stream.next("resync").await;
        assert_eq!(seen.data["changed_since"], since);
        let inbox = api.get("bob", seen.data["href"].as_str().unwrap()).await;
        let rows = inbox.body["conversations"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{}", inbox.text);
    }
}

/// Goal: who comes back finds, with what the first event says, all that was missed, and then
/// hears what happens.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_comes_back_finds_what_was_missed_and_hears_the_rest(pool: PgPool) {
    let api = Api::start_with(pool.clone(), &[TYPING]).await;
    let group = json!({"participants": ["bob"], "kind": "group"});
    let path = api.conversation("alice", group.clone()).await;
    let quiet = api.conversation("alice", group).await;
    let mut stream = Stream::of(&api, "bob").await;
    api.say("alice", &quiet, "q").await;
    api.say("alice", &path, "1").await;
    let told = stream.told(&api, "alice", &path).await;
    assert_eq!(ids(&told), ["q", "1"]);
    let last = told.last().unwrap();
    let held = last.data["entry"]["seq"].as_i64().unwrap();
    drop(stream);
    let long_ago = "update conversations set updated_at = now() - interval '1 day'";
    sqlx::query(long_ago).execute(&pool).await.unwrap();
    let long_ago = "update participants set changed_at = now() - interval '1 day'";
    sqlx::query(long_ago).execute(&pool).await.unwrap();
    for id in ["2", "3"] {
        api.say("alice", &path, id).await;
    }

    let request = api.request(Method::GET, "/v1/events");
    let request = request.header("last-event-id", &last.id);
    let mut stream = Stream::open(request.bearer_auth(api.token("bob"))).await;
    let first = stream.any().await.unwrap();
    assert_eq!(first.name, "resync", "{first:?}");
    let inbox = api.get("bob", first.data["href"].as_str().unwrap()).await;
    let rows = inbox.body["conversations"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{}", inbox.text);
    assert!(path.ends_with(rows[0]["conversation"].as_str().unwrap()));
    assert_eq!(rows[0]["last_seq"], held + 2);
    let thread = format!("{path}/thread?changed_since={held}");
    let thread = api.get("bob", &thread).await;
    let missed = thread.body["messages"].as_array().unwrap();
    let missed: Vec<_> = missed.iter().map(|message| &message["id"]).collect();
    assert_eq!(missed, ["2", "3"]);
    api.say("alice", &path, "4").await;
    let told = stream.told(&api, "alice", &path).await;
    // What was stored a moment before may still come.
    assert_eq!(*ids(&told).last().unwrap(), "4");
}

/// Goal: a reader that falls behind loses nothing: what memory has no room for comes from the
/// log, and what is too much for that is named.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_slow_reader_catches_up_or_is_told_where_the_rest_is(pool: PgPool) {
    // About fifty messages of 8 KB are on their way to who does not read, 512 wait in memory.
    let api = Api::start(pool).await;
    for (count, has_gap) in [(650_i64, false), (900, true)] {
        let path = api
            .conversation("alice", json!({"participants": ["bob"], "kind": "group"}))
            .await;
        let mut stream = SlowStream::open(&api, "bob").await;
        fill(&api, &path, count).await;
        let mut gaps = Vec::new();
        let mut held = 0;
        while held < count {
            let seen = stream.next().await;
            match seen.name.as_str() {
                "message" => {
                    assert_eq!(seen.data["entry"]["seq"], held + 1);
                    held += 1;
                    // Of what waited, an id says since when: no later one hides it.
                    let at = seen.data["entry"]["at"].as_u64().unwrap();
                    assert!(
                        held < count || seen.id.parse::<u64>().unwrap() < at,
                        "{held}"
                    );
                }
                "gap" => {
                    assert_eq!(seen.data["from"], held + 1);
                    held = seen.data["to"].as_i64().unwrap();
                    gaps.push(seen.data);
                }
                _ => {}
            }
        }
        assert_eq!(gaps.len(), usize::from(has_gap), "{gaps:?}");
        for gap in gaps {
            let (from, to) = (gap["from"].as_i64().unwrap(), gap["to"].as_i64().unwrap());
            assert!(path.ends_with(gap["conversation"].as_str().unwrap()));
            let rest = api.get("bob", gap["href"].as_str().unwrap()).await;
            assert_eq!(rest.body["entries"][0]["seq"], from, "{}", rest.text);
            assert!(to - from >= 200, "{gap}");
        }
    }
}

/// Goal: what was erased before a slow reader came to it is named too, once, be it all of it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_slow_reader_is_told_what_has_been_erased(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    for (count, kept) in [(700_i64, 11), (700, 0)] {
        let path = api
            .conversation("alice", json!({"participants": ["bob"], "kind": "group"}))
            .await;
        let mut stream = SlowStream::open(&api, "bob").await;
        fill(&api, &path, count).await;
        let erased =
            "update conversations set first_seq = $1 where last_seq = $2 and first_seq = 1";
        sqlx::query(erased)
            .bind(count - kept + 1)
            .bind(count)
            .execute(&pool)
            .await
            .unwrap();
        let (mut held, mut gaps) = (0, Vec::new());
        while held < count {
            let seen = stream.next().await;
            match seen.name.as_str() {
                "message" => {
                    assert_eq!(seen.data["entry"]["seq"], held + 1);
                    held += 1;
                }
                "gap" => {
                    assert_eq!(seen.data["from"], held + 1);
                    held = seen.data["to"].as_i64().unwrap();
                    gaps.push(seen.data);
                }
                _ => {}
            }
        }
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0]["to"], count - kept);
        assert!(gaps[0].get("href").is_none(), "nothing is there: {gaps:?}");
    }
}

/// Says so much, one after the other: each is a commit.
async fn fill(api: &Api, path: &str, count: i64) {
    for number in 1..=count {
        let message = json!({"id": number.to_string(), "body": "x".repeat(8000)});
        let said = api
            .post("alice", &format!("{path}/messages"), message)
            .await;
        assert_eq!(said.status, 201, "{}", said.text);
    }
}

/// A stream over sockets that hold next to nothing for a reader who does not read.
struct SlowStream {
    socket: TcpStream,
    text: String,
    _server: JoinSet<()>,
}

impl SlowStream {
    async fn open(api: &Api, user: &str) -> Self {
        let listening = TcpSocket::new_v4().unwrap();
        listening.set_send_buffer_size(16 << 10).unwrap();
        listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = listening.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        let app = api.app.clone();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        let token = api.token(user);
        let request =
            format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let text = String::new();
        let mut stream = Self {
            socket,
            text,
            _server: server,
        };
        let head = stream.block("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(stream.next().await.name, "", "the first heartbeat");
        stream
    }

    /// The next event; the lines of the transfer coding between are none of its own.
    async fn next(&mut self) -> Seen {
        Seen::parse(&self.block("\n\n").await)
    }

    async fn block(&mut self, end: &str) -> String {
        let mut bytes = vec![0; 32 << 10];
        let mut searched = 0;
        loop {
            if let Some(place) = self.text[searched..].find(end) {
                let place = searched + place;
                let block = self.text[..place].to_owned();
                self.text.drain(..place + end.len());
                return block;
            }
            searched = self.text.len().saturating_sub(end.len());
            let count = within("an event", self.socket.read(&mut bytes)).await;
            let count = count.unwrap();
            assert!(count > 0, "the stream ended after {}", self.text);
            self.text
                .push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }
}
