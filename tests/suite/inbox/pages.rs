//! Pages of the inbox: order, filters, and what happens while it changes.

use std::collections::BTreeSet;

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{ids, page, say, set};
use crate::harness::TestBroker;

async fn groups(broker: &TestBroker, count: usize) -> Vec<String> {
    let mut groups = Vec::new();
    for _ in 0..count {
        groups.push(broker.conversation(&["bob", "alice"]).await);
    }
    groups
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_newest_activity_stands_first(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let groups = groups(&broker, 4).await;
    for place in [2, 0, 3, 1] {
        say(&broker, "bob", &groups[place], "1").await;
    }
    let expected = [1, 3, 0, 2].map(|place| groups[place].as_str());
    assert_eq!(ids(&page(&broker, "alice", "").await), expected);
    assert!(ids(&page(&broker, "carol", "").await).is_empty());
    broker.stop().await;
}

/// Goal: pages of any size give each conversation once, and `changed_since` the first page what
/// moved to the front meanwhile.
#[sqlx::test(migrator = "MIGRATOR")]
async fn pages_have_no_holes_and_no_repeats_while_things_change(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let groups = groups(&broker, 9).await;
    for limit in 1..=4 {
        let mut seen = Vec::new();
        let mut query = format!("?limit={limit}");
        let mut moved = groups.iter();
        let mut as_of = None;
        loop {
            let page = page(&broker, "alice", &query).await;
            as_of = as_of.or(page["as_of"].as_i64());
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            let Some(next) = page["next_after"].as_str() else {
                break;
            };
            query = format!("?limit={limit}&after={next}");
            // Some conversation comes to the front.
            say(
                &broker,
                "bob",
                moved.next().unwrap(),
                &format!("{limit}-{}", seen.len()),
            )
            .await;
        }
        let once: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(once.len(), seen.len(), "a repeat: {seen:?}");
        let query = format!("?changed_since={}", as_of.unwrap());
        let changed = page(&broker, "alice", &query).await;
        let changed = ids(&changed).into_iter().map(str::to_owned);
        let all: BTreeSet<_> = once.into_iter().chain(changed).collect();
        assert_eq!(all, groups.iter().cloned().collect());
    }
    broker.stop().await;
}

/// Goal: of conversations with the same time none is lost or repeated, wherever a page ends.
#[sqlx::test(migrator = "MIGRATOR")]
async fn pages_end_between_conversations_of_the_same_moment(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let groups = groups(&broker, 7).await;
    // Two moments, to the microsecond.
    for (place, group) in groups.iter().enumerate() {
        let id: homing::domain::ids::ConversationId = group.parse().unwrap();
        let at = if place < 5 { 123_456 } else { 123_457 };
        sqlx::query(
            "update conversations set updated_at = '2026-01-01'::timestamptz
                 + $2::bigint * interval '1 microsecond' where conversation_id = $1",
        )
        .bind(id.0)
        .bind(at)
        .execute(&pool)
        .await
        .unwrap();
    }
    for filter in ["", "&kind=group", "&changed_since=0"] {
        for limit in 1..=7 {
            let mut seen = Vec::new();
            let mut after = String::new();
            loop {
                let page = page(&broker, "alice", &format!("?limit={limit}{filter}{after}")).await;
                seen.extend(ids(&page).into_iter().map(str::to_owned));
                let Some(next) = page["next_after"].as_str() else {
                    break;
                };
                after = format!("&after={next}");
            }
            let (newer, older) = seen.split_at(2);
            assert!(newer.iter().all(|id| groups[5..].contains(id)), "{seen:?}");
            assert!(older.iter().all(|id| groups[..5].contains(id)), "{seen:?}");
            seen.sort_unstable();
            let mut all = groups.clone();
            all.sort_unstable();
            assert_eq!(seen, all, "{limit} {filter}");
        }
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn filters_choose_and_combine(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let groups = groups(&broker, 4).await;
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|place| groups[place].as_str());
    for (number, group) in groups.iter().enumerate() {
        let author = if number == 3 { "alice" } else { "bob" };
        say(&broker, author, group, "1").await;
    }
    set(&broker, "alice", first, json!({"read": 1, "pinned": true})).await;
    set(
        &broker,
        "alice",
        second,
        json!({"archived": true, "pinned": true}),
    )
    .await;
    for (query, expected) in [
        ("", vec![fourth, third, first]),
        ("?unread=true", vec![third]),
        ("?unread=false", vec![fourth, third, first]),
        ("?archived=true", vec![second]),
        ("?archived=false", vec![fourth, third, first]),
        ("?archived=true&unread=true", vec![second]),
        ("?pinned=true", vec![first]),
        ("?pinned=true&archived=true", vec![second]),
        ("?pinned=true&unread=true", vec![]),
        ("?kind=group", vec![fourth, third, first]),
        ("?kind=direct", vec![]),
        ("?kind=direct&unread=true", vec![]),
        ("?limit=1&unread=true", vec![third]),
    ] {
        assert_eq!(
            ids(&page(&broker, "alice", query).await),
            expected,
            "{query}"
        );
    }
    broker.stop().await;
}

/// Goal: whoever was away learns of everything, and of the end of conversations.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_changed_since_is_found_whatever_it_was(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let groups = groups(&broker, 6).await;
    // As if all of this had been long ago.
    for statement in [
        "update conversations set updated_at = now() - interval '1 day'",
        "update participants set changed_at = now() - interval '1 day'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let as_of = page(&broker, "alice", "").await["as_of"].as_i64().unwrap();
    let since = format!("?changed_since={as_of}");
    assert!(ids(&page(&broker, "alice", &since).await).is_empty());

    say(&broker, "bob", &groups[0], "1").await;
    set(&broker, "alice", &groups[1], json!({"pinned": true})).await;
    set(&broker, "alice", &groups[2], json!({"archived": true})).await;
    broker.remove(&groups[3], "alice").await;
    set(&broker, "bob", &groups[4], json!({"pinned": true})).await;
    let changed = page(&broker, "alice", &since).await;
    let found: BTreeSet<_> = ids(&changed).into_iter().map(str::to_owned).collect();
    assert_eq!(found, groups[..4].iter().cloned().collect());
    let rows = changed["conversations"].as_array().unwrap();
    let removed: Vec<_> = rows.iter().filter(|row| row["removed"] == true).collect();
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0]["conversation"], groups[3]);

    // Later, the removed one is no news any more, whatever happens there.
    let later = format!("?changed_since={}", i64::MAX / 100_000);
    say(&broker, "bob", &groups[3], "1").await;
    assert!(ids(&page(&broker, "alice", &later).await).is_empty());
    assert!(!ids(&page(&broker, "alice", "").await).contains(&groups[3].as_str()));
    broker.stop().await;
}

/// Goal: each filter alone and with every other one chooses what the rows themselves say.
#[sqlx::test(migrator = "MIGRATOR")]
async fn every_combination_of_filters_chooses_its_rows(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut all = Vec::new();
    for bits in 0..32_u32 {
        let has = |bit: u32| bits & (1 << bit) != 0;
        let (kind, other) = if has(0) {
            ("group", "bob".to_owned())
        } else {
            ("direct", format!("user{bits}"))
        };
        let body = json!({"participants": ["alice", other], "kind": kind});
        let (_, made) = broker.rest(Method::POST, "admin", "", Some(body)).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let author = if has(1) { other.as_str() } else { "alice" };
        say(&broker, author, &id, "1").await;
        let settings = json!({"archived": has(2), "pinned": has(3)});
        set(&broker, "alice", &id, settings).await;
        all.push((id, bits));
    }
    for (id, bits) in &all {
        let id: homing::domain::ids::ConversationId = id.parse().unwrap();
        let hours = if bits & 16 == 0 { 0 } else { 48 };
        for table in [
            "conversations set updated_at = updated_at",
            "participants set changed_at = changed_at",
        ] {
            let older =
                format!("update {table} - $2 * interval '1 hour' where conversation_id = $1");
            let older = sqlx::query(sqlx::AssertSqlSafe(older))
                .bind(id.0)
                .bind(hours);
            older.execute(&pool).await.unwrap();
        }
    }
    let as_of = page(&broker, "alice", "").await["as_of"].as_i64().unwrap();
    let yesterday = format!("&changed_since={}", as_of - 24 * 3_600_000);
    let truth = ["", "=true", "=false"];
    let mut asked = 0;
    for unread in truth {
        for archived in truth {
            for pinned in truth {
                for kind in ["", "&kind=group", "&kind=direct"] {
                    for since in ["", yesterday.as_str()] {
                        let member = |name: &str, value: &str| match value {
                            "" => String::new(),
                            value => format!("&{name}{value}"),
                        };
                        let [unread_is, archived_is, pinned_is] = [
                            member("unread", unread),
                            member("archived", archived),
                            member("pinned", pinned),
                        ];
                        let query =
                            format!("?limit=100{unread_is}{archived_is}{pinned_is}{kind}{since}");
                        let is_wanted = |bits: u32| {
                            let has = |bit: u32| bits & (1 << bit) != 0;
                            (unread != "=true" || has(1))
                                && match archived {
                                    "=true" => has(2),
                                    "" => !has(2) || !since.is_empty(),
                                    _ => !has(2),
                                }
                                && (pinned != "=true" || has(3))
                                && (kind.is_empty() || kind.ends_with("group") == has(0))
                                && (since.is_empty() || !has(4))
                        };
                        let wanted = all.iter().filter(|(_, bits)| is_wanted(*bits));
                        let expected: BTreeSet<_> = wanted.map(|(id, _)| id.as_str()).collect();
                        let page = page(&broker, "alice", &query).await;
                        let got = ids(&page);
                        assert_eq!(got.len(), expected.len(), "{query}");
                        assert_eq!(
                            got.into_iter().collect::<BTreeSet<_>>(),
                            expected,
                            "{query}"
                        );
                        asked += usize::from(!expected.is_empty());
                    }
                }
            }
        }
    }
    assert!(asked > 100, "{asked}");
    broker.stop().await;
}
