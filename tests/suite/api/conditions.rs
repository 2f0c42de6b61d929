//! `ETag`, `If-None-Match`, `If-Match`, and `Link`.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, Api, answer};
use crate::store::{server_process, until_blocking};

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

/// A request on the condition that this is still there.
async fn change(api: &Api, user: &str, method: Method, path: &str, tag: &str, body: Value) -> u16 {
    let request = api
        .request(method, path)
        .header("if-match", tag)
        .json(&body);
    answer(request.bearer_auth(api.token(user))).await.status
}

/// Goal: of many changes that are based on the same state, one is made.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn of_changes_on_the_same_condition_one_is_made(pool: PgPool) {
    let api = Api::start(pool).await;
    let inbox = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await
        + "/inbox";
    for round in 0..10 {
        for (path, method) in [(HOURS, Method::PUT), (&inbox, Method::PATCH)] {
            let tag = api.get("alice", path).await.header("etag").to_owned();
            let changes = (0..8).map(|number| {
                let body = match path {
                    HOURS => json!({"from": format!("{number:02}:{round:02}"), "until": "09:00",
                                    "zone": "UTC"}),
                    _ => json!({"muted_until": 4_000_000_000_000_i64 + number * 100 + round}),
                };
                change(&api, "alice", method.clone(), path, &tag, body)
            });
            let mut answers = join_all(changes).await;
            answers.sort_unstable();
            assert_eq!(answers, [200, 412, 412, 412, 412, 412, 412, 412], "{path}");
        }
    }
}

/// Given owners who read a conversation, when both change it at once on the condition that it is
/// as they read it, then one does.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn of_two_owners_with_the_same_condition_one_changes_the_conversation(pool: PgPool) {
    let api = Api::start(pool).await;
    let creation = json!({"participants": ["bob"], "title": "0", "roles": {"bob": "owner"}});
    let path = api.conversation("alice", creation).await;
    for round in 1..=20 {
        let changes = ["alice", "bob"].map(async |user| {
            let tag = api.get(user, &path).await.header("etag").to_owned();
            (user, tag)
        });
        let changes = join_all(changes).await;
        let changes = changes.iter().map(|(user, tag)| {
            let body = json!({"title": format!("{user} {round}")});
            change(&api, user, Method::PATCH, &path, tag, body)
        });
        let mut answers = join_all(changes).await;
        answers.sort_unstable();
        assert_eq!(answers, [200, 412]);
    }
}

/// Given a request that has found its condition met, when another change comes before its own,
/// whichever way, then it is refused.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_changes_between_the_check_and_the_change_is_seen(pool: PgPool) {
    let api = Api::start(pool.clone()).await;
    let creation = json!({"participants": ["bob"], "title": "Us"});
    let path = api.conversation("alice", creation).await;
    let bob = format!("{path}/participants/bob");
    let silence = "update participants set silenced_until = 'infinity'
                   where user_id = (select user_id from users where subject = 'bob')";
    let message = "update conversations set last_seq = last_seq + 1";
    for (method, shown, body, meanwhile) in [
        (Method::PATCH, &path, json!({"title": "We"}), message),
        (Method::PUT, &bob, json!({"role": "admin"}), silence),
        (
            Method::DELETE,
            &bob,
            json!({}),
            "update participants set silenced_until = null",
        ),
    ] {
        let tag = api.get("alice", shown).await.header("etag").to_owned();
        let mut other = pool.begin().await.unwrap();
        let lock = "select from conversations for update";
        sqlx::query(lock).execute(&mut *other).await.unwrap();
        sqlx::query(meanwhile).execute(&mut *other).await.unwrap();
        let process = server_process(&mut other).await;
        let request = api.request(method.clone(), shown).header("if-match", &tag);
        let request = match method {
            Method::DELETE => request,
            _ => request.json(&body),
        };
        let change = answer(request.bearer_auth(api.token("alice")));
        let commit = async {
            until_blocking(&pool, process).await;
            other.commit().await.unwrap();
        };
        let (refused, ()) = tokio::join!(change, commit);
        refused.assert_problem(412, "precondition-failed", "read it again");
    }
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
