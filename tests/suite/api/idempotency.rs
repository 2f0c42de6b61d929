//! `Idempotency-Key`: a request that comes again is done once.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, Api, answer};
use crate::{
    harness::{TestBroker, until},
    store::{server_process, until_blocking},
};

/// Requests with a key that are worked on at the same time, at most.
const KEYED_MAX: usize = 1024;

async fn create(api: &Api, user: &str, key: &str, body: &Value) -> Answer {
    let request = api.request(Method::POST, "/v1/conversations").json(body);
    let request = request.header("idempotency-key", key);
    answer(request.bearer_auth(api.token(user))).await
}

async fn count(pool: &PgPool) -> i64 {
    let count = sqlx::query_scalar("select count(*) from conversations");
    count.fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_same_request_is_done_once_and_answered_again(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let body = json!({"participants": ["bob"], "title": "Us"});
    let first = create(&api, "alice", "k1", &body).await;
    assert_eq!(
        (first.status, first.header("idempotency-replayed")),
        (201, "")
    );
    let again = create(&api, "alice", "k1", &body).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(count(&pool).await, 1);

    let other = create(&api, "alice", "k1", &json!({"participants": ["carol"]})).await;
    other.assert_problem(422, "key-reused", "another request");
    // Another user's key is another key; a refusal is kept as well.
    assert_eq!(create(&api, "carol", "k1", &body).await.status, 201);
    for _ in 0..2 {
        let none = json!({"participants": ["x".repeat(200)]});
        assert_eq!(create(&api, "alice", "k2", &none).await.status, 400);
    }
    for key in ["", "a b", "ä", &"x".repeat(65)] {
        let refused = create(&api, "alice", key, &body).await;
        assert_eq!(refused.status, 400, "{key}: {}", refused.text);
    }
    assert_eq!(count(&pool).await, 2);
}

/// Given a process that died when the conversation was there and the answer was not kept, when
/// the request comes again, then it leads to that conversation.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_request_that_a_crash_interrupted_is_done_again_without_a_trace(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let body = json!({"participants": ["bob"], "title": "Us"});
    let first = create(&api, "alice", "k1", &body).await;
    let crash = "update idempotency_keys set status = null, body = null";
    sqlx::query(crash).execute(&pool).await.unwrap();

    let working = create(&api, "alice", "k1", &body).await;
    working.assert_problem(409, "conflict", "worked on");
    let seconds: u64 = working.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");

    let later = "update idempotency_keys set begun_at = now() - interval '61 seconds'";
    sqlx::query(later).execute(&pool).await.unwrap();
    let again = create(&api, "alice", "k1", &body).await;
    assert_eq!(
        (again.status, &again.body),
        (201, &first.body),
        "{}",
        again.text
    );
    assert_eq!(count(&pool).await, 1);
}

/// Given a process that died before it answered, when another one has taken its place, then the
/// request is done at once when it comes again.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_a_dead_process_had_begun_is_free_at_once(pool: PgPool) {
    let body = json!({"participants": ["bob"], "title": "Us"});
    let first = create(&Api::start(pool.clone()).await, "alice", "k1", &body).await;
    let crash = "update idempotency_keys set status = null, body = null, begun_at = now()";
    sqlx::query(crash).execute(&pool).await.unwrap();

    let api = Api::start(pool.clone()).await;
    let again = create(&api, "alice", "k1", &body).await;
    let replayed = again.header("idempotency-replayed");
    assert_eq!(
        (again.status, &again.body, replayed),
        (201, &first.body, ""),
        "{}",
        again.text
    );
    assert_eq!(count(&pool).await, 1);
    // What this process has begun itself is not free.
    let working = "update idempotency_keys set status = null, body = null, begun_at = now()";
    sqlx::query(working).execute(&pool).await.unwrap();
    assert_eq!(create(&api, "alice", "k1", &body).await.status, 409);
}

/// Given a request that failed by a fault of the server, then its key still stands for it: another
/// body is refused, and the same one is done at once.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_key_whose_request_failed_stands_for_it_and_is_free(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let body = json!({"participants": ["bob"], "title": "Us"});
    let fault = "alter table conversations rename to gone";
    sqlx::query(fault).execute(&pool).await.unwrap();
    let failed = create(&api, "alice", "k1", &body).await;
    failed.assert_problem(500, "internal", "fault");
    let mended = "alter table gone rename to conversations";
    sqlx::query(mended).execute(&pool).await.unwrap();

    let other = json!({"participants": ["bob"], "title": "Them"});
    let other = create(&api, "alice", "k1", &other).await;
    other.assert_problem(422, "key-reused", "another request");
    let again = create(&api, "alice", "k1", &body).await;
    let replayed = again.header("idempotency-replayed");
    assert_eq!((again.status, replayed), (201, ""), "{}", again.text);
    assert_eq!(count(&pool).await, 1);
}

/// Goal: a bounded number of requests with a key is worked on; the next one does not wait.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn more_requests_at_once_than_there_may_be_are_refused(pool: PgPool) {
    let settings = [("HOMING__LIMITS__REQUESTS_PER_SECOND", "0")];
    let api = Api::start_with(pool.clone(), &settings).await;
    // Refused, which is an answer like others.
    let body = json!({"participants": ["x".repeat(200)]});
    assert_eq!(create(&api, "alice", "first", &body).await.status, 400);
    let mut other = pool.begin().await.unwrap();
    let lock = "lock table idempotency_keys in exclusive mode";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let keys: Vec<_> = (0..=KEYED_MAX).map(|number| number.to_string()).collect();
    let asked = keys.iter().map(|key| create(&api, "alice", key, &body));
    let mut asked: FuturesUnordered<_> = asked.collect();
    let refused = asked.next().await.unwrap();
    refused.assert_problem(503, "unavailable", "busy");

    other.commit().await.unwrap();
    while let Some(done) = asked.next().await {
        assert_eq!(done.status, 400, "{}", done.text);
    }
    assert_eq!(create(&api, "alice", "last", &body).await.status, 400);
}

/// How many requests have been answered under a key.
async fn answered(pool: &PgPool) -> i64 {
    let answered = "select count(*) from idempotency_keys where status is not null";
    sqlx::query_scalar(answered).fetch_one(pool).await.unwrap()
}

/// Given a client that goes away while its request is worked on, then the request is done, and
/// whoever sends it again gets the answer.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_request_goes_on_when_its_client_has_gone(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let body = json!({"participants": ["bob"], "title": "Us"});
    let mut other = pool.begin().await.unwrap();
    let lock = "lock table conversations in exclusive mode";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let process = server_process(&mut other).await;
    tokio::select! {
        early = create(&api, "alice", "k1", &body) => panic!("{}", early.text),
        () = until_blocking(&pool, process) => {}
    }
    // The connection is closed now: this API has no other client.
    other.commit().await.unwrap();
    until("the answer", async || answered(&pool).await == 1).await;
    let again = create(&api, "alice", "k1", &body).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (201, "true")
    );
    assert_eq!(count(&pool).await, 1);
}

/// Given a request whose client has gone, when the server stops, then it stops after it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stop_waits_for_a_request_whose_client_has_gone(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut other = pool.begin().await.unwrap();
    let lock = "lock table conversations in exclusive mode";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let process = server_process(&mut other).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("http://{}/v1/conversations", broker.http()))
        .header("idempotency-key", "k1")
        .bearer_auth(broker.token("alice"))
        .json(&json!({"participants": ["bob"]}));
    tokio::select! {
        early = request.send() => panic!("{early:?}"),
        () = until_blocking(&pool, process) => {}
    }
    // The stop begins before the commit: they are polled in this order.
    let (_, committed) = tokio::join!(broker.stop(), other.commit());
    committed.unwrap();
    assert_eq!(answered(&pool).await, 1);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_message_with_a_key_is_answered_again(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let send = async |id: &str| {
        let request = api.request(Method::POST, &format!("{path}/messages"));
        let request = request
            .header("idempotency-key", "m")
            .json(&json!({"id": id, "body": 1}));
        answer(request.bearer_auth(api.token("alice"))).await
    };
    for replayed in ["", "true"] {
        let sent = send("1").await;
        assert_eq!((sent.status, &sent.body), (201, &json!({"seq": 1})));
        assert_eq!(sent.header("idempotency-replayed"), replayed);
    }
    send("2").await.assert_problem(422, "key-reused", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn keys_are_forgotten_after_a_day(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let body = json!({"participants": ["bob"], "title": "Us"});
    create(&api, "alice", "old", &body).await;
    let old = "update idempotency_keys set created_at = now() - interval '25 hours'";
    sqlx::query(old).execute(&pool).await.unwrap();
    create(&api, "alice", "new", &body).await;
    let mut conn = pool.acquire().await.unwrap();
    let removed = homing::store::idempotency::remove_old(&mut conn, 10).await;
    assert_eq!(removed.unwrap(), 1);
    // It is a new request then, and makes a new conversation.
    assert_eq!(
        create(&api, "alice", "old", &body)
            .await
            .header("idempotency-replayed"),
        ""
    );
    assert_eq!(count(&pool).await, 3);
}
