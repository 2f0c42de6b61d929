//! What users set in their inboxes.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{row, say, set};
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
