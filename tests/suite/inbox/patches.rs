//! Patches on me/inbox.

use homing::store::MIGRATOR;
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
async fn patch_with(wire: &mut Wire, is_it: impl Fn(&Value) -> bool) -> Value {
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

/// Goal: whatever changes a row, the patch is the row.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_patch_is_the_row_as_it_is(pool: PgPool) {
    let settings = [("inbox.patch_interval", "10ms")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = &broker.conversation(&["bob", "alice"]).await;
    let mut phone = watcher(&broker, "alice", "phone").await;
    let mut tablet = watcher(&broker, "alice", "tablet").await;

    say(&broker, "bob", group, "1").await;
    let expected = row(&broker, "alice", group).await;
    for wire in [&mut phone, &mut tablet] {
        assert_eq!(patch(wire).await, expected);
    }
    for change in [
        json!({"read": 1}),
        json!({"pinned": true}),
        json!({"archived": true}),
        json!({"muted_until": "forever"}),
        json!({"muted_until": null}),
    ] {
        let expected = set(&broker, "alice", group, change.clone()).await;
        for wire in [&mut phone, &mut tablet] {
            let patch = patch_with(wire, |patch| patch["version"] == expected["version"]).await;
            assert_eq!(patch, expected, "{change}");
        }
    }
    let reaction = json!({"id": "2", "type": "reaction", "ref": 1, "body": {"key": "👍"}});
    super::post(&broker, "alice", group, &reaction).await;
    let expected = row(&broker, "alice", group).await;
    let patched = patch_with(&mut phone, |patch| patch["version"] == expected["version"]).await;
    assert_eq!(patched, expected);

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
    while patches.last() != Some(&expected) {
        patches.push(patch(&mut phone).await);
    }
    let version = |row: &Value| row["version"].as_i64().unwrap();
    assert!(patches.is_sorted_by_key(version), "{patches:?}");
    // Every order of a few of them, each twice.
    let seeds = [0x9e37_79b9_u64, 0x85eb_ca6b, 0xc2b2_ae35];
    for seed in seeds {
        let mut shuffled: Vec<_> = patches.iter().chain(&patches).collect();
        shuffled.sort_by_key(|patch| {
            let text = patch.to_string();
            text.bytes().fold(seed, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        });
        let mut shown = json!({"version": -1});
        for patch in shuffled {
            if version(patch) > version(&shown) {
                shown = patch.clone();
            }
        }
        assert_eq!(shown, expected);
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
