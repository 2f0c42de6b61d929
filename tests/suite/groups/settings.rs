//! Title, archive and settings, for everybody.

use homing::store::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{change, entries, group, put_participant, say, seen};
use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn each_change_is_one_entry_and_what_is_so_already_is_none(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({"bob": "admin"})).await;
    let settings = json!({"receipts": false, "history_depth": 10, "retention_seconds": 3600});
    let many = json!({"title": null, "archived": true, "history_depth": null, "receipts": false});
    let changes = [
        (
            json!({"title": "Hiking"}),
            json!({"change": "renamed", "title": "Hiking"}),
        ),
        (json!({"archived": true}), json!({"change": "archived"})),
        (json!({"archived": false}), json!({"change": "unarchived"})),
        (settings.clone(), {
            let mut entry = settings;
            entry["change"] = "settings".into();
            entry
        }),
        (
            many,
            json!({"change": "settings", "title": null, "archived": true, "history_depth": null}),
        ),
        (
            json!({"title": "Peaks"}),
            json!({"change": "renamed", "title": "Peaks"}),
        ),
    ];
    let mut expected: Vec<(i64, Value)> = Vec::new();
    for (number, (body, entry)) in changes.into_iter().enumerate() {
        let by = if number % 2 == 0 { "alice" } else { "bob" };
        let seq = i64::try_from(number).unwrap() + 1;
        assert_eq!(
            change(&broker, by, &cid, body.clone()).await.seq(),
            seq,
            "{body}"
        );
        change(&broker, by, &cid, body).await.assert_unchanged();
        expected.push((seq, entry));
    }
    change(&broker, "alice", &cid, json!({}))
        .await
        .assert_unchanged();

    assert_eq!(entries(&broker, "bob", &cid).await, expected);
    let seen = seen(&broker, "bob", &cid).await;
    for (name, value) in [
        ("title", json!("Peaks")),
        ("archived", json!(true)),
        ("receipts", json!(false)),
        ("history_depth", json!(null)),
        ("retention_seconds", json!(3600)),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn only_owners_and_admins_change_a_group(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"carol": "readonly"});
    let cid = group(&broker, &["alice", "bob", "carol"], roles).await;
    for by in ["bob", "carol"] {
        let refused = change(&broker, by, &cid, json!({"title": "Mine"})).await;
        refused.assert_problem(403, "forbidden", "an owner or an admin");
    }
    let refused = change(&broker, "mallory", &cid, json!({"title": "Mine"})).await;
    refused.assert_problem(404, "not-found", "");
    let renamed = change(&broker, "admin", &cid, json!({"title": "Ours"})).await;
    assert_eq!(renamed.seq(), 1);
    for (body, says) in [
        (json!({"title": ""}), "a title"),
        (json!({"title": "a\nb"}), "a title"),
        (json!({"title": "x".repeat(257)}), "a title"),
        (json!({"history_depth": -1}), "history_depth"),
        (json!({"retention_seconds": 0}), "retention_seconds"),
        (
            json!({"retention_seconds": 3_155_760_001_i64}),
            "retention_seconds",
        ),
        (json!({"archived": "yes"}), "bool"),
        (json!({"colour": "red"}), "colour"),
    ] {
        let refused = change(&broker, "alice", &cid, body).await;
        refused.assert_problem(400, "invalid", says);
    }
    broker.stop().await;
}

/// Goal: participants that are connected hear of a change at its sequence.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_change_is_delivered_in_its_place(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&cid, "before").await;
    assert_eq!(
        change(&broker, "alice", &cid, json!({"title": "New"}))
            .await
            .seq(),
        2
    );
    sender.say(&cid, "after").await;
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        let delivery = phone.delivery().await;
        phone.acknowledge(delivery.packet_id).await;
        deliveries.push(delivery.json());
    }
    assert_eq!(deliveries[1]["type"], "homing.conversation");
    assert_eq!(
        deliveries[1]["body"],
        json!({"change": "renamed", "title": "New"})
    );
    assert_eq!(deliveries[1]["from"], "alice");
    let order: Vec<_> = deliveries
        .iter()
        .map(|entry| entry["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(order, [1, 2, 3]);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_takes_part_in_an_archived_group_still_changes(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice"], json!({})).await;
    assert_eq!(
        change(&broker, "alice", &cid, json!({"archived": true}))
            .await
            .seq(),
        1
    );
    let added = put_participant(&broker, "alice", &cid, "bob", json!({})).await;
    assert_eq!(added.seq(), 2);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn nothing_is_written_to_an_archived_group_until_it_is_opened(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    change(&broker, "alice", &cid, json!({"archived": true})).await;
    for by in ["alice", "bob"] {
        let refused = say(&broker, by, &cid, "1").await;
        refused.assert_problem(409, "archived", "");
    }
    assert_eq!(entries(&broker, "bob", &cid).await.len(), 1);
    change(&broker, "alice", &cid, json!({"archived": false})).await;
    assert_eq!(say(&broker, "bob", &cid, "1").await.body["seq"], 3);
    broker.stop().await;
}
