//! A conversation that changes hands while those concerned are away.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Stage, told};

impl Stage {
    /// Bob's part goes to dave; answers the sequence.
    async fn hand_over(&self) -> i64 {
        let path = format!("/{}/transfer", self.conversation);
        let body = json!({"from": ["bob"], "to": ["dave"]});
        let done = self.broker.rest(Method::POST, "admin", &path, Some(body));
        let (status, body) = done.await;
        body["seq"]
            .as_i64()
            .unwrap_or_else(|| panic!("{status} {body}"))
    }

    /// The row of the conversation in the inbox of a user; null if none is listed.
    async fn listed(&self, user: &str) -> Value {
        let inbox = self.broker.request(Method::GET, user, "/v1/inbox", None);
        let (_, inbox) = inbox.await;
        let rows = inbox["conversations"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["conversation"] == json!(self.conversation));
        row.cloned().unwrap_or_default()
    }
}

/// Goal: pushes and inboxes of who goes and who comes switch at one entry, whoever is away.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn pushes_and_inboxes_switch_at_the_entry(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let old = stage.apns("bob", "phone").await;
    let new = stage.apns("dave", "phone").await;
    let fellow = stage.apns("carol", "phone").await;
    assert_eq!(stage.say("1").await, 1);
    stage.pushed(&old, 1).await;
    stage.pushed(&fellow, 1).await;
    stage.settle().await;
    assert_eq!(stage.hand_over().await, 2);
    assert_eq!(stage.say("2").await, 3);
    assert_eq!(stage.say("3").await, 4);

    // The new one is told of what was said since, and counts that alone.
    stage.settle().await;
    let last = stage.seen(&new).pop().expect("dave is woken");
    assert_eq!(told(&last), (4, 2));
    for sequence in [3, 4] {
        let ledger = stage.ledger("dave", sequence).await;
        assert_eq!(ledger, ["phone sent accepted"], "{sequence}");
    }
    // The old one is not, while the others go on.
    assert_eq!(stage.seen(&old).len(), 1);
    let later = "select count(*) from push_jobs j join users u using (user_id)
                 where u.subject = 'bob' and j.to_seq > 1";
    let later: i64 = sqlx::query_scalar(later)
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert_eq!(later, 0);
    assert_eq!(told(stage.seen(&fellow).last().unwrap()), (4, 3));

    assert_eq!(stage.listed("bob").await, Value::Null);
    let row = stage.listed("dave").await;
    assert_eq!(
        (
            &row["last_seq"],
            &row["unread"],
            &row["last_message"]["seq"]
        ),
        (&json!(4), &json!(2), &json!(4)),
        "{row}"
    );
    stage.stop().await;
}

/// Goal: a job that is armed for who goes ends with the hand-over; one for who comes begins.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_job_that_waits_ends_with_the_hand_over(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let old = stage.apns("bob", "phone").await;
    let new = stage.apns("dave", "phone").await;
    // Bob's phone waits, since somebody looks at his tablet; so does dave's.
    let bob = stage.broker.device("bob", "tablet").await;
    let dave = stage.broker.device("dave", "tablet").await;
    stage.say("1").await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(stage.ledger("bob", 1).await[0], "phone waits armed");
    assert_eq!(stage.hand_over().await, 2);
    stage.say("2").await;
    stage.settle().await;
    stage.pass(1).await;
    stage.settle().await;
    assert_eq!(stage.ledger("bob", 1).await[0], "phone cancelled removed");
    assert_eq!(stage.ledger("dave", 3).await[0], "phone waits armed");
    stage.pass(1).await;
    assert_eq!(told(&stage.pushed(&new, 1).await[0]), (3, 1));
    stage.settle().await;
    assert!(stage.seen(&old).is_empty());
    drop((bob, dave));
    stage.stop().await;
}

/// Goal: who comes learns of it at once, and nobody else is woken for it: not who goes, not those
/// who stay, not who hands over, and not who is merely added.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_comes_is_woken_by_the_hand_over_itself(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let old = stage.apns("bob", "phone").await;
    let new = stage.apns("dave", "phone").await;
    let fellow = stage.apns("carol", "phone").await;
    let added = stage.apns("erin", "phone").await;
    let other = stage.apns("admin", "phone").await;
    assert_eq!(stage.broker.add(&stage.conversation, "erin").await, 1);
    let path = format!("/{}/transfer", stage.conversation);
    let body = json!({"from": ["bob"], "to": ["dave", "admin"]});
    let done = stage.broker.rest(Method::POST, "admin", &path, Some(body));
    assert_eq!(done.await.1["seq"], 2);
    assert_eq!(told(&stage.pushed(&new, 1).await[0]), (2, 0));
    stage.settle().await;
    stage.pass(3).await;
    stage.settle().await;
    assert_eq!(stage.ledger("dave", 2).await, ["phone sent accepted"]);
    assert_eq!(stage.seen(&new).len(), 1);
    for token in [&old, &fellow, &added, &other] {
        assert!(stage.seen(token).is_empty());
    }
    // Nobody else has a job for it that a later rule would have to end.
    for user in ["bob", "carol", "erin", "admin"] {
        let ledger = stage.ledger(user, 2).await;
        assert_eq!(ledger, ["phone not_a_message"], "{user}");
    }
    stage.stop().await;
}

/// Goal: the entry is pushed as a message is: not once it has been read or acknowledged, and
/// together with what is said soon after.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_hand_over_that_is_known_already_wakes_nobody(pool: PgPool) {
    let stage = Stage::set(pool).await;
    stage.apns("bob", "phone").await;
    let new = stage.apns("dave", "phone").await;
    let mut phone = stage.broker.listener("dave", "phone").await;
    assert_eq!(stage.hand_over().await, 1);
    phone.drain(1, 1).await;
    stage.settle().await;
    stage.pass(3).await;
    stage.settle().await;
    assert!(stage.seen(&new).is_empty());
    phone.disconnect().await;
    assert_eq!(stage.say("1").await, 2);
    assert_eq!(told(&stage.pushed(&new, 1).await[0]), (2, 1));
    stage.stop().await;
}
