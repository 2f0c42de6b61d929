//! Claiming: what is sent, and what has nothing to tell any more.

use homing::{
    domain::ids::Subject,
    store::{
        conversations::{self, Kind},
        members::{self, Handover},
        push::jobs::{Claim, JobKind, News, Part, claim, next_due_millis},
    },
};
use sqlx::{Connection, PgPool};

use crate::store::{server_process, until_blocked};

use super::{Pass, ROUTE, SENT, START, Scene, claim_of, group, retry, row, say, user};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_job_says_all_that_a_worker_needs(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say("", 0).await;
    let expiry = START + 3_600_000;
    let extra = format!(r#"{{"urgent":true,"mentions":["bob"],"expires_at":{expiry}}}"#);
    scene.say(&extra, 200).await;
    scene.say(&extra, 300).await;
    scene.arm(Pass::Early, 2, 3, 1300).await;
    scene
        .run("update push_tokens set locale = 'de', voip_token = 'voip'")
        .await;

    let job = scene.claim_one(1300).await;

    let part = Part {
        conversation: scene.group,
        claim: 1,
        from: 2,
        to: 3,
    };
    assert_eq!(job.held.parts, [part]);
    assert_eq!(job.held.kind, JobKind::Wake);
    assert_eq!((job.held.user, job.held.device), (scene.bob.0, scene.phone));
    assert_eq!(
        (job.attempts, job.is_urgent, job.is_mention),
        (0, true, true)
    );
    assert_eq!(job.committed_at_millis, START + 200);
    assert_eq!(job.expires_at_millis, Some(expiry));
    assert_eq!(job.address.token, "token");
    assert_eq!(job.address.voip_token.as_deref(), Some("voip"));
    assert_eq!(job.address.locale.as_deref(), Some("de"));
    assert_eq!(job.address.registered_at_millis, START - 1_000_000);
    assert_eq!(job.address.background_at_millis, None);
    let news = News {
        conversation_kind: Kind::Group,
        title: Some("Hiking".to_owned()),
        message_type: "text".to_owned(),
        sender: Subject::new("alice").unwrap(),
        body: b"\"hello\"".to_vec(),
    };
    assert_eq!(job.news, Some(news));
    assert_eq!(job.badge, Some(3));
    assert_eq!(format!("{:?}", job.address), "TokenRow(secret)");
    assert_eq!(scene.job().await.due, Some(31_300), "the lease");
}

/// One message that stays for ever makes the notification stay.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_job_expires_with_its_last_message(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for seconds in [100, 200] {
        let extra = format!(r#"{{"expires_at":{}}}"#, START + seconds * 1000);
        let seq = scene.say(&extra, 0).await;
        scene.arm(Pass::Early, seq, seq, 1000).await;
    }
    let job = scene.claim_one(1000).await;
    assert_eq!(job.expires_at_millis, Some(START + 200_000));

    scene.say_and_arm(1000).await;
    scene.finish(&job, retry(5), 1000).await;
    assert_eq!(scene.claim_one(6000).await.expires_at_millis, None);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_has_expired_is_not_pushed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let extra = format!(r#"{{"expires_at":{}}}"#, START + 5000);
    scene.say(&extra, 0).await;
    scene.arm(Pass::Early, 1, 1, 1000).await;
    assert_eq!(scene.claim(5000).await, []);
    assert_eq!(scene.ledger().await, ["cancelled expired 1..1"]);

    // What is too late when it is armed needs no job.
    scene.say(&extra, 0).await;
    let armed = scene.arm(Pass::Late, 2, 2, 8000).await;
    assert_eq!((armed.jobs, armed.suppressed), (0, 1));
    assert_eq!(scene.ledger().await[1..], ["suppressed expired 2..2"]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_waited_too_long_is_not_pushed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let days = 24 * 3_600_000;
    scene.say_and_arm(0).await;
    assert_eq!(scene.claim(28 * days).await, []);
    assert_eq!(scene.ledger().await, ["cancelled time_to_live 1..1"]);

    // The newest message decides.
    scene.say_and_arm(0).await;
    scene.say_and_arm(days).await;
    assert_eq!(scene.claim_one(28 * days).await.held.parts[0].to, 3);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_acknowledged_before_it_is_due_is_cancelled(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.settle(Some(1), None).await;

    assert_eq!(scene.claim(1000).await, []);

    assert_eq!(scene.ledger().await, ["cancelled acknowledged 1..1"]);
    assert_eq!(scene.job().await.state, "done");
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await.jobs, 0);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_what_is_not_acknowledged_is_told_of(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.say_and_arm(700).await;
    scene.settle(Some(1), None).await;

    assert_eq!(scene.claim(1000).await, [], "the second has its own grace");
    let job = scene.claim_one(1700).await;

    assert_eq!((job.held.parts[0].from, job.held.parts[0].to), (2, 2));
    assert_eq!(job.committed_at_millis, START + 700);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_read_elsewhere_before_it_is_due_is_cancelled(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.settle(None, Some(1)).await;

    assert_eq!(scene.claim(1000).await, []);

    assert_eq!(scene.ledger().await, ["cancelled read 1..1"]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_was_removed_is_not_told(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (bob, alice, group) = (scene.bob.clone(), scene.alice.clone(), scene.group);
    scene.say_and_arm(0).await;
    let (bob, alice) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::remove(&mut scene.conn, group, bob, alice)
        .await
        .unwrap();
    assert_eq!(scene.claim(1000).await, []);
    assert_eq!(scene.ledger().await, ["cancelled removed 1..1"]);
}

/// What was armed for the old agent is not told; the new one is told of what comes after.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_handed_a_conversation_over_is_not_told(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let carol = user(&mut scene.conn, "carol").await;
    scene.say_and_arm(0).await;
    let mut tx = scene.conn.begin().await.unwrap();
    let locked = members::lock(&mut tx, scene.group, &[scene.bob.0, carol.0]).await;
    let handover = Handover {
        from: vec![(scene.bob.0, &scene.bob.1)],
        to: vec![(carol.0, &carol.1)],
        role: conversations::Role::Member,
        note: None,
        history_depth: None,
        visible_from: 1,
    };
    let alice = (scene.alice.0, &scene.alice.1);
    members::transfer(&mut tx, &locked.unwrap().unwrap(), &handover, alice)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(scene.claim(1000).await, []);
    assert_eq!(scene.ledger().await, ["cancelled removed 1..1"]);
}

/// Coming back does not bring the messages back from before.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_was_removed_and_came_back_is_not_told_of_before(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (bob, alice, group) = (scene.bob.clone(), scene.alice.clone(), scene.group);
    scene.say_and_arm(0).await;
    let (bob, alice) = ((bob.0, &bob.1), (alice.0, &alice.1));
    let member = conversations::Role::Member;
    conversations::remove(&mut scene.conn, group, bob, alice)
        .await
        .unwrap();
    conversations::add(&mut scene.conn, group, bob, member, alice, 10)
        .await
        .unwrap();
    assert_eq!(scene.claim(1000).await, []);
    assert_eq!(scene.ledger().await, ["cancelled removed 1..1"]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn without_a_live_token_nothing_is_sent(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.run("update push_tokens set dead_since = now()").await;
    assert_eq!(scene.claim(1000).await, []);
    scene.run("update push_tokens set dead_since = null").await;
    scene.say_and_arm(0).await;
    scene.run("delete from push_tokens").await;
    assert_eq!(scene.claim(1000).await, []);
    let reasons = ["cancelled token_dead 1..1", "cancelled no_token 2..2"];
    assert_eq!(scene.ledger().await, reasons);
}

/// The phone changes hands: the new owner's device has the token, and no job of the old one's.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_another_user_took_over_is_not_used(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let carol = user(&mut scene.conn, "carol").await;
    scene.say_and_arm(0).await;
    sqlx::query(
        "with carols as (
             insert into devices (user_id, client_id) values ($1, 'phone') returning device_id
         )
         update push_tokens set device_id = (select device_id from carols), user_id = $1",
    )
    .bind(carol.0.0)
    .execute(&mut scene.conn)
    .await
    .unwrap();

    assert_eq!(scene.claim(1000).await, []);

    assert_eq!(scene.ledger().await, ["cancelled no_token 1..1"]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_changed_its_app_takes_its_jobs_along(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (phone, other) = (scene.phone, "fcm:my-project:production");
    scene.say_and_arm(0).await;
    scene.token(phone, other, "new").await;

    assert_eq!(scene.claim(1000).await, []);

    let jobs = super::claim_route(&mut scene.conn, other, 1000).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].address.token, "new");
    assert_eq!(scene.ledger().await, [""; 0]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_came_back_gets_its_grace_before_it_is_pushed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.connect("phone", 900).await;

    assert_eq!(scene.claim(1000).await, []);
    assert_eq!(scene.job().await.due, Some(8900));
    assert_eq!(scene.ledger().await, [""; 0], "to wait is no decision");

    // It does not answer.
    assert_eq!(scene.claim_one(8900).await.held.parts[0].to, 1);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn while_another_device_is_active_a_push_waits_longer(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.device("tablet", -1000).await;
    scene.say_and_arm(0).await;
    scene.connect("tablet", 500).await;

    assert_eq!(scene.claim(1000).await, []);

    assert_eq!(scene.job().await.due, Some(15_000));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_badge_is_what_is_unread_and_not_muted(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    for at in 0..3 {
        scene.say("", at).await;
    }
    scene.settle(None, Some(1)).await;
    for count in [2, 30, 0] {
        let other = group(&mut scene.conn, &[&alice, &bob]).await;
        for _ in 0..count {
            say(&mut scene.conn, other, &alice, "", 0).await;
            say(&mut scene.conn, other, &bob, "", 0).await;
        }
        if count == 30 {
            sqlx::query(
                "update participants set muted_until = 'infinity' where conversation_id = $1",
            )
            .bind(other.0)
            .execute(&mut scene.conn)
            .await
            .unwrap();
        }
    }
    scene.arm(Pass::Early, 2, 3, 2000).await;

    let job = scene.claim_one(2000).await;
    assert_eq!(job.badge, Some(4), "two here, two there");
    scene.finish(&job, retry(1), 2000).await;
    let without = Claim {
        has_badge: false,
        ..claim_of(ROUTE)
    };
    let jobs = claim(&mut scene.conn, &without, Some(START + 3000)).await;
    assert_eq!(jobs.unwrap()[0].badge, None);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_badge_leaves_out_what_is_gone(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for at in 0..6 {
        scene.say("", at).await;
    }
    scene.retract(1).await;
    scene
        .run("update messages set expires_at = created_at where seq = 2")
        .await;
    scene
        .run("update messages set content_format = -1 where seq = 3")
        .await;
    scene
        .run("update messages set expires_at = 'infinity' where seq = 4")
        .await;
    scene.arm(Pass::Early, 6, 6, 2000).await;

    let job = scene.claim_one(2000).await;

    assert_eq!(job.badge, Some(3), "the fourth, the fifth and the sixth");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn two_workers_never_claim_the_same_job(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let mut rows = Vec::new();
    for _ in 0..6 {
        let other = group(&mut scene.conn, &[&alice, &bob]).await;
        say(&mut scene.conn, other, &alice, "", 0).await;
        rows.push(row(other, 1, 1));
    }
    super::arm_rows(&mut scene.conn, &rows, Pass::Early, 1000).await;
    let mut other = Scene::conn(&pool).await;
    let some = Claim {
        limit: 2,
        ..claim_of(ROUTE)
    };

    let process = server_process(&mut other).await;
    let mut tx = scene.conn.begin().await.unwrap();
    let first = claim(&mut tx, &some, Some(START + 1000)).await.unwrap();
    let second = async {
        let jobs = claim(&mut other, &claim_of(ROUTE), Some(START + 1000)).await;
        jobs.unwrap()
    };
    // The jobs are passed over; the bucket of the device, which both need, is waited for.
    let commit = async {
        until_blocked(&pool, process).await;
        tx.commit().await.unwrap();
    };
    let (second, ()) = tokio::join!(second, commit);

    let mut all: Vec<_> = first
        .iter()
        .chain(&second)
        .map(|job| job.held.parts[0].conversation)
        .collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!((first.len(), second.len(), all.len()), (2, 4, 6));
    assert_eq!(scene.claim(1000).await, []);
    let budget: f32 = sqlx::query_scalar("select budget from push_tokens")
        .fetch_one(&mut scene.conn)
        .await
        .unwrap();
    assert!((budget - 14.0).abs() < 0.001, "20 less 6 is not {budget}");
}

/// Whoever crashed may have sent it: the same notification again, and not by two.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_job_whose_lease_is_over_is_claimed_again(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let lost = scene.claim_one(1000).await;
    scene.say_and_arm(2000).await;
    assert_eq!(scene.claim(30_999).await, []);

    let again = scene.claim_one(31_000).await;

    assert_eq!(again.notification_id, lost.notification_id);
    assert_eq!((again.held.parts[0].claim, again.attempts), (2, 1));
    assert_eq!((again.held.parts[0].from, again.held.parts[0].to), (1, 2));
    assert_eq!(scene.ledger().await, ["retry lease_expired 1..2"]);

    // The first worker was only slow: what it says counts no more.
    assert_eq!(scene.finish(&lost, SENT, 31_500).await, 0);
    assert_eq!(scene.job().await.state, "in_flight");
    assert_eq!(scene.finish(&again, SENT, 32_000).await, 1);
    assert_eq!(scene.finish(&again, SENT, 32_000).await, 0);
    assert_eq!(scene.job().await.pushed_seq, 2);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_lost_job_that_is_acknowledged_meanwhile_ends(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let lost = scene.claim_one(1000).await;
    scene.settle(Some(1), None).await;

    assert_eq!(scene.claim(31_000).await, []);

    let decisions = ["retry lease_expired 1..1", "cancelled acknowledged 1..1"];
    assert_eq!(scene.ledger().await, decisions);
    assert_eq!(scene.finish(&lost, SENT, 31_500).await, 0);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_worker_knows_when_the_next_job_is_due(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    assert_eq!(scene.next_due(0).await, None);
    scene.say_and_arm(0).await;
    assert_eq!(scene.next_due(0).await, Some(1000));
    assert_eq!(scene.next_due(1000).await, None, "due already");
    scene.claim_one(1000).await;
    assert_eq!(scene.next_due(1000).await, Some(31_000));
}

impl Scene {
    async fn next_due(&mut self, at: i64) -> Option<i64> {
        let due = next_due_millis(&mut self.conn, ROUTE, Some(START + at)).await;
        due.unwrap().map(|millis| millis - START)
    }
}

/// Goal: what was retracted is told of no more, neither alone nor with what stays.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_retracted_message_is_told_of_no_more(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let first = scene.say("", 0).await;
    scene.retract(first).await;
    assert_eq!(scene.arm(Pass::Early, first, first, 1000).await.jobs, 0);

    let second = scene.say_and_arm(2000).await;
    scene.retract(second).await;
    let job = scene.claim_one(3000).await;
    assert_eq!(job.news, None, "the worker suppresses it");
    scene.finish(&job, SENT, 3000).await;

    let third = scene.say_and_arm(60_000).await;
    let fourth = scene.say("", 60_000).await;
    scene.arm(Pass::Early, fourth, fourth, 61_000).await;
    scene.retract(fourth).await;
    let job = scene.claim_one(61_000).await;
    assert_eq!(job.held.parts[0].from, third);
    assert!(job.news.unwrap().body.is_empty(), "there is no preview");
}

/// Goal: bytes are nobody's to read, even if they look like a text.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn bytes_have_no_preview(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.run("update messages set content_format = 1").await;
    assert!(scene.claim_one(1000).await.news.unwrap().body.is_empty());
}
