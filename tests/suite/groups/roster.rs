//! The list of those who take part.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{ask, group, put_participant, remove, users};
use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn participants_are_listed_in_pages(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    // Users that are new at the same time have numbers in the order of their names.
    let names = ["zoe", "bob", "mia", "carol", "gone"];
    let cid = group(&broker, &names, json!({"mia": "admin"})).await;
    remove(&broker, "zoe", &cid, "gone").await;
    put_participant(&broker, "zoe", &cid, "late", json!({"role": "readonly"})).await;
    let silence = format!("/conversations/{cid}/participants/bob/silence");
    let body = Some(json!({"until": "forever"}));
    ask(&broker, Method::PUT, "mia", &silence, body).await;

    let list = format!("/conversations/{cid}/participants");
    let mut listed: Vec<Value> = Vec::new();
    let mut path = format!("{list}?limit=2");
    loop {
        let page = ask(&broker, Method::GET, "carol", &path, None).await;
        listed.extend(page.body["participants"].as_array().unwrap().clone());
        let Some(next) = page.body["next_after"].as_str() else {
            break;
        };
        path = format!("{list}?limit=2&after={next}");
    }
    let shown = |user: &str, role: &str, joined: i64, silenced: Value| json!({"user": user, "role": role, "joined": joined, "silenced_until": silenced});
    assert_eq!(
        listed,
        [
            shown("bob", "member", 1, json!("forever")),
            shown("carol", "member", 1, json!(null)),
            shown("mia", "admin", 1, json!(null)),
            shown("zoe", "owner", 1, json!(null)),
            shown("late", "readonly", 2, json!(null)),
        ]
    );
    let one = ask(&broker, Method::GET, "carol", &format!("{list}/bob"), None).await;
    assert_eq!((one.status, one.body), (200, listed[0].clone()));
    for user in ["gone", "stranger"] {
        let absent = ask(
            &broker,
            Method::GET,
            "carol",
            &format!("{list}/{user}"),
            None,
        )
        .await;
        absent.assert_problem(404, "not-found", user);
    }
    for by in ["gone", "stranger"] {
        for path in [list.clone(), format!("{list}/bob")] {
            let refused = ask(&broker, Method::GET, by, &path, None).await;
            refused.assert_problem(404, "not-found", "");
        }
    }
    for wrong in ["limit=0", "limit=201", "limit=x", "after=unknown"] {
        let refused = ask(
            &broker,
            Method::GET,
            "zoe",
            &format!("{list}?{wrong}"),
            None,
        )
        .await;
        refused.assert_problem(400, "invalid", "");
    }
    let all = ask(&broker, Method::GET, "admin", &list, None).await;
    assert_eq!(all.body["participants"].as_array().unwrap().len(), 5);
    broker.stop().await;
}

/// Goal: a page begins after somebody who takes part or took part, so that nobody learns which
/// other names there are.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_list_of_participants_does_not_say_which_users_there_are(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob", "carol"], json!({})).await;
    group(&broker, &["dave"], json!({})).await;
    remove(&broker, "alice", &cid, "bob").await;
    let list = format!("/conversations/{cid}/participants?after=");
    for name in ["dave", "nobody"] {
        let refused = ask(
            &broker,
            Method::GET,
            "alice",
            &format!("{list}{name}"),
            None,
        )
        .await;
        refused.assert_problem(400, "invalid", "never took part");
    }
    let page = ask(&broker, Method::GET, "alice", &format!("{list}bob"), None).await;
    assert_eq!(page.status, 200, "whoever went meanwhile is a place");
    assert_eq!(page.body["participants"][0]["user"], "carol");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_may_not_be_added_is_not_made(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.participants_max", "3")]).await;
    let cid = group(&broker, &["alice", "bob"], json!({"bob": "admin"})).await;
    let direct = json!({"participants": ["bob"], "kind": "direct"});
    let direct = ask(
        &broker,
        Method::POST,
        "alice",
        "/conversations",
        Some(direct),
    )
    .await;
    let direct = direct.body["id"].as_str().unwrap();
    let before = users(&pool).await;
    let owner = json!({"role": "owner"});
    let refused = put_participant(&broker, "bob", &cid, "new-1", owner).await;
    refused.assert_problem(403, "forbidden", "only an owner");
    let refused = put_participant(&broker, "alice", direct, "new-2", json!({})).await;
    refused.assert_problem(409, "conflict", "");
    for (cid, status, kind) in [(cid.as_str(), 409, "full"), (direct, 409, "conflict")] {
        let path = format!("/conversations/{cid}/participants");
        let body = json!({"users": ["bob", "new-3", "new-4"]});
        let refused = ask(&broker, Method::POST, "alice", &path, Some(body)).await;
        refused.assert_problem(status, kind, "");
    }
    assert_eq!(users(&pool).await, before);
    let added = put_participant(&broker, "bob", &cid, "new-5", json!({})).await;
    assert_eq!((added.seq(), users(&pool).await), (1, before + 1));
    broker.stop().await;
}
