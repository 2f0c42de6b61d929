//! Patches on me/inbox.

use homing::{
    client::cache::{Applied, Inbox},
    store::MIGRATOR,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{row, say, set};
use crate::harness::{TestBroker, Wire};

/// The next patch; nothing else comes before.
async fn patch(wire: &mut Wire) -> Value {
    let delivery = wire.delivery_of("inbox").await;
    assert_eq!(
        (delivery.topic.as_str(), delivery.packet_id),
        ("me/inbox", 0)
    );
    delivery.json()
}

/// The next patch for which that holds; older ones may come before.
async fn patch_with(wire: &mut Wire, mut is_it: impl FnMut(&Value) -> bool) -> Value {
    loop {
        let patch = patch(wire).await;
        if is_it(&patch) {
            return patch;
        }
    }
}

async fn watcher(broker: &TestBroker, user: &str, client_id: &str) -> Wire {
    let mut wire = broker.device(user, client_id).await;
    assert_eq!(wire.subscribe(&["me/inbox"]).await.len(), 1);
    wire
}

/// What a device holds of one conversation.
#[derive(Default)]
struct Held(Inbox);

impl Held {
    /// Takes the patches up to that version, each of which must build on what is held.
    async fn take(&mut self, wire: &mut Wire, version: &Value) -> Value {
        let patch = patch_with(wire, |patch| {
            let members = patch.as_object().unwrap().clone();
            assert_eq!(self.0.apply(members), Applied::Changed, "{patch}");
            patch["version"] == *version
        });
        patch.await
    }

    /// The row as the server would answer it now.
    fn row(&self) -> Value {
        let (_, row) = self.0.rows()[0];
        let mut members = row.fields.clone();
        members.insert("version".to_owned(), row.version.into());
        Value::Object(members)
    }
}

fn names(patch: &Value) -> Vec<&str> {
    patch
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Goal: whatever changes a row, a device that merges the patches holds the row.
#[sqlx::test(migrator = "MIGRATOR")]
async fn patches_merged_are_the_row_as_it_is(pool: PgPool) {
    let settings = [("inbox.patch_interval", "10ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = &broker.conversation(&["bob", "alice"]).await;
    let phone = watcher(&broker, "alice", "phone").await;
    let tablet = watcher(&broker, "alice", "tablet").await;
    let mut devices = [(phone, Held::default()), (tablet, Held::default())];

    say(&broker, "bob", group, "1").await;
    let expected = row(&broker, "alice", group).await;
    for (wire, held) in &mut devices {
        let patch = held.take(wire, &expected["version"]).await;
        assert_eq!(
            (&patch, &held.row()),
            (&expected, &expected),
            "the first is whole"
        );
    }
    for (change, changed) in [
        (json!({"read": 1}), "read"),
        (json!({"pinned": true}), "pinned_at"),
        (json!({"archived": true}), "archived"),
        (json!({"muted_until": "forever"}), "muted_until"),
        (json!({"muted_until": null}), "muted_until"),
    ] {
        let expected = set(&broker, "alice", group, change.clone()).await;
        for (wire, held) in &mut devices {
            let patch = held.take(wire, &expected["version"]).await;
            assert_eq!(held.row(), expected, "{change}");
            let mut always = vec![
                "archived",
                "conversation",
                "epoch",
                "mentions",
                "since_version",
                "unread",
                "version",
            ];
            always.push(changed);
            always.sort_unstable();
            always.dedup();
            assert_eq!(names(&patch), always, "{change}");
        }
    }
    let reaction = json!({"id": "2", "type": "reaction", "ref": 1, "body": {"key": "👍"}});
    super::post(&broker, "alice", group, &reaction).await;
    let expected = row(&broker, "alice", group).await;
    let [(mut phone, mut held), _tablet] = devices;
    held.take(&mut phone, &expected["version"]).await;
    assert_eq!(held.row(), expected);

    broker.remove(group, "alice").await;
    let expected = row(&broker, "alice", group).await;
    let removed = patch_with(&mut phone, |patch| patch["removed"] == true).await;
    assert_eq!(removed, expected);
    say(&broker, "bob", group, "3").await;
    phone.assert_quiet().await;

    broker.add(group, "alice").await;
    let back = patch(&mut phone).await;
    assert_eq!(back, row(&broker, "alice", group).await);
    broker.stop().await;
}

/// Goal: many changes at once cost few patches, and the last one tells them all.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_storm_is_told_in_few_patches(pool: PgPool) {
    let settings = [("inbox.patch_interval", "1s")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let mut phone = watcher(&broker, "alice", "phone").await;
    let mut bob = broker.device("bob", "phone").await;
    for number in 1..=50 {
        bob.say(group, &number.to_string()).await;
    }
    let mut patches = 0;
    let last = loop {
        patches += 1;
        let patch = patch(&mut phone).await;
        if patch["last_seq"] == 50 {
            break patch;
        }
    };
    assert_eq!(last["unread"], 50);
    assert!(patches <= 30, "{patches}");
    broker.stop().await;
}

/// Goal: patches that come twice, late or not at all leave a client right in the end.
#[sqlx::test(migrator = "MIGRATOR")]
async fn patches_in_any_order_end_in_the_same_row(pool: PgPool) {
    let settings = [("inbox.patch_interval", "1ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let mut phone = watcher(&broker, "alice", "phone").await;
    for number in 1..=6 {
        say(&broker, "bob", group, &number.to_string()).await;
        set(&broker, "alice", group, json!({"pinned": number % 2 == 0})).await;
    }
    let expected = row(&broker, "alice", group).await;
    let mut patches = Vec::new();
    let version = |row: &Value| row["version"].as_i64().unwrap();
    while patches.last().map(version) != Some(version(&expected)) {
        patches.push(patch(&mut phone).await);
    }
    assert!(patches.is_sorted_by_key(version), "{patches:?}");
    // Every order of a few of them, each twice; whoever misses one asks for the row.
    let seeds = [0x9e37_79b9_u64, 0x85eb_ca6b, 0xc2b2_ae35];
    for seed in seeds {
        let mut shuffled: Vec<_> = patches.iter().chain(&patches).collect();
        shuffled.sort_by_key(|patch| {
            let text = patch.to_string();
            text.bytes().fold(seed, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        });
        let (mut held, mut has_missed) = (Held::default(), false);
        for patch in shuffled {
            let applied = held.0.apply(patch.as_object().unwrap().clone());
            has_missed |= applied == Applied::Missed;
        }
        if has_missed {
            held.0.apply(expected.as_object().unwrap().clone());
        }
        assert_eq!(held.row(), expected);
    }
    broker.stop().await;
}

/// Goal: a device that connects in between, or again, is not told of changes that it cannot place.
#[sqlx::test(migrator = "MIGRATOR")]
async fn each_connection_is_told_the_whole_row_first(pool: PgPool) {
    let settings = [("inbox.patch_interval", "1ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let mut phone = watcher(&broker, "alice", "phone").await;
    for number in 1..=3 {
        say(&broker, "bob", group, &number.to_string()).await;
        let said = row(&broker, "alice", group).await;
        patch_with(&mut phone, |patch| patch["version"] == said["version"]).await;
        let mut tablet = watcher(&broker, "alice", "tablet").await;
        let silenced = json!({"notify_mentions": number % 2 == 0});
        let last = set(&broker, "alice", group, silenced).await;
        let first = patch(&mut tablet).await;
        assert!(first.get("since_version").is_none(), "{first}");
        assert_eq!(first, last);
        let is_last = |patch: &Value| patch["version"] == last["version"];
        let known = patch_with(&mut phone, is_last).await;
        assert_eq!(known["since_version"], said["version"], "{known}");
        tablet.disconnect().await;
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_does_not_subscribe_is_told_nothing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/device"]).await;
    let mut tablet = watcher(&broker, "alice", "tablet").await;
    let mut foreign = watcher(&broker, "carol", "phone").await;
    say(&broker, "bob", group, "1").await;
    patch(&mut tablet).await;
    phone.assert_quiet().await;
    foreign.assert_quiet().await;
    tablet.unsubscribe("me/inbox").await;
    say(&broker, "bob", group, "2").await;
    tablet.assert_quiet().await;
    broker.stop().await;
}

/// Goal: a list shows a new conversation before anybody writes to it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_new_conversation_is_told_to_all_who_take_part(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = watcher(&broker, "bob", "phone").await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    assert_eq!(patch(&mut phone).await, row(&broker, "bob", group).await);
    broker.stop().await;
}
