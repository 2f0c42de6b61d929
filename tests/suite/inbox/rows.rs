//! What a row shows, and that its version tells.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{post, row, say, set};
use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_row_shows_all_that_a_list_needs(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let body = json!({"participants": ["alice", "bob"], "title": "Lunch", "kind": "group"});
    let (_, group) = broker.rest(Method::POST, "admin", "", Some(body)).await;
    let group = group["id"].as_str().unwrap();
    post(
        &broker,
        "alice",
        group,
        &json!({"id": "1", "body": "pizza?", "mentions": ["bob"]}),
    )
    .await;
    let long = "ü".repeat(300);
    post(&broker, "alice", group, &json!({"id": "2", "body": long})).await;

    let mut shown = row(&broker, "bob", group).await;
    let activity = shown["activity_at"].take();
    assert_eq!(shown["last_message"]["at"].take(), activity);
    let mut expected = json!({
        "conversation": group, "version": 2, "kind": "group", "title": "Lunch", "epoch": 1,
        "first_seq": 1, "last_seq": 2, "activity_at": null,
        "last_message": {"seq": 2, "from": "alice", "at": null, "type": "text",
                         "preview": "ü".repeat(200), "retracted": false, "expired": false},
        "unread": 2, "mentions": 1, "read": 0, "role": "member",
        "muted_until": null, "notify_mentions": true, "silenced_until": null,
        "pinned_at": null, "archived": false, "removed": false,
    });
    expected["settings"] = shown["settings"].clone();
    assert_eq!(shown["settings"]["receipts"], true);
    assert_eq!(shown, expected);
    // To who wrote them, they are not unread.
    let own = row(&broker, "alice", group).await;
    assert_eq!((&own["unread"], &own["mentions"]), (&json!(0), &json!(0)));

    let body = json!({"participants": ["bob"], "kind": "direct"});
    let (_, direct) = broker.rest(Method::POST, "alice", "", Some(body)).await;
    let direct = direct["id"].as_str().unwrap();
    for (user, other) in [("alice", "bob"), ("bob", "alice")] {
        let shown = row(&broker, user, direct).await;
        assert_eq!(
            (&shown["with"], &shown["kind"]),
            (&json!(other), &json!("direct"))
        );
        assert_eq!(shown["last_message"], Value::Null);
    }
    broker.stop().await;
}

/// Goal: the preview follows the message: edited, retracted, not a text.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_last_message_is_shown_as_it_is_now(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let last = async || row(&broker, "bob", group).await["last_message"].clone();
    let first = say(&broker, "alice", group, "1").await;
    let edit = json!({"id": "2", "type": "edit", "ref": first, "body": "better"});
    post(&broker, "alice", group, &edit).await;
    assert_eq!(
        (&last().await["preview"], &last().await["seq"]),
        (&json!("better"), &json!(1))
    );

    let retract = json!({"id": "3", "type": "retract", "ref": first});
    post(&broker, "alice", group, &retract).await;
    let shown = last().await;
    assert_eq!(
        (&shown["preview"], &shown["retracted"]),
        (&Value::Null, &json!(true))
    );
    let shown = row(&broker, "bob", group).await;
    assert_eq!(
        (&shown["unread"], &shown["version"]),
        (&json!(0), &json!(3))
    );

    for (id, message) in [
        (
            "4",
            json!({"id": "4", "type": "card", "body": {"text": "no text"}}),
        ),
        ("5", json!({"id": "5", "bytes": "Z2VoZWlt"})),
    ] {
        post(&broker, "alice", group, &message).await;
        assert_eq!(last().await["preview"], Value::Null, "{id}");
    }

    say(&broker, "alice", group, "6").await;
    assert!(last().await["preview"].is_string());
    sqlx::query("update messages set expires_at = now() where client_message_id = '6'")
        .execute(&pool)
        .await
        .unwrap();
    let shown = last().await;
    assert_eq!(
        (&shown["preview"], &shown["expired"]),
        (&Value::Null, &json!(true))
    );
    broker.stop().await;
}

/// Goal: who comes later is shown no message from before, if the history begins later.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_newcomer_is_shown_nothing_from_before(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice"]).await;
    sqlx::query("update conversations set history_depth = 0")
        .execute(&pool)
        .await
        .unwrap();
    say(&broker, "alice", group, "1").await;
    let joined = broker.add(group, "bob").await;
    sqlx::query("update participants set visible_from = joined_seq")
        .execute(&pool)
        .await
        .unwrap();
    let shown = row(&broker, "bob", group).await;
    assert_eq!(
        (&shown["last_message"], &shown["unread"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(shown["first_seq"], joined);
    say(&broker, "alice", group, "2").await;
    let shown = row(&broker, "bob", group).await;
    assert_eq!(
        (&shown["last_message"]["seq"], &shown["unread"]),
        (&json!(3), &json!(1))
    );
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn reading_over_the_inbox_counts_down(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    for id in ["1", "2", "3"] {
        say(&broker, "alice", group, id).await;
    }
    let before = row(&broker, "bob", group).await;
    let after = set(&broker, "bob", group, json!({"read": 2})).await;
    assert_eq!((&after["unread"], &after["read"]), (&json!(1), &json!(2)));
    assert!(after["version"].as_i64() > before["version"].as_i64());
    // Backwards, and again: nothing changes.
    for read in [1, 2] {
        assert_eq!(
            set(&broker, "bob", group, json!({"read": read})).await,
            after
        );
    }
    // There is nothing beyond the newest entry.
    let after = set(&broker, "bob", group, json!({"read": 99})).await;
    assert_eq!((&after["unread"], &after["read"]), (&json!(0), &json!(3)));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_was_removed_is_shown_that_alone(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    say(&broker, "alice", group, "1").await;
    let before = row(&broker, "bob", group).await["version"]
        .as_i64()
        .unwrap();
    broker.remove(group, "bob").await;
    let removed = row(&broker, "bob", group).await;
    let version = removed["version"].as_i64().unwrap();
    assert!(version > before);
    let expected = json!({"conversation": group, "version": version, "removed": true});
    assert_eq!(removed, expected);
    // What happens later is none of his business.
    say(&broker, "alice", group, "2").await;
    assert_eq!(row(&broker, "bob", group).await, removed);
    broker.add(group, "bob").await;
    let back = row(&broker, "bob", group).await;
    assert!(back["version"].as_i64().unwrap() > version && back["removed"] == false);
    broker.stop().await;
}
