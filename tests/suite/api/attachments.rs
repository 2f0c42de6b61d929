//! URLs for attachments, and a store that takes and gives what they say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, Method as HttpMethod, StatusCode},
};
use reqwest::Url;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinSet};

use super::{Api, answer};

type Objects = Arc<Mutex<HashMap<String, Bytes>>>;

/// Keeps what is PUT at a signed URL with the headers that were signed, and gives it back.
async fn store(State(objects): State<Objects>, request: Request) -> (StatusCode, Bytes) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    if !query.contains("X-Amz-Signature=") || !query.contains("X-Amz-Expires=900") {
        return (StatusCode::FORBIDDEN, Bytes::new());
    }
    let key = parts.uri.path().to_owned();
    if parts.method == HttpMethod::PUT {
        let signs = |name: &str| query.contains(name);
        let has = |headers: &HeaderMap, name: &str| headers.contains_key(name);
        assert!(signs("content-length%3Bcontent-type%3Bhost"), "{query}");
        assert!(has(&parts.headers, "content-length") && has(&parts.headers, "content-type"));
        objects.lock().unwrap().insert(key, body);
        return (StatusCode::OK, Bytes::new());
    }
    match objects.lock().unwrap().get(&key) {
        Some(object) => (StatusCode::OK, object.clone()),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
    }
}

async fn api_with_store(pool: PgPool) -> (Api, JoinSet<()>) {
    api_with_urls_for(pool, "15m").await
}

/// Its URLs are good for so long.
async fn api_with_urls_for(pool: PgPool, url_expiry: &str) -> (Api, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(store).with_state(Objects::default());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let settings = [
        ("HOMING__ATTACHMENTS__ENDPOINT", endpoint.as_str()),
        ("HOMING__ATTACHMENTS__BUCKET", "files"),
        ("HOMING__ATTACHMENTS__REGION", "here"),
        ("HOMING__ATTACHMENTS__ACCESS_KEY", "key"),
        ("HOMING__ATTACHMENTS__SECRET_KEY", "hush"),
        ("HOMING__ATTACHMENTS__BYTES_MAX", "1000"),
        ("HOMING__ATTACHMENTS__URL_EXPIRY", url_expiry),
    ];
    (Api::start_with(pool, &settings).await, serving)
}

fn url(answer: &Value) -> Url {
    answer["url"].as_str().unwrap().parse().unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_may_read_a_message_gets_what_is_attached(pool: PgPool) {
    let (api, _serving) = api_with_store(pool).await;
    let body = json!({"participants": ["bob"], "kind": "group"});
    let created = api.post("alice", "/v1/conversations", body).await.body;
    let messages = format!(
        "/v1/conversations/{}/messages",
        created["id"].as_str().unwrap()
    );

    let wanted = json!({"size": 5, "content_type": "text/plain"});
    let upload = api.post("alice", "/v1/attachments", wanted).await;
    assert_eq!(upload.status, 201, "{}", upload.text);
    assert!(!upload.text.contains("hush"));
    let put = api
        .client
        .put(url(&upload.body))
        .header("content-type", "text/plain");
    assert_eq!(put.body("hello").send().await.unwrap().status(), 200);

    let id = upload.body["id"].as_str().unwrap();
    let attachment = json!([{"id": id, "size": 5, "content_type": "text/plain"}]);
    let message = json!({"id": "1", "body": null, "attachments": attachment});
    assert_eq!(api.post("alice", &messages, message).await.body["seq"], 1);
    let path = format!("{messages}/1/attachments/{id}");
    let download = api.get("bob", &path).await;
    assert_eq!(download.status, 200, "{}", download.text);
    let got = api.client.get(url(&download.body)).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "hello");

    for (user, path) in [
        ("carol", path.clone()),
        ("bob", format!("{messages}/2/attachments/{id}")),
        ("bob", format!("{messages}/1/attachments/other")),
        (
            "bob",
            format!("{messages}/1/attachments/{}", uuid::Uuid::new_v4()),
        ),
    ] {
        let refused = api.get(user, &path).await;
        refused.assert_problem(404, "not-found", "");
    }
    // An edit attaches another thing in its place.
    let other = uuid::Uuid::new_v4();
    let attachment = json!([{"id": other, "size": 5, "content_type": "text/plain"}]);
    let edit =
        json!({"id": "3", "type": "edit", "ref": 1, "body": null, "attachments": attachment});
    assert_eq!(api.post("alice", &messages, edit).await.status, 201);
    let edited = format!("{messages}/1/attachments/{other}");
    assert_eq!(api.get("bob", &edited).await.status, 200);
    api.get("carol", &edited)
        .await
        .assert_problem(404, "not-found", "");

    let retract = json!({"id": "2", "type": "retract", "ref": 1});
    assert_eq!(api.post("alice", &messages, retract).await.status, 201);
    for path in [path, edited] {
        let gone = api.get("bob", &path).await;
        gone.assert_problem(404, "not-found", "no such attachment");
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_cannot_be_attached_is_refused(pool: PgPool) {
    let without = Api::start(pool.clone()).await;
    let wanted = json!({"size": 5, "content_type": "text/plain"});
    let refused = without.post("alice", "/v1/attachments", wanted).await;
    refused.assert_problem(404, "not-found", "[attachments]");
    let (api, _serving) = api_with_store(pool).await;
    for (wanted, status, kind, says) in [
        (
            json!({"size": 1001, "content_type": "a/b"}),
            413,
            "too-large",
            "1000 bytes",
        ),
        (
            json!({"size": 0, "content_type": "a/b"}),
            413,
            "too-large",
            "1 to",
        ),
        (
            json!({"size": 1, "content_type": ""}),
            400,
            "invalid",
            "content_type",
        ),
        (
            json!({"size": 1, "content_type": "a\nb"}),
            400,
            "invalid",
            "content_type",
        ),
        (json!({"size": 1}), 400, "invalid", "content_type"),
    ] {
        let refused = api.post("alice", "/v1/attachments", wanted).await;
        refused.assert_problem(status, kind, says);
    }
}

/// Goal: a repeat with the same key gets the same place by a URL that is good from now on, and
/// no URL lies in the store. Method: the repeat comes to a server that signs for another time.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_url_is_signed_anew_for_a_request_that_comes_again(pool: PgPool) {
    let ask = async |api: &Api, size: u64| {
        let wanted = json!({"size": size, "content_type": "text/plain"});
        let request = api.request(HttpMethod::POST, "/v1/attachments");
        let request = request.header("idempotency-key", "k").json(&wanted);
        answer(request.bearer_auth(api.token("alice"))).await
    };
    let (api, _serving) = api_with_urls_for(pool.clone(), "15m").await;
    let first = ask(&api, 5).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let kept = "select count(*) from idempotency_keys where body is not null";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&pool).await.unwrap();
    assert_eq!(kept, 0);

    let (api, _serving) = api_with_urls_for(pool, "1m").await;
    let again = ask(&api, 5).await;
    assert_eq!(again.status, 201, "{}", again.text);
    assert_eq!(again.body["id"], first.body["id"]);
    assert_eq!(again.body["expires_in"], 60);
    assert!(again.text.contains("X-Amz-Expires=60"), "{}", again.text);
    let other = ask(&api, 6).await;
    other.assert_problem(422, "key-reused", "another request");
}
