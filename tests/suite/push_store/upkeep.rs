//! Upkeep: tokens that died, and jobs that nobody can do.

use std::time::Duration;

use homing::store::push::{
    finish::JobResult,
    upkeep::{delete_dead, end_unrouted, revive},
};
use sqlx::PgPool;

use super::{ROUTE, START, Scene, WEB_ROUTE, routes};

fn dead() -> JobResult {
    JobResult::Dead {
        reason: "BadDeviceToken".to_owned(),
        since_millis: None,
    }
}

/// Many refused tokens were a fault of the configuration: they work again, and whoever was not
/// told because of that is told.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn tokens_come_back_to_life_with_what_they_missed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.finish(&job, dead(), 2000).await;
    for (route, since) in [(ROUTE, 2001), (WEB_ROUTE, 0)] {
        let revived = revive(&mut scene.conn, route, START + since, Some(START + 3000)).await;
        assert_eq!(revived.unwrap(), 0, "died earlier, or elsewhere");
    }

    let revived = revive(&mut scene.conn, ROUTE, START + 2000, Some(START + 3000)).await;

    assert_eq!(revived.unwrap(), 1);
    let job = scene.claim_one(3000).await;
    assert_eq!((job.held.parts[0].to, job.attempts), (1, 0));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_was_settled_for_another_reason_is_not_told_again(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.settle(Some(1), None).await;
    assert_eq!(scene.claim(1000).await, []);
    scene
        .run("update push_tokens set dead_since = to_timestamp(2000000002)")
        .await;

    let revived = revive(&mut scene.conn, ROUTE, START, Some(START + 3000)).await;

    assert_eq!(revived.unwrap(), 1);
    assert_eq!(scene.job().await.state, "done");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn dead_tokens_are_deleted_after_a_while(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let tablet = scene.device("tablet", -1000).await;
    scene.token(tablet, ROUTE, "other").await;
    scene.say_and_arm(0).await;
    for job in scene.claim(1000).await {
        if job.held.device == tablet {
            scene.finish(&job, dead(), 2000).await;
        }
    }
    let day = Duration::from_hours(24);
    let later = |millis: i64| Some(START + 2000 + 86_400_000 + millis);
    assert_eq!(
        delete_dead(&mut scene.conn, day, 10, later(0))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        delete_dead(&mut scene.conn, day, 10, later(1))
            .await
            .unwrap(),
        1
    );
    let left: Vec<i64> = sqlx::query_scalar("select device_id from push_tokens")
        .fetch_all(&mut scene.conn)
        .await
        .unwrap();
    assert_eq!(left, [scene.phone.0]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn jobs_of_an_app_that_is_gone_end(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let tablet = scene.device("tablet", -1000).await;
    scene.token(tablet, WEB_ROUTE, "other").await;
    scene.say_and_arm(0).await;
    let ended = end_unrouted(&mut scene.conn, &routes(), 10, Some(START)).await;
    assert_eq!(ended.unwrap(), 0);

    let left = [WEB_ROUTE.to_owned()];
    let ended = end_unrouted(&mut scene.conn, &left, 10, Some(START)).await;

    assert_eq!(ended.unwrap(), 1);
    assert_eq!(scene.ledger().await, ["dropped no_route 1..2"]);
    assert_eq!(scene.job().await.state, "done");
    assert!(scene.job_of(tablet, "wake").await.unwrap().due.is_some());
    let ended = end_unrouted(&mut scene.conn, &[], 10, Some(START)).await;
    assert_eq!(ended.unwrap(), 1);
}
