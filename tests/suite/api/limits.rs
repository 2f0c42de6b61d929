//! Who is too fast is told when to come again; pages of other origins; streams.

use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{Api, answer};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_user_who_is_too_fast_waits(pool: PgPool) {
    let settings = [
        ("HOMING__LIMITS__REQUESTS_PER_SECOND", "1"),
        ("HOMING__LIMITS__REQUESTS_BURST", "2"),
    ];
    let api = Api::start_with(pool, &settings).await;
    let path = "/v1/me/quiet-hours";
    let statuses = async |user: &str| {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(api.get(user, path).await);
        }
        statuses
    };
    let answers = statuses("alice").await;
    assert_eq!((answers[0].status, answers[1].status), (200, 200));
    let refused = answers.iter().find(|answer| answer.status != 200).unwrap();
    refused.assert_problem(429, "too-many", "Retry-After");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.body["retry_after"], 1);
    assert_eq!(api.get("bob", path).await.status, 200, "another user");
    let admin = statuses("admin").await;
    assert!(admin.iter().all(|answer| answer.status == 200));
    let metrics = answer(api.request(Method::GET, "/metrics")).await.text;
    assert!(
        metrics.contains("limited_total{kind=\"Request\"}"),
        "{metrics}"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn messages_have_a_rate_of_their_own(pool: PgPool) {
    let settings = [
        ("HOMING__LIMITS__MESSAGES_PER_SECOND", "1"),
        ("HOMING__LIMITS__MESSAGES_BURST", "1"),
    ];
    let api = Api::start_with(pool, &settings).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let path = format!("{path}/messages");
    let mut statuses = Vec::new();
    for id in ["1", "2", "3"] {
        statuses.push(
            api.post("alice", &path, json!({"id": id, "body": 1}))
                .await
                .status,
        );
    }
    assert_eq!(statuses[0], 201);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(api.get("alice", &path).await.status, 200);
}

/// Goal: what one message may have is a setting, and a refusal names it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_a_message_may_have_is_set(pool: PgPool) {
    let settings = [
        ("HOMING__MESSAGE__REACTIONS_MAX", "2"),
        ("HOMING__MESSAGE__MENTIONS_MAX", "3"),
        ("HOMING__MESSAGE__ATTACHMENTS_MAX", "1"),
    ];
    let api = Api::start_with(pool, &settings).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let path = format!("{path}/messages");
    let file = json!({"id": "f", "size": 1, "content_type": "a/b"});
    let most = json!({"id": "1", "body": 1, "mentions": vec!["bob"; 3], "attachments": [file]});
    assert_eq!(api.post("alice", &path, most.clone()).await.status, 201);
    for (name, value, says) in [
        ("mentions", json!(vec!["bob"; 4]), "at most 3"),
        ("attachments", json!([file, file]), "at most 1"),
    ] {
        let mut more = most.clone();
        (more["id"], more[name]) = ("2".into(), value);
        let refused = api.post("alice", &path, more).await;
        refused.assert_problem(400, "invalid", says);
    }
    let react = async |key: &str| {
        let body = json!({"id": key, "type": "reaction", "ref": 1, "body": {"key": key}});
        api.post("alice", &path, body).await
    };
    assert_eq!(react("a").await.status, 201);
    assert_eq!(react("b").await.status, 201);
    react("c").await.assert_problem(409, "full", "sorts");
}

/// Goal: a browser may use the API from the pages that are named, and from no other.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn pages_of_named_origins_are_let_in(pool: PgPool) {
    let page = "https://chat.example.com";
    let path = "/v1/me/quiet-hours";
    let silent = Api::start(pool.clone()).await;
    let none = answer(silent.request(Method::GET, path).header("origin", page)).await;
    assert_eq!(none.header("access-control-allow-origin"), "");

    let profile = format!("[http]\ncors_origins = [\"{page}\"]\n");
    let api = Api::start_with_profile(pool.clone(), &profile).await;
    let preflight = |origin: &str| {
        let request = api.request(Method::OPTIONS, path).header("origin", origin);
        let request = request.header("access-control-request-method", "PUT");
        request.header("access-control-request-headers", "authorization,if-match")
    };
    let allowed = answer(preflight(page)).await;
    assert_eq!(allowed.status, 200, "without a token");
    assert_eq!(allowed.header("access-control-allow-origin"), page);
    assert!(
        allowed
            .header("access-control-allow-methods")
            .contains("PATCH")
    );
    let headers = allowed.header("access-control-allow-headers").to_owned();
    assert!(headers.contains("authorization") && headers.contains("idempotency-key"));
    let refused = answer(preflight("https://evil.example.com")).await;
    assert_eq!(refused.header("access-control-allow-origin"), "");

    let request = api.request(Method::GET, path).header("origin", page);
    let shown = answer(request.bearer_auth(api.token("alice"))).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.header("access-control-allow-origin"), page);
    assert_eq!(shown.header("access-control-allow-credentials"), "");
    for name in ["etag", "link", "retry-after", "idempotency-replayed"] {
        assert!(shown.header("access-control-expose-headers").contains(name));
    }
    let refusal = answer(api.request(Method::GET, path).header("origin", page)).await;
    assert_eq!(refusal.status, 401);
    assert_eq!(
        refusal.header("access-control-allow-origin"),
        page,
        "to be read"
    );

    let all = Api::start_with_profile(pool, "[http]\ncors_origins = [\"*\"]\n").await;
    let any = answer(all.request(Method::GET, path).header("origin", page)).await;
    assert_eq!(any.header("access-control-allow-origin"), "*");
}
