//! What users set in their inboxes.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{ids, page, row, say, set};
use crate::harness::TestBroker;

fn version(row: &Value) -> i64 {
    row["version"].as_i64().unwrap()
}

/// Goal: the version rises with what changes, by one, and with nothing else.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_version_rises_with_what_changes(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    say(&broker, "bob", group, "1").await;
    let mut before = row(&broker, "alice", group).await;
    let alone = row(&broker, "bob", group).await;
    for (change, rises) in [
        (json!({"pinned": true}), 1),
        (json!({"pinned": true}), 0),
        (json!({}), 0),
        (json!({"archived": true}), 1),
        (json!({"archived": true, "pinned": true}), 0),
        (json!({"muted_until": "forever"}), 1),
        (
            json!({"muted_until": "forever", "notify_mentions": true}),
            0,
        ),
        (json!({"muted_until": 1_766_400_600_000_i64}), 1),
        (json!({"notify_mentions": false}), 1),
        (
            json!({"notify_mentions": null, "muted_until": null, "pinned": null, "archived": null}),
            1,
        ),
        (json!({"pinned": false, "archived": false}), 0),
    ] {
        let after = set(&broker, "alice", group, change.clone()).await;
        assert_eq!(version(&after) - version(&before), rises, "{change}");
        assert_eq!(rises == 0, after == before, "{change}: {after}");
        before = after;
    }
    assert_eq!(row(&broker, "bob", group).await, alone);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_archived_comes_back_with_a_message_unless_it_is_muted(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    say(&broker, "bob", group, "1").await;
    let archived = set(&broker, "alice", group, json!({"archived": true})).await;
    assert_eq!(archived["archived"], true);
    // A reaction is no message.
    let reaction = json!({"id": "2", "type": "reaction", "ref": 1, "body": {"key": "👍"}});
    super::post(&broker, "bob", group, &reaction).await;
    assert_eq!(row(&broker, "alice", group).await["archived"], true);
    say(&broker, "bob", group, "3").await;
    assert_eq!(row(&broker, "alice", group).await["archived"], false);

    let both = json!({"archived": true, "muted_until": "forever"});
    set(&broker, "alice", group, both).await;
    say(&broker, "bob", group, "4").await;
    assert_eq!(row(&broker, "alice", group).await["archived"], true);
    let unmuted = set(&broker, "alice", group, json!({"muted_until": null})).await;
    assert_eq!(unmuted["archived"], false);
    broker.stop().await;
}

/// Goal: a mute that ends by itself lets the conversation come back, in its row and on the
/// pages, if there was a message meanwhile; and only then.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_archived_and_muted_comes_back_when_the_mute_is_over(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let [loud, quiet] = [
        broker.conversation(&["alice", "bob"]).await,
        broker.conversation(&["alice", "bob"]).await,
    ];
    let later = 4_000_000_000_000_i64;
    for group in [&loud, &quiet] {
        say(&broker, "bob", group, "1").await;
        let both = json!({"archived": true, "muted_until": later});
        set(&broker, "alice", group, both).await;
    }
    say(&broker, "bob", &loud, "2").await;
    let where_they_are = async || {
        let mut shown = Vec::new();
        for query in [
            "",
            "?archived=true",
            "?unread=true",
            "?archived=true&unread=true",
        ] {
            let page = page(&broker, "alice", query).await;
            let ids = ids(&page).into_iter().map(|id| *id == *loud);
            shown.push(ids.collect::<Vec<_>>());
        }
        let archived = [
            row(&broker, "alice", &loud).await["archived"] == true,
            row(&broker, "alice", &quiet).await["archived"] == true,
        ];
        (shown, archived)
    };
    let none = Vec::new();
    let both = vec![true, false];
    let muted = vec![none.clone(), both.clone(), none, both];
    assert_eq!(where_they_are().await, (muted, [true, true]));
    // Time passes.
    let over = "update participants set muted_until = now() - interval '1 second'
                where muted_until is not null";
    sqlx::query(over).execute(&pool).await.unwrap();
    let (loud_alone, quiet_alone) = (vec![true], vec![false]);
    let back = vec![
        loud_alone.clone(),
        quiet_alone.clone(),
        loud_alone,
        quiet_alone,
    ];
    assert_eq!(where_they_are().await, (back, [false, true]));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_change_that_is_based_on_an_old_row_is_refused(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let seen = version(&row(&broker, "alice", group).await);
    let path = format!("/{group}/inbox");
    let change = json!({"pinned": true, "if_version": seen});
    let pinned = set(&broker, "alice", group, change.clone()).await;
    let (status, problem) = broker
        .rest(Method::PATCH, "alice", &path, Some(change.clone()))
        .await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (412, &json!("urn:homing:problem:precondition-failed"))
    );
    assert_eq!(row(&broker, "alice", group).await, pinned);
    let (status, _) = broker
        .rest(Method::PATCH, "carol", &path, Some(change))
        .await;
    assert_eq!(status, 404);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn muting_elsewhere_shows_in_the_inbox(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let before = row(&broker, "alice", group).await;
    let path = format!("/{group}/notifications");
    let mute = json!({"muted_until": "forever", "mentions": false});
    let (status, answer) = broker
        .rest(Method::PUT, "alice", &path, Some(mute.clone()))
        .await;
    assert_eq!((status.as_u16(), &answer), (200, &mute));
    let after = row(&broker, "alice", group).await;
    assert_eq!(version(&after), version(&before) + 1);
    let shown = (&after["muted_until"], &after["notify_mentions"]);
    assert_eq!(shown, (&json!("forever"), &json!(false)));
    broker.stop().await;
}

/// Goal: what came back by a message stays where it is, whatever is said of notifications.
#[sqlx::test(migrator = "MIGRATOR")]
async fn muting_does_not_archive_what_came_back(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    say(&broker, "bob", group, "1").await;
    for change in [
        json!({"muted_until": "forever"}),
        json!({"muted_until": "forever", "pinned": true}),
    ] {
        set(&broker, "alice", group, json!({"archived": true})).await;
        say(&broker, "bob", group, &change.to_string()).await;
        let before = row(&broker, "alice", group).await;
        assert_eq!(before["archived"], false);
        let muted = set(&broker, "alice", group, change.clone()).await;
        assert_eq!(muted["archived"], false, "{change}");
        assert_eq!(version(&muted) - version(&before), 1, "{change}");
        let unmuted = set(&broker, "alice", group, json!({"muted_until": null})).await;
        assert_eq!(unmuted["archived"], false, "{change}");
    }
    set(&broker, "alice", group, json!({"archived": true})).await;
    say(&broker, "bob", group, "again").await;
    let path = format!("/{group}/notifications");
    let mute = json!({"muted_until": "forever"});
    broker.rest(Method::PUT, "alice", &path, Some(mute)).await;
    assert_eq!(row(&broker, "alice", group).await["archived"], false);
    // What is archived stays archived.
    set(&broker, "alice", group, json!({"archived": true})).await;
    let pinned = set(&broker, "alice", group, json!({"pinned": false})).await;
    assert_eq!(pinned["archived"], true);
    say(&broker, "bob", group, "late").await;
    assert_eq!(row(&broker, "alice", group).await["archived"], true);
    broker.stop().await;
}
