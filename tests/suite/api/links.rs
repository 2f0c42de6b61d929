//! `Link`: from any page, of any list, to both of its ends.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, Api};

/// The targets of a page's links, by what they lead to.
fn links(page: &Answer) -> HashMap<String, String> {
    let header = page.header("link");
    let links = header.split(", ").filter(|link| !link.is_empty());
    links
        .map(|link| {
            let (target, relation) = link.split_once("; ").unwrap();
            let target = target.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
            (relation.to_owned(), target.to_owned())
        })
        .collect()
}

/// What a page lists, as texts; each is there once. `counts` of the caller's own messages stand beside the list.
fn items(page: &Answer) -> Vec<String> {
    let members = page.body.as_object().unwrap();
    let mut members = members.iter().filter(|(name, _)| *name != "counts");
    let list = members.find_map(|(_, member)| member.as_array());
    let items = list.unwrap_or_else(|| panic!("no list: {}", page.text));
    items.iter().map(Value::to_string).collect()
}

/// Goal: a client that knows nothing but `Link` sees each item of a list once, wherever it begins.
/// Method: it follows the links of a page in both directions, each to its end.
async fn assert_complete(api: &Api, path: &str, count: usize) {
    let first = api.get("alice", path).await;
    let mut seen = BTreeSet::new();
    let mut take = |page: &Answer| {
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        for item in items(page) {
            assert!(seen.insert(item), "{path} lists it twice: {}", page.text);
        }
    };
    take(&first);
    let begin = links(&first);
    for relation in begin.keys() {
        let mut next = begin.get(relation).cloned();
        while let Some(target) = next {
            let page = api.get("alice", &target).await;
            take(&page);
            next = links(&page).remove(relation);
        }
    }
    assert_eq!(seen.len(), count, "{path}: {seen:?}");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn links_lead_through_the_whole_thread(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    for id in 1..=7 {
        api.say("alice", &path, &id.to_string()).await;
    }
    let thread = api.get("alice", &format!("{path}/thread")).await;
    let at = &thread.body["messages"][3]["at"];
    for part in [
        "?limit=2".to_owned(),
        "?after=0&limit=2".to_owned(),
        "?after=3&limit=2".to_owned(),
        "?before=8&limit=3".to_owned(),
        "?limit=2&before=5".to_owned(),
        "?around=4&limit=3".to_owned(),
        "?limit=1&around=1".to_owned(),
        "?around=7&limit=2".to_owned(),
        format!("?at={at}&limit=2"),
        "?changed_since=0&limit=2".to_owned(),
    ] {
        assert_complete(&api, &format!("{path}/thread{part}"), 7).await;
    }
    for (part, count) in [
        ("?after=0&limit=2", 7),
        ("?limit=3", 7),
        ("?before=8&limit=2", 7),
    ] {
        assert_complete(&api, &format!("{path}/messages{part}"), count).await;
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn links_lead_through_every_list(pool: PgPool) {
    let api = Api::start(pool).await;
    let others = ["bob", "carol", "dave"];
    let mut path = String::new();
    for title in ["one", "two", "three", "four"] {
        let body = json!({"participants": others, "kind": "group", "title": title});
        path = api.conversation("alice", body).await;
    }
    let seq = api.say("alice", &path, "1").await;
    for user in others {
        let blocked = api
            .put("alice", &format!("/v1/me/blocks/{user}"), json!({}))
            .await;
        assert!(blocked.status < 300, "{}", blocked.text);
    }
    for (path, count) in [
        ("/v1/inbox?limit=3".to_owned(), 4),
        ("/v1/inbox?limit=1&kind=group".to_owned(), 4),
        ("/v1/inbox?changed_since=1000&limit=2".to_owned(), 4),
        (format!("{path}/participants?limit=1"), 4),
        (format!("{path}/receipts?limit=3"), 4),
        (
            format!("{path}/messages/{seq}/status?details=true&limit=2"),
            3,
        ),
        ("/v1/me/blocks?limit=2".to_owned(), 3),
    ] {
        assert_complete(&api, &path, count).await;
    }
}
