//! Requests that are wrong before anything is looked up.

use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Api, answer, now_unix};

const PATH: &str = "/v1/conversations/AZjzwgAAcACAAAAAAAAAAQ";

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_good_tokens_come_in(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let foreign = Api::start(pool).await.token("alice");
    let (expired, future) = (
        api.issue("alice", now_unix() - 7200),
        api.issue("alice", now_unix() + 7200),
    );
    for (header, says, error) in [
        (None, "send a token", ""),
        (Some("Basic YTpi".to_owned()), "send a token", ""),
        (Some("Bearer".to_owned()), "send a token", ""),
        (Some("Bearer a.b.c".to_owned()), "no token", "invalid_token"),
        (
            Some(format!("Bearer {}", "x".repeat(9000))),
            "no token",
            "invalid_token",
        ),
        (
            Some(format!("Bearer {expired}")),
            "expired",
            "invalid_token",
        ),
        (
            Some(format!("Bearer {future}")),
            "not valid yet",
            "invalid_token",
        ),
        (
            Some(format!("Bearer {foreign}")),
            "signature",
            "invalid_token",
        ),
    ] {
        let mut request = api.request(Method::GET, PATH);
        if let Some(header) = &header {
            request = request.header("authorization", header);
        }
        let refused = answer(request).await;
        refused.assert_problem(401, "unauthorized", says);
        let challenge = refused.header("www-authenticate");
        assert!(
            challenge.starts_with("Bearer realm=") && challenge.contains(error),
            "{challenge}"
        );
    }
    let any_case = api.request(Method::GET, PATH);
    let any_case = any_case.header("authorization", format!("bearer {}", api.token("alice")));
    assert_eq!(answer(any_case).await.status, 404, "the scheme has no case");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn malformed_paths_are_refused(pool: PgPool) {
    let api = Api::start(pool).await;
    for (path, says) in [
        ("/v1/conversations/x", "conversation id"),
        ("/v1/conversations/0198f3c2", "conversation id"),
        ("/v1/conversations/%00", "conversation id"),
        ("/v1/conversations/..%2F..%2Fetc", "conversation id"),
        ("/v1/conversations/%FF/messages", "UTF-8"),
    ] {
        api.get("alice", path)
            .await
            .assert_problem(400, "invalid", says);
    }
    for name in ["%00", "a%2Fb", "%23", &"x".repeat(129)] {
        let refused = api
            .delete("alice", &format!("{PATH}/participants/{name}"))
            .await;
        refused.assert_problem(400, "invalid", "user name");
    }
    for path in [
        "/",
        "/v1",
        "/v1/conversation",
        "/v2/conversations",
        "/v1/conversations/",
    ] {
        api.get("alice", path)
            .await
            .assert_problem(404, "not-found", "/v1");
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_wrong_method_is_told_the_right_ones(pool: PgPool) {
    let api = Api::start(pool).await;
    for (method, path, allow) in [
        (Method::GET, "/v1/conversations", "POST"),
        (Method::DELETE, PATH, "GET"),
        (Method::PATCH, &format!("{PATH}/messages"), "POST"),
        (Method::POST, "/livez", "GET"),
    ] {
        let refused = answer(api.request(method, path).bearer_auth(api.token("alice"))).await;
        refused.assert_problem(405, "method-not-allowed", "Allow");
        assert!(
            refused.header("allow").contains(allow),
            "{path}: {:?}",
            refused.headers
        );
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn bodies_are_json_and_strict(pool: PgPool) {
    let api = Api::start(pool).await;
    let send = async |content_type: Option<&str>, body: &str| {
        let mut request = api
            .request(Method::POST, "/v1/conversations")
            .body(body.to_owned());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        answer(request.bearer_auth(api.token("alice"))).await
    };
    let good = r#"{"participants":["bob"],"kind":"group"}"#;
    for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(send(Some(content_type), good).await.status, 201);
    }
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/jsonp"),
        Some(""),
    ] {
        let refused = send(content_type, good).await;
        refused.assert_problem(415, "unsupported-media-type", "application/json");
    }
    for (body, says) in [
        ("", "missing field `participants`"),
        ("{", "EOF"),
        ("hello", "expected"),
        (r#"{"participants":["bob"]} x"#, "trailing"),
        (
            r#"{"participants":["bob"],"color":1}"#,
            "unknown field `color`",
        ),
        (
            r#"{"participants":["bob"],"participants":[]}"#,
            "duplicate field",
        ),
    ] {
        send(Some("application/json"), body)
            .await
            .assert_problem(400, "invalid", says);
    }
    for body in [json!({"role": "king"}), json!({"rule": "owner"})] {
        let refused = api
            .put("alice", &format!("{PATH}/participants/bob"), body)
            .await;
        assert_eq!(refused.status, 400, "{}", refused.text);
    }
    let untyped = api
        .request(Method::PUT, &format!("{PATH}/participants/bob"))
        .body("{}");
    let refused = answer(untyped.bearer_auth(api.token("alice"))).await;
    refused.assert_problem(415, "unsupported-media-type", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_large_body_is_refused(pool: PgPool) {
    let api = Api::start_with(pool, &[("HOMING__HTTP__BODY_BYTES_MAX", "1000")]).await;
    let body = json!({"participants": ["bob"], "title": "x".repeat(1000)});
    let refused = api.post("alice", "/v1/conversations", body).await;
    refused.assert_problem(413, "too-large", "1000 bytes");

    let token = api.token("alice");
    let chunk = "x".repeat(2000);
    let text = exchange(
        &api,
        &format!(
            "POST {PATH}/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{chunk}\r\n0\r\n\r\n"
        ),
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

/// A body that is promised and never comes holds nothing for longer than a request may take.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_request_ends_in_time(pool: PgPool) {
    let api = Api::start_with(pool, &[("HOMING__HTTP__REQUEST_TIMEOUT", "1s")]).await;
    let token = api.token("alice");
    let text = exchange(
        &api,
        &format!(
            "POST {PATH}/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: 10\r\n\r\n{{"
        ),
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains("took too long"), "{text}");
}

/// Writes a request as it is and reads until the answer is complete or the server closes.
async fn exchange(api: &Api, request: &str) -> String {
    let mut socket = TcpStream::connect(api.base.trim_start_matches("http://"))
        .await
        .unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with('}') {
        let count = socket.read(&mut bytes).await.unwrap();
        if count == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}
