//! Many changes at once: what must hold, holds after each of them.

use futures_util::future::join_all;
use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use super::{give_role, group, put_participant, remove, sequences};
use crate::harness::TestBroker;

/// Goal: of all owners who leave or step down at once, the last one is refused.
#[sqlx::test(migrator = "MIGRATOR")]
async fn owners_who_go_at_once_leave_one_behind(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let owners = ["a", "b", "c", "d", "e", "f"];
    let roles = owners.map(|owner| (owner.to_owned(), json!("owner")));
    let roles: serde_json::Map<_, _> = roles.into_iter().collect();
    for round in 0..3 {
        let participants: Vec<_> = owners.into_iter().chain(["member"]).collect();
        let cid = group(&broker, &participants, roles.clone().into()).await;
        let (cid, broker) = (cid.as_str(), &broker);
        let changes = owners
            .into_iter()
            .enumerate()
            .map(|(number, owner)| async move {
                if (number + round) % 2 == 0 {
                    remove(broker, owner, cid, owner).await
                } else {
                    give_role(broker, owner, cid, owner, "member").await
                }
            });
        let answers = join_all(changes).await;
        let refused: Vec<_> = answers
            .iter()
            .filter(|answer| answer.status != 200)
            .collect();
        assert_eq!(refused.len(), 1, "{answers:?}");
        refused[0].assert_problem(409, "last-owner", "");
        assert_eq!(owners_of(&pool, cid).await, 1);
        assert_eq!(sequences(broker, "member", cid).await, [1, 2, 3, 4, 5]);
    }
    broker.stop().await;
}

async fn owners_of(pool: &PgPool, cid: &str) -> i64 {
    let id: homing::domain::ids::ConversationId = cid.parse().unwrap();
    sqlx::query_scalar(
        "select count(*) from participants
         where conversation_id = $1 and left_seq is null and role = 'owner'",
    )
    .bind(id.0)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Goal: no change of many at once takes the sequence of another, or leaves one out.
#[sqlx::test(migrator = "MIGRATOR")]
async fn changes_at_once_have_sequences_without_a_gap(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.participants_max", "12")]).await;
    let cid = group(&broker, &["alice", "bob"], json!({"bob": "owner"})).await;
    let mut talker = broker.device("alice", "talker").await;
    let (cid, broker) = (cid.as_str(), &broker);
    let changes = (0..40).map(|number| async move {
        let by = if number % 2 == 0 { "alice" } else { "bob" };
        let user = format!("user{}", number % 15);
        match number % 4 {
            0 | 1 => put_participant(broker, by, cid, &user, json!({})).await,
            2 => give_role(broker, by, cid, &user, "readonly").await,
            _ => remove(broker, by, cid, &user).await,
        }
    });
    let talk = async {
        for number in 0..20 {
            talker.say(cid, &format!("{number}")).await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(changes), talk);
    let changed: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    for answer in &answers {
        assert!([200, 204, 409].contains(&answer.status), "{answer:?}");
    }
    let last = i64::try_from(changed.len() + 20).unwrap();
    assert_eq!(
        sequences(broker, "alice", cid).await,
        (1..=last).collect::<Vec<_>>()
    );
    let mut told: Vec<_> = changed.iter().map(|answer| answer.seq()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), changed.len());
    let id: homing::domain::ids::ConversationId = cid.parse().unwrap();
    let present: i64 = sqlx::query_scalar(
        "select count(*) from participants where conversation_id = $1 and left_seq is null",
    )
    .bind(id.0)
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(present <= 12, "{present}");
    drop(talker);
}
