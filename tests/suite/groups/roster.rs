//! The list of those who take part.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{ask, group, put_participant, remove};
use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn participants_are_listed_in_pages(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
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
            shown("zoe", "owner", 1, json!(null)),
            shown("bob", "member", 1, json!("forever")),
            shown("mia", "admin", 1, json!(null)),
            shown("carol", "member", 1, json!(null)),
            shown("late", "readonly", 2, json!(null)),
        ]
    );
    let one = ask(&broker, Method::GET, "carol", &format!("{list}/bob"), None).await;
    assert_eq!((one.status, one.body), (200, listed[1].clone()));
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
