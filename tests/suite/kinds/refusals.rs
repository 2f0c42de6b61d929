//! What is refused, and how each way in says so.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{edit, entries, post, reaction, retract, text};
use crate::harness::{TestBroker, Wire};

/// The same message over MQTT 5, MQTT 3.1.1 and REST.
struct Ways {
    broker: TestBroker,
    user: &'static str,
    phone: Wire,
    old: Wire,
}

impl Ways {
    async fn of(broker: TestBroker, user: &'static str) -> Self {
        let phone = broker.device(user, "phone").await;
        let (mut old, _) = broker.connect(broker.v3(user, "old phone")).await;
        assert_eq!(old.subscribe(&["me/device"]).await, [1]);
        Self {
            broker,
            user,
            phone,
            old,
        }
    }

    async fn assert_refused(
        &mut self,
        group: &str,
        message: &Value,
        code: u8,
        problem: (u16, &str),
    ) {
        let (topic, payload) = (format!("c/{group}/send"), message.to_string());
        let refused = self.phone.ask(&topic, payload.as_bytes()).await;
        assert_eq!(refused.code, code, "{message}: {refused:?}");
        let why = refused.properties.text(0x1f).unwrap().to_owned();
        assert!(!why.is_empty());

        let event = self
            .old
            .ask_refused(&topic, payload.as_bytes())
            .await
            .json();
        assert_eq!(
            (&event["event"], &event["code"]),
            (&json!("refused"), &json!(code))
        );
        assert_eq!(event["reason"], why);

        let (status, body) = post(&self.broker, self.user, group, message).await;
        let kind = format!("urn:homing:problem:{}", problem.1);
        assert_eq!(
            (status, body["type"].as_str()),
            (problem.0, Some(kind.as_str())),
            "{body}"
        );
    }
}

/// Goal: who may not change a message is told so, and nothing is stored.
#[sqlx::test(migrator = "MIGRATOR")]
async fn changes_are_refused_with_their_reason(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let body = json!({"participants": ["bob"], "kind": "group"});
    let (_, created) = broker.rest(Method::POST, "alice", "", Some(body)).await;
    let group = created["id"].as_str().unwrap().to_owned();
    let foreign = broker.conversation(&["carol"]).await;
    for message in [
        text("1", "alice's"),
        text("2", "gone"),
        retract("3", 2),
        text("4", "late"),
    ] {
        assert_eq!(post(&broker, "alice", &group, &message).await.0, 201);
    }
    post(&broker, "bob", &group, &text("5", "bob's")).await;
    post(&broker, "carol", &foreign, &text("1", "carol's")).await;
    sqlx::query("update messages set expires_at = now() where client_message_id = '4'")
        .execute(&pool)
        .await
        .unwrap();
    let before = entries(&broker, "alice", &group).await.len();

    let mut bob = Ways::of(broker, "bob").await;
    let mut number = 0;
    let mut fresh = |mut message: Value| {
        number += 1;
        message["id"] = format!("x{number}").into();
        message
    };
    for (message, code, problem) in [
        (edit("", 1, "mine now"), 0x87, (403, "not-author")),
        (retract("", 1), 0x87, (403, "not-author")),
        (edit("", 99, "what"), 0x99, (404, "not-found")),
        (retract("", 99), 0x99, (404, "not-found")),
        (reaction("", 99, "👍"), 0x99, (404, "not-found")),
        // An entry of the log that is no message.
        (reaction("", 3, "👍"), 0x99, (404, "not-found")),
        (reaction("", 2, "👍"), 0x83, (409, "retracted")),
        (reaction("", 4, "👍"), 0x83, (409, "retracted")),
    ] {
        bob.assert_refused(&group, &fresh(message), code, problem)
            .await;
    }
    bob.assert_refused(&foreign, &reaction("f", 1, "👍"), 0x87, (404, "not-found"))
        .await;
    let mut alice = Ways::of(bob.broker, "alice").await;
    for (message, code, problem) in [
        (edit("", 5, "mine now"), 0x87, (403, "not-author")),
        (edit("", 2, "back"), 0x83, (409, "retracted")),
        (retract("", 2), 0x83, (409, "retracted")),
    ] {
        alice
            .assert_refused(&group, &fresh(message), code, problem)
            .await;
    }
    assert_eq!(entries(&alice.broker, "alice", &group).await.len(), before);
    // Owners and admins take back what others said, each other's too.
    for (id, role) in [("7", "admin"), ("8", "owner")] {
        let said = text(id, "alice's");
        let (_, said) = post(&alice.broker, "alice", &group, &said).await;
        let path = format!("/{group}/participants/bob");
        let role = Some(json!({"role": role}));
        let put = alice.broker.rest(Method::PUT, "alice", &path, role);
        assert_eq!(put.await.0, 200);
        let taken = retract(&format!("bob {id}"), said["seq"].as_i64().unwrap());
        assert_eq!(post(&alice.broker, "bob", &group, &taken).await.0, 201);
    }
    assert_eq!(
        post(&alice.broker, "alice", &group, &retract("9", 5))
            .await
            .0,
        201
    );
    alice.broker.stop().await;
}

/// Goal: an answer refers to what is in the log already and may be read, or it is refused.
#[sqlx::test(migrator = "MIGRATOR")]
async fn an_answer_names_what_its_sender_may_read(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    post(&broker, "alice", &group, &text("1", "early")).await;
    broker.add(&group, "carol").await;
    let answer = |id: &str, reply_to: i64| json!({"id": id, "body": "yes", "reply_to": reply_to});
    let mut carol = Ways::of(broker, "carol").await;
    for (id, reply_to) in [("ahead", 3), ("far ahead", i64::MAX), ("of before", 1)] {
        let answer = answer(id, reply_to);
        carol
            .assert_refused(&group, &answer, 0x99, (404, "not-found"))
            .await;
    }
    let answered = post(&carol.broker, "carol", &group, &answer("2", 2)).await;
    assert_eq!(answered, (201, json!({"seq": 3})));
    let answered = post(&carol.broker, "bob", &group, &answer("3", 1)).await;
    assert_eq!(answered, (201, json!({"seq": 4})));
    carol.broker.stop().await;
}

/// Goal: a closed conversation, a silenced and a blocked participant: neither messages nor
/// changes are taken, while a repeat is still answered with its sequence.
#[sqlx::test(migrator = "MIGRATOR")]
async fn whoever_may_not_write_now_is_told_why(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    assert_eq!(
        post(&broker, "bob", &group, &text("1", "mine")).await.0,
        201
    );
    let mut bob = Ways::of(broker, "bob").await;
    for (so, code, problem, not_so) in [
        (
            "update conversations set archived_at = now()",
            0x87,
            (409, "archived"),
            "update conversations set archived_at = null",
        ),
        (
            "update participants set silenced_until = now() + interval '1 hour'",
            0x87,
            (403, "silenced"),
            "update participants set silenced_until = now() - interval '1 hour'",
        ),
        (
            "update participants set is_blocked = true",
            0x87,
            (403, "blocked"),
            "update participants set is_blocked = false",
        ),
    ] {
        sqlx::query(so).execute(&pool).await.unwrap();
        for message in [
            text("2", "more"),
            edit("3", 1, "other"),
            reaction("4", 1, "👍"),
        ] {
            bob.assert_refused(&group, &message, code, problem).await;
        }
        let repeated = post(&bob.broker, "bob", &group, &text("1", "mine")).await;
        assert_eq!(repeated, (200, json!({"seq": 1, "duplicate": true})));
        sqlx::query(not_so).execute(&pool).await.unwrap();
    }
    assert_eq!(
        post(&bob.broker, "bob", &group, &text("2", "more")).await.1,
        json!({"seq": 2})
    );
    bob.broker.stop().await;
}

/// Goal: one message has a bounded number of reactions; those it has may still be given.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_message_has_a_bounded_number_of_reactions(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    post(&broker, "alice", &group, &text("0", "hi")).await;
    let mut alice = broker.device("alice", "phone").await;
    for number in 1..=50 {
        let key = number.to_string();
        super::send(&mut alice, &group, &reaction(&key, 1, &key)).await;
    }
    let mut bob = Ways::of(broker, "bob").await;
    bob.assert_refused(&group, &reaction("x", 1, "one more"), 0x97, (409, "full"))
        .await;
    assert_eq!(
        post(&bob.broker, "bob", &group, &reaction("y", 1, "7"))
            .await
            .0,
        201
    );
    bob.broker.stop().await;
}
