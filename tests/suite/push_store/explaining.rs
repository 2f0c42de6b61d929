//! The ledger explains why a device was woken by a message, or was not.

use std::time::Duration;

use homing::{
    domain::message::Sequence,
    store::{
        conversations,
        push::ledger::{Explanation, Silence, explain, prune},
    },
};
use sqlx::PgPool;

use super::{Pass, ROUTE, SENT, START, Scene, retry, say};

impl Scene {
    /// Why each device of Bob, in the order of their registration.
    async fn explain(&mut self, seq: i64) -> Vec<Explanation> {
        let seq = Sequence::new(seq).unwrap();
        explain(&mut self.conn, self.group, self.bob.0, seq)
            .await
            .unwrap()
    }

    async fn silence(&mut self, seq: i64) -> Option<Silence> {
        self.explain(seq).await[0].silence
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn decisions_that_cover_a_message_are_told_in_order(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for at in [0, 100, 200] {
        scene.say_and_arm(at).await;
    }
    let job = scene.claim_one(1500).await;
    scene.finish(&job, retry(5), 2000).await;
    let waits = scene.explain(2).await.remove(0);
    let waiting = waits.waiting.unwrap();
    assert_eq!((waiting.state.as_str(), waiting.attempts), ("backoff", 1));
    assert_eq!(waiting.due_at_millis, START + 7000);
    let job = scene.claim_one(7000).await;
    scene.finish(&job, SENT, 7500).await;
    scene.push(20_000).await;

    let explanation = scene.explain(2).await.remove(0);

    assert_eq!(
        (explanation.device, explanation.client_id.as_str()),
        (scene.phone, "phone")
    );
    assert_eq!(explanation.route.as_deref(), Some(ROUTE));
    assert_eq!((explanation.waiting, explanation.silence), (None, None));
    let told: Vec<_> = explanation
        .decisions
        .iter()
        .map(|row| (row.outcome.as_str(), row.reason.as_str(), row.from, row.to))
        .collect();
    assert_eq!(
        told,
        [("retry", "HTTP 503", 1, 3), ("sent", "accepted", 1, 3)]
    );
    let sent = &explanation.decisions[1];
    assert_eq!(sent.notification_id, Some(job.notification_id));
    assert_eq!(sent.committed_at_millis, START);
    assert_eq!(sent.claimed_at_millis, Some(START + 7000));
    assert_eq!(sent.decided_at_millis, START + 7500);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn without_a_decision_the_reason_is_derived(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (bob, group) = (scene.bob.clone(), scene.group);
    let alice = scene.alice.clone();
    say(&mut scene.conn, group, &bob, "", 0).await;
    assert_eq!(scene.silence(1).await, Some(Silence::OwnMessage));
    assert_eq!(
        scene.silence(7).await,
        Some(Silence::NotMessage),
        "no such entry"
    );
    scene.say("", 0).await;
    assert_eq!(scene.silence(2).await, Some(Silence::NotArmed));
    scene.settle(Some(2), None).await;
    assert_eq!(scene.silence(2).await, Some(Silence::Acknowledged));
    scene.settle(None, Some(2)).await;
    assert_eq!(scene.silence(2).await, Some(Silence::Read));
    scene.say("", 0).await;
    scene.run("update push_tokens set dead_since = now()").await;
    assert_eq!(scene.silence(3).await, Some(Silence::NoToken));
    scene.run("delete from push_tokens").await;
    assert_eq!(scene.silence(3).await, Some(Silence::NoToken));
    let (bob, alice) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::remove(&mut scene.conn, group, bob, alice)
        .await
        .unwrap();
    assert_eq!(
        scene.silence(4).await,
        Some(Silence::NotMessage),
        "a notice"
    );
    scene.say("", 0).await;
    assert_eq!(scene.silence(5).await, Some(Silence::NotVisible));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn each_device_has_its_own_reason(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let tablet = scene.device("tablet", -1000).await;
    scene.token(tablet, ROUTE, "other").await;
    scene.device("laptop", -1000).await;
    scene.say("", 0).await;
    scene.settle(Some(1), None).await;
    scene.arm(Pass::Late, 1, 1, 8000).await;

    let explanations = scene.explain(1).await;

    let silences: Vec<_> = explanations
        .iter()
        .map(|told| {
            (
                told.client_id.as_str(),
                told.silence,
                told.waiting.is_some(),
            )
        })
        .collect();
    assert_eq!(
        silences,
        [
            ("phone", Some(Silence::Acknowledged), false),
            ("tablet", None, true),
            ("laptop", Some(Silence::NoToken), false),
        ]
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn old_decisions_leave_the_ledger(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for number in 0..4 {
        scene.push(number * 100_000).await;
    }
    let retention = Duration::from_secs(1000);
    let at = Some(START + 1_201_001);
    assert_eq!(prune(&mut scene.conn, retention, 2, at).await.unwrap(), 2);
    assert_eq!(prune(&mut scene.conn, retention, 2, at).await.unwrap(), 1);
    assert_eq!(prune(&mut scene.conn, retention, 2, at).await.unwrap(), 0);
    assert_eq!(scene.ledger().await, ["sent accepted 4..4"]);
}
