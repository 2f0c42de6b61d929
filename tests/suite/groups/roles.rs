//! Roles: who gives and takes them, and the owner that a group keeps.

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use super::{entries, give_role, group, put_participant, remove, seen};
use crate::harness::TestBroker;

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_role_changes_at_an_entry_of_the_log(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    assert_eq!(
        give_role(&broker, "alice", &cid, "bob", "admin")
            .await
            .seq(),
        1
    );
    for same in [json!({"role": "admin"}), json!({})] {
        let again = put_participant(&broker, "alice", &cid, "bob", same).await;
        again.assert_unchanged();
    }
    assert_eq!(seen(&broker, "bob", &cid).await["role"], "admin");
    let expected = json!({"change": "role", "user": "bob", "role": "admin"});
    assert_eq!(entries(&broker, "bob", &cid).await, [(1, expected)]);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_group_begins_with_the_roles_that_were_asked_for(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"bob": "admin", "carol": "readonly", "dave": "owner"});
    let cid = group(&broker, &["alice", "bob", "carol", "dave", "erin"], roles).await;
    for (user, role) in [
        ("alice", "owner"),
        ("bob", "admin"),
        ("carol", "readonly"),
        ("dave", "owner"),
        ("erin", "member"),
    ] {
        assert_eq!(seen(&broker, user, &cid).await["role"], role, "{user}");
    }
    for (roles, says) in [
        (json!({"mallory": "admin"}), "mallory"),
        (json!({"alice": "member"}), "no owner"),
        (json!({"alice": "king"}), "king"),
    ] {
        let body = json!({"participants": ["alice", "bob"], "kind": "group", "roles": roles});
        let path = "/conversations";
        let refused = super::ask(&broker, reqwest::Method::POST, "admin", path, Some(body)).await;
        refused.assert_problem(400, "invalid", says);
    }
    broker.stop().await;
}

/// An admin manages members and readonly participants, and no one above.
#[sqlx::test(migrator = "MIGRATOR")]
async fn an_admin_decides_over_members_alone(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"bob": "admin", "carol": "admin", "erin": "readonly"});
    let cid = group(&broker, &["alice", "bob", "carol", "dave", "erin"], roles).await;

    for (user, role) in [("alice", "member"), ("carol", "member"), ("carol", "owner")] {
        let refused = give_role(&broker, "bob", &cid, user, role).await;
        refused.assert_problem(403, "forbidden", "only an owner");
    }
    for user in ["alice", "carol"] {
        let refused = remove(&broker, "bob", &cid, user).await;
        refused.assert_problem(403, "forbidden", "only an owner");
    }
    for user in ["dave", "frank"] {
        let refused = give_role(&broker, "bob", &cid, user, "owner").await;
        refused.assert_problem(403, "forbidden", "only an owner");
    }
    assert_eq!(
        give_role(&broker, "bob", &cid, "dave", "readonly")
            .await
            .seq(),
        1
    );
    assert_eq!(
        give_role(&broker, "bob", &cid, "erin", "admin").await.seq(),
        2
    );
    assert_eq!(
        give_role(&broker, "bob", &cid, "grace", "admin")
            .await
            .seq(),
        3
    );
    assert_eq!(remove(&broker, "bob", &cid, "dave").await.seq(), 4);

    for (by, says) in [("heidi", ""), ("dave", "")] {
        let refused = give_role(&broker, by, &cid, "bob", "member").await;
        refused.assert_problem(404, "not-found", says);
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_manages_nothing_lowers_only_themself(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"bob": "admin", "dave": "readonly"});
    let cid = group(&broker, &["alice", "bob", "carol", "dave"], roles).await;
    for (by, user, role) in [
        ("carol", "carol", "admin"),
        ("carol", "dave", "member"),
        ("dave", "dave", "member"),
        ("dave", "erin", "member"),
    ] {
        let refused = give_role(&broker, by, &cid, user, role).await;
        refused.assert_problem(403, "forbidden", "an owner or an admin");
    }
    let refused = give_role(&broker, "bob", &cid, "bob", "owner").await;
    refused.assert_problem(403, "forbidden", "only an owner");
    assert_eq!(
        give_role(&broker, "bob", &cid, "bob", "member").await.seq(),
        1
    );
    assert_eq!(
        give_role(&broker, "carol", &cid, "carol", "readonly")
            .await
            .seq(),
        2
    );
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_group_keeps_an_owner(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({"bob": "admin"})).await;
    for by in ["alice", "admin"] {
        let refused = give_role(&broker, by, &cid, "alice", "admin").await;
        refused.assert_problem(409, "last-owner", "make somebody else an owner");
        let refused = remove(&broker, by, &cid, "alice").await;
        refused.assert_problem(409, "last-owner", "make somebody else an owner");
    }
    assert!(entries(&broker, "alice", &cid).await.is_empty());

    assert_eq!(
        give_role(&broker, "alice", &cid, "bob", "owner")
            .await
            .seq(),
        1
    );
    assert_eq!(remove(&broker, "alice", &cid, "alice").await.seq(), 2);
    let refused = remove(&broker, "bob", &cid, "bob").await;
    assert_eq!(refused.seq(), 3, "the last one may leave");
    broker.stop().await;
}

/// An empty group begins anew with an owner.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_first_one_in_an_empty_group_owns_it(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice"], json!({})).await;
    assert_eq!(remove(&broker, "alice", &cid, "alice").await.seq(), 1);
    let refused = give_role(&broker, "admin", &cid, "bob", "member").await;
    refused.assert_problem(409, "last-owner", "");
    let added = put_participant(&broker, "admin", &cid, "bob", json!({})).await;
    assert_eq!(added.seq(), 2);
    assert_eq!(seen(&broker, "bob", &cid).await["role"], "owner");
    broker.stop().await;
}

/// Goal: rights switch exactly at the entry, for who is connected and publishes all the time.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_becomes_readonly_writes_nothing_behind_that_entry(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let mut bob = broker.device("bob", "phone").await;
    let mut switches = Vec::new();
    let mut stored = Vec::new();
    for round in 0..8 {
        for number in 0..4 {
            bob.begin_say(&cid, &format!("{round} {number}")).await;
        }
        let role = if round % 2 == 0 { "readonly" } else { "member" };
        switches.push((
            give_role(&broker, "alice", &cid, "bob", role).await.seq(),
            role,
        ));
        for _ in 0..4 {
            let puback = bob.puback().await;
            if puback.code == 0 {
                stored.push(
                    puback
                        .properties
                        .user("seq")
                        .unwrap()
                        .parse::<i64>()
                        .unwrap(),
                );
            } else {
                assert_eq!(puback.code, 0x87);
            }
        }
    }
    for seq in &stored {
        let before = switches.iter().rev().find(|(switch, _)| switch < seq);
        assert!(
            before.is_none_or(|(_, role)| *role == "member"),
            "{seq} {switches:?}"
        );
    }
    let log = entries(&broker, "alice", &cid).await;
    assert_eq!(log.len(), stored.len() + switches.len());
    broker.stop().await;
}
