//! Finishing: what follows from what the provider said.

use std::time::Duration;

use homing::store::push::finish::{Finished, JobResult, finish};
use sqlx::PgPool;

use super::{GRACES, Pass, ROUTE, SENT, START, Scene, retry};

fn dead(since: Option<i64>) -> JobResult {
    JobResult::Dead {
        reason: "Unregistered".to_owned(),
        since_millis: since.map(|at| START + at),
    }
}

impl Scene {
    async fn is_token_dead(&mut self) -> bool {
        sqlx::query_scalar("select dead_since is not null from push_tokens")
            .fetch_one(&mut self.conn)
            .await
            .unwrap()
    }

    async fn budget(&mut self) -> f32 {
        sqlx::query_scalar("select budget from push_tokens")
            .fetch_one(&mut self.conn)
            .await
            .unwrap()
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_was_sent_is_done(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;

    let job = scene.job().await;
    assert_eq!(
        (job.state.as_str(), job.due, job.pushed_seq),
        ("done", None, 1)
    );
    assert_eq!(scene.ledger().await, ["sent accepted 1..1"]);
    let times: (i64, i64, i64) = sqlx::query_as(
        "select (extract(epoch from committed_at) * 1000)::bigint,
                (extract(epoch from claimed_at) * 1000)::bigint,
                (extract(epoch from decided_at) * 1000)::bigint from push_attempts",
    )
    .fetch_one(&mut scene.conn)
    .await
    .unwrap();
    assert_eq!(times, (START, START + 1000, START + 1000));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_failed_is_tried_again_under_the_same_id(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let first = scene.claim_one(1000).await;
    scene.finish(&first, retry(60), 2000).await;
    let job = scene.job().await;
    assert_eq!((job.state.as_str(), job.due), ("backoff", Some(62_000)));
    assert_eq!(scene.claim(61_999).await, []);

    let second = scene.claim_one(62_000).await;

    assert_eq!((second.attempts, second.held.parts[0].claim), (1, 2));
    assert_eq!(second.notification_id, first.notification_id);
    scene.finish(&second, SENT, 62_000).await;
    let decisions = ["retry HTTP 503 1..1", "sent accepted 1..1"];
    assert_eq!(scene.ledger().await, decisions);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_came_in_flight_is_told_of_by_the_next_attempt(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let first = scene.claim_one(1000).await;
    let seq = scene
        .say(r#"{"urgent":true,"mentions":["bob"]}"#, 1000)
        .await;
    scene.arm(Pass::Early, seq, seq, 2000).await;
    scene.finish(&first, retry(5), 2000).await;

    let second = scene.claim_one(7000).await;

    assert_eq!((second.held.parts[0].from, second.held.parts[0].to), (1, 2));
    assert!(second.is_urgent && second.is_mention);
}

/// What was urgent has been told of; what came since is not.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_armed_again_is_judged_by_what_is_new(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let seq = scene.say(r#"{"urgent":true,"mentions":["bob"]}"#, 0).await;
    scene.arm(Pass::Early, seq, seq, 1000).await;
    let first = scene.claim_one(1000).await;
    scene.say_and_arm(1000).await;
    scene.finish(&first, SENT, 2000).await;

    let second = scene.claim_one(12_000).await;

    assert!(!second.is_urgent && !second.is_mention);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_given_up_is_done_but_what_is_newer_is_not(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let dropped = JobResult::Dropped {
        reason: "PayloadTooLarge".to_owned(),
    };
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.say_and_arm(1000).await;
    scene.finish(&job, dropped.clone(), 2000).await;
    let row = scene.job().await;
    assert_eq!((row.from_seq, row.to_seq, row.pushed_seq), (2, 2, 0));

    let job = scene.claim_one(12_000).await;
    scene.finish(&job, dropped, 12_000).await;

    assert_eq!(scene.job().await.state, "done");
    let decisions = [
        "dropped PayloadTooLarge 1..1",
        "dropped PayloadTooLarge 2..2",
    ];
    assert_eq!(scene.ledger().await, decisions);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_dead_token_ends_the_job_and_is_used_no_more(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.say_and_arm(1000).await;

    scene.finish(&job, dead(None), 2000).await;

    assert!(scene.is_token_dead().await);
    assert_eq!(scene.job().await.state, "done");
    assert_eq!(scene.ledger().await, ["dead Unregistered 1..2"]);
    scene.say("", 3000).await;
    assert_eq!(scene.arm(Pass::Late, 3, 3, 11_000).await.jobs, 0);
}

/// The provider says since when it is dead; the app has registered it again since.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_was_registered_later_than_it_died_is_kept(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.finish(&job, dead(Some(-1_000_000)), 2000).await;
    assert!(!scene.is_token_dead().await);
    assert_eq!(scene.ledger().await, ["dropped Unregistered 1..1"]);

    scene.say_and_arm(1000).await;
    let job = scene.claim_one(12_000).await;
    scene.finish(&job, dead(Some(-999_999)), 12_000).await;
    assert!(scene.is_token_dead().await);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_was_replaced_meanwhile_is_tried_at_once(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let phone = scene.phone;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.token(phone, ROUTE, "new").await;

    scene.finish(&job, dead(None), 2000).await;

    assert!(!scene.is_token_dead().await);
    let again = scene.claim_one(2000).await;
    assert_eq!(again.address.token, "new");
    assert_eq!(again.notification_id, job.notification_id);
    assert_eq!(scene.ledger().await, ["retry Unregistered 1..1"]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_was_removed_meanwhile_ends_the_job(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.run("delete from push_tokens").await;

    assert_eq!(scene.finish(&job, dead(None), 2000).await, 1);

    assert_eq!(scene.job().await.state, "done");
}

/// Calls have their own token; without it the device is woken by the other one.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_dead_token_for_calls_leaves_the_other_one(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene
        .run("update push_tokens set voip_token = 'voip'")
        .await;
    scene.say_and_arm(0).await;
    let mut job = scene.claim_one(1000).await;
    job.address.token = job.address.voip_token.clone().unwrap();

    scene.finish(&job, dead(None), 2000).await;

    assert!(!scene.is_token_dead().await);
    assert_eq!(scene.claim_one(2000).await.address.voip_token, None);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_was_not_tried_costs_nothing(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    let before = scene.budget().await;
    let released = JobResult::Released {
        after: Duration::from_secs(5),
    };

    scene.finish(&job, released, 1000).await;

    assert!((scene.budget().await - before - 1.0).abs() < 0.001);
    let row = scene.job().await;
    assert_eq!(
        (row.state.as_str(), row.due, row.attempts),
        ("armed", Some(6000), 0)
    );
    assert_eq!(scene.ledger().await, [""; 0]);
    assert_eq!(scene.finish(&job, SENT, 1000).await, 0, "given back");
    assert_eq!(
        scene.claim_one(6000).await.notification_id,
        job.notification_id
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_released_in_a_back_off_goes_on_backing_off(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.finish(&job, retry(5), 1000).await;
    let job = scene.claim_one(6000).await;
    let released = JobResult::Released {
        after: Duration::from_mins(1),
    };
    scene.finish(&job, released, 6000).await;

    // A newer message would make an armed job due.
    scene.say_and_arm(7000).await;

    let row = scene.job().await;
    assert_eq!(
        (row.state.as_str(), row.due, row.attempts),
        ("backoff", Some(66_000), 1)
    );
}

/// The worker knows which messages are of the background class.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_background_class_waits_for_its_interval(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    let sent = JobResult::Sent {
        is_background: true,
    };
    scene.finish(&job, sent, 1500).await;
    scene.say_and_arm(20_000).await;
    let job = scene.claim_one(21_000).await;
    assert_eq!(job.address.background_at_millis, Some(START + 1500));

    let postponed = JobResult::Postponed {
        reason: "background".to_owned(),
        after: Duration::from_mins(20),
    };
    scene.finish(&job, postponed.clone(), 21_000).await;
    assert_eq!(scene.job().await.due, Some(1_221_000));

    // Another message waits with it, and the ledger says it once; an urgent one does not wait.
    scene.say_and_arm(30_000).await;
    assert_eq!(scene.job().await.due, Some(1_221_000));
    let job = scene.claim_one(1_221_000).await;
    scene.finish(&job, postponed, 1_221_000).await;
    let decisions = ["sent accepted 1..1", "postponed background 2..2"];
    assert_eq!(scene.ledger().await, decisions);
    let seq = scene.say(r#"{"urgent":true}"#, 1_230_000).await;
    scene.arm(Pass::Early, seq, seq, 1_231_000).await;
    assert!(scene.claim_one(1_231_000).await.is_urgent);
}

/// Goal: one answer that cannot be written down does not keep the others from it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_answer_that_the_store_refuses_is_passed_over(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let tablet = scene.device("tablet", -1000).await;
    scene.token(tablet, ROUTE, "other").await;
    scene.say_and_arm(0).await;
    scene
        .run(
            "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'poison'; end $$",
        )
        .await;
    scene
        .run(
            "create trigger poison before insert on push_attempts for each row
             when (new.reason = 'poison') execute function refuse()",
        )
        .await;
    let batch: Vec<_> = scene
        .claim(1000)
        .await
        .into_iter()
        .map(|job| Finished {
            result: if job.held.device == tablet {
                JobResult::Dropped {
                    reason: "poison".to_owned(),
                }
            } else {
                SENT
            },
            token: job.address.token,
            held: job.held,
        })
        .collect();
    assert_eq!(batch.len(), 2);

    let finished = finish(&mut scene.conn, &batch, GRACES.repeat, Some(START + 1000)).await;

    assert_eq!(finished.unwrap(), 1);
    assert_eq!(scene.ledger().await, ["sent accepted 1..1"]);
    // Its lease ends, and another worker has it then.
    assert_eq!(scene.claim(30_999).await, []);
    assert_eq!(scene.claim_one(31_000).await.held.device, tablet);
}
