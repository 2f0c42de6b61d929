//! Owners and admins take the word from participants.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, ask, entries, give_role, group, say, seen};
use crate::harness::TestBroker;

/// The year 2100, in milliseconds since 1970.
const LATER: i64 = 4_102_444_800_000;

async fn silence(broker: &TestBroker, by: &str, cid: &str, user: &str, until: Value) -> Answer {
    let path = format!("/conversations/{cid}/participants/{user}/silence");
    ask(
        broker,
        Method::PUT,
        by,
        &path,
        Some(json!({"until": until})),
    )
    .await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_silence_begins_and_ends_at_an_entry(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let mut expected = Vec::new();
    for (number, until) in [json!(LATER), json!("forever"), json!(null)]
        .iter()
        .enumerate()
    {
        let seq = i64::try_from(number).unwrap() + 1;
        let silenced = silence(&broker, "alice", &cid, "bob", until.clone()).await;
        assert_eq!(silenced.seq(), seq);
        let again = silence(&broker, "alice", &cid, "bob", until.clone()).await;
        again.assert_unchanged();
        assert_eq!(&seen(&broker, "bob", &cid).await["silenced_until"], until);
        let row = format!("/v1/conversations/{cid}/inbox");
        let (_, row) = broker.request(Method::GET, "bob", &row, None).await;
        assert_eq!(&row["silenced_until"], until);
        expected.push((
            seq,
            json!({"change": "silenced", "user": "bob", "until": until}),
        ));
    }
    assert_eq!(entries(&broker, "bob", &cid).await, expected);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn only_those_above_silence_and_nobody_silences_owners_or_admins(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"bob": "admin", "carol": "admin"});
    let cid = group(&broker, &["alice", "bob", "carol", "dave", "erin"], roles).await;
    let forever = || json!("forever");
    let refused = silence(&broker, "dave", &cid, "erin", forever()).await;
    refused.assert_problem(403, "forbidden", "an owner or an admin");
    for user in ["alice", "carol"] {
        let refused = silence(&broker, "bob", &cid, user, forever()).await;
        refused.assert_problem(403, "forbidden", "only an owner");
    }
    let refused = silence(&broker, "alice", &cid, "bob", forever()).await;
    refused.assert_problem(409, "conflict", "change the role first");
    let refused = silence(&broker, "bob", &cid, "frank", forever()).await;
    refused.assert_problem(404, "not-found", "frank");
    let refused = silence(&broker, "mallory", &cid, "dave", forever()).await;
    refused.assert_problem(404, "not-found", "");
    for until in [json!("never"), json!(-1), json!(true)] {
        let refused = silence(&broker, "bob", &cid, "dave", until).await;
        refused.assert_problem(400, "invalid", "forever");
    }
    assert_eq!(
        silence(&broker, "bob", &cid, "dave", forever()).await.seq(),
        1
    );
    // Whoever is trusted with the group has the word.
    assert_eq!(
        give_role(&broker, "alice", &cid, "dave", "admin")
            .await
            .seq(),
        2
    );
    assert_eq!(
        seen(&broker, "dave", &cid).await["silenced_until"],
        json!(null)
    );
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_is_silenced_reads_and_writes_nothing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let mut phone = broker.device("bob", "phone").await;
    silence(&broker, "alice", &cid, "bob", json!(LATER)).await;
    let refused = say(&broker, "bob", &cid, "1").await;
    refused.assert_problem(403, "silenced", "");
    let topic = format!("c/{cid}/send");
    let puback = phone.ask(&topic, br#"{"id":"1","body":1}"#).await;
    assert_eq!(puback.code, 0x87);
    assert_eq!(entries(&broker, "bob", &cid).await.len(), 1);
    silence(&broker, "alice", &cid, "bob", json!(null)).await;
    assert_eq!(phone.say(&cid, "1").await, 3);
    broker.stop().await;
}
