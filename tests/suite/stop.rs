//! The stop: what was begun is finished, and nobody holds it up.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, PgPool};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::harness::{TestBroker, now_unix, until, within};

/// More than the kernel keeps for a reader who takes nothing, on both sides together.
const MESSAGES: usize = 160;
const MESSAGE_BYTES: usize = 60_000;

/// Opens a stream of events and never reads beyond its head.
async fn open_stream(broker: &TestBroker, token: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(broker.http()).await.unwrap();
    let head =
        format!("GET /v1/events HTTP/1.1\r\nhost: homing\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 15];
    within("the head", stream.read_exact(&mut begin))
        .await
        .unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    stream
}

/// Says more than its streams hold.
async fn flood(broker: &TestBroker, conversation: &str) {
    let path = format!("/{conversation}/messages");
    for id in 0..MESSAGES {
        let body = json!({"id": id.to_string(), "body": "x".repeat(MESSAGE_BYTES)});
        let (status, body) = broker.rest(Method::POST, "admin", &path, Some(body)).await;
        assert_eq!(status, 201, "{body}");
    }
}

/// Goal: a reader who takes nothing any more does not make the stop last until its deadline.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stalled_reader_does_not_hold_up_the_stop(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["admin", "bob"]).await;
    let _stalled = open_stream(&broker, &broker.token("bob")).await;
    flood(&broker, &conversation).await;
    broker.stop().await;
}

/// Goal: nor does one who has sent half a request.
#[sqlx::test(migrator = "MIGRATOR")]
async fn half_a_request_does_not_hold_up_the_stop(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut stream = TcpStream::connect(broker.http()).await.unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost:")
        .await
        .unwrap();
    broker.request(Method::GET, "bob", "/livez", None).await;
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stalled_reader_gives_its_place_back_when_its_token_ends(pool: PgPool) {
    let settings = [("http.events_per_user_max", "1")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["admin", "bob"]).await;
    let lasting = std::time::Duration::from_secs(6);
    let token = broker.token_at("bob", now_unix(), lasting);
    let _stalled = open_stream(&broker, &token).await;
    flood(&broker, &conversation).await;
    let url = format!("http://{}/v1/events", broker.http());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    until("a free place", async || {
        let request = client.get(&url).bearer_auth(broker.token("bob"));
        within("an answer", request.send()).await.unwrap().status() == 200
    })
    .await;
    broker.stop().await;
}

/// Goal: a report that waits for the store when the stop begins is stored and answered.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_report_is_answered_although_the_server_stops(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut alice = broker.device("alice", "phone").await;
    alice.say(&conversation, "1").await;
    alice.disconnect().await;
    // One request before, so that only the conversation is looked up while the table is locked.
    let path = format!("/v1/conversations/{conversation}/receipts");
    broker.request(Method::GET, "bob", &path, None).await;

    let mut conn = pool.acquire().await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    sqlx::query("lock table participants in access exclusive mode")
        .execute(&mut *tx)
        .await
        .unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let http = broker.http();
    let report = client
        .put(format!("http://{http}{path}"))
        .bearer_auth(broker.token("bob"))
        .json(&json!({"read": 1}));
    let report = async {
        let answer = within("an answer", report.send()).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let stop = async {
        until("the request", async || {
            let waits = "select exists (select from pg_locks
                         where not granted and relation = 'participants'::regclass)";
            sqlx::query_scalar(waits).fetch_one(&pool).await.unwrap()
        })
        .await;
        let release = async {
            until("the end of the listener", async || {
                TcpStream::connect(http).await.is_err()
            })
            .await;
            tx.rollback().await.unwrap();
        };
        tokio::join!(broker.stop(), release).0
    };
    let ((status, body), _place) = tokio::join!(report, stop);
    assert_eq!(status, 200, "{body}");
    let read: i64 = sqlx::query_scalar("select max(read_seq) from participants")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(read, 1);
}
