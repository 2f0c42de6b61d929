//! `ETag`, `If-None-Match`, `If-Match`, and `Link`.

use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{Answer, Api, answer};

const HOURS: &str = "/v1/me/quiet-hours";

async fn with(api: &Api, method: Method, path: &str, header: (&str, &str)) -> Answer {
    let request = api.request(method.clone(), path);
    let request = request.header(header.0, header.1);
    let request = match method {
        Method::PUT => request.json(&json!({"from": "22:00", "until": "07:00", "zone": "UTC"})),
        _ => request,
    };
    answer(request.bearer_auth(api.token("alice"))).await
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_known_is_not_sent_again(pool: PgPool) {
    let api = Api::start(pool).await;
    let first = api.get("alice", HOURS).await;
    let tag = first.header("etag");
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let again = with(&api, Method::GET, HOURS, ("if-none-match", tag)).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    assert_eq!(again.header("etag"), tag);
    api.put(
        "alice",
        HOURS,
        json!({"from": "22:00", "until": "07:00", "zone": "UTC"}),
    )
    .await;
    let changed = with(&api, Method::GET, HOURS, ("if-none-match", tag)).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), tag);
    assert_eq!(
        api.get("bob", HOURS).await.header("etag"),
        tag,
        "the same bytes"
    );
}

/// Goal: who changes what somebody else has changed meanwhile is told, and nothing is lost.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_change_is_refused_if_something_else_is_there_by_now(pool: PgPool) {
    let api = Api::start(pool).await;
    let old = api.get("alice", HOURS).await;
    let old = old.header("etag");
    assert_eq!(
        with(&api, Method::PUT, HOURS, ("if-match", old))
            .await
            .status,
        200
    );
    for method in [Method::PUT, Method::DELETE] {
        let refused = with(&api, method, HOURS, ("if-match", old)).await;
        refused.assert_problem(412, "precondition-failed", "read it again");
    }
    let kept = api.get("alice", HOURS).await;
    assert_eq!(kept.body["from"], "22:00");
    for header in [("if-match", kept.header("etag")), ("if-match", "*")] {
        assert_eq!(with(&api, Method::PUT, HOURS, header).await.status, 200);
    }
    let gone = with(
        &api,
        Method::DELETE,
        HOURS,
        ("if-match", kept.header("etag")),
    )
    .await;
    assert_eq!(gone.status, 204);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_page_links_to_the_next_one(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    for id in ["1", "2", "3"] {
        api.say("alice", &path, id).await;
    }
    let mut next = format!("{path}/messages?limit=1&after=0");
    for number in 1..=3 {
        let page = api.get("alice", &next).await;
        assert_eq!(page.body["entries"][0]["seq"], number, "{}", page.text);
        let link = page.header("link").to_owned();
        if number == 3 {
            assert_eq!(link, "");
        } else {
            assert_eq!(
                link,
                format!("<{path}/messages?limit=1&after={number}>; rel=\"next\"")
            );
            next = link[1..link.find('>').unwrap()].to_owned();
        }
    }
}
