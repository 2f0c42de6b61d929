//! Clearing: what has been read elsewhere is removed from the devices that show it.

use homing::{
    domain::ids::ConversationId,
    store::push::jobs::{CLEARED_MAX, JobKind},
};
use sqlx::PgPool;

use super::{Pass, SENT, START, Scene, WEB_ROUTE, arm_rows, claim_route, group, retry, row, say};

impl Scene {
    /// The state of the clear job of the phone, and up to where it clears.
    async fn clear(&mut self) -> Option<(String, i64)> {
        let phone = self.phone;
        let job = self.job_of(phone, "clear").await?;
        Some((job.state, job.to_seq))
    }
}

fn armed(to: i64) -> (String, i64) {
    ("armed".to_owned(), to)
}

fn done(to: i64) -> (String, i64) {
    ("done".to_owned(), to)
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn reading_elsewhere_clears_what_was_pushed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;
    scene.say("", 5000).await;

    scene.settle(None, Some(2)).await;

    assert_eq!(scene.clear().await, Some(armed(2)));
    let job = scene.claim_one(20_000).await;
    assert_eq!(job.held.kind, JobKind::Clear);
    assert_eq!((job.held.parts[0].from, job.held.parts[0].to), (1, 2));
    assert_eq!((job.news.clone(), job.badge), (None, Some(0)));
    scene.finish(&job, SENT, 20_000).await;
    assert_eq!(scene.clear().await, Some(done(2)));

    // Read again, or read further with nothing new on the device: once is enough.
    scene.say("", 30_000).await;
    scene.settle(None, Some(2)).await;
    scene.settle(None, Some(3)).await;
    assert_eq!(scene.clear().await, Some(done(2)));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_was_not_pushed_or_not_all_read_is_not_cleared(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.settle(None, Some(1)).await;
    assert_eq!(scene.clear().await, None, "never pushed");
    assert_eq!(scene.claim(1000).await, []);

    scene.say_and_arm(0).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.finish(&job, SENT, 1000).await;
    scene.settle(Some(3), Some(2)).await;
    assert_eq!(scene.clear().await, None, "the notification tells of 3");
    scene.settle(None, Some(3)).await;
    assert_eq!(scene.clear().await, Some(armed(3)));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_read_while_it_is_on_its_way_is_cleared_afterwards(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.settle(None, Some(1)).await;
    assert_eq!(scene.clear().await, None, "not yet");

    scene.finish(&job, SENT, 2000).await;

    assert_eq!(scene.clear().await, Some(armed(1)));
}

/// Whoever crashed may have sent it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_read_while_its_worker_is_gone_is_cleared(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene.claim_one(1000).await;
    scene.settle(None, Some(1)).await;

    assert_eq!(scene.claim(31_000).await, []);

    assert_eq!(scene.clear().await, Some(armed(1)));
}

/// A failure may be one of the answer alone.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_failed_and_is_read_is_cleared(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.finish(&job, retry(60), 1000).await;
    scene.settle(None, Some(1)).await;
    assert_eq!(scene.clear().await, None, "not yet");

    assert_eq!(scene.claim(61_000).await, []);

    assert_eq!(scene.clear().await, Some(armed(1)));
}

/// A notification that cannot be sent, about more than is shown already.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_read_in_a_back_off_is_cleared(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;
    scene.say_and_arm(20_000).await;
    let job = scene.claim_one(21_000).await;
    scene.finish(&job, retry(600), 21_000).await;
    scene.settle(None, Some(1)).await;
    assert_eq!(scene.clear().await, None, "the next one takes its place");
    scene.settle(None, Some(2)).await;
    assert_eq!(scene.clear().await, Some(armed(2)));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_new_takes_the_place_of_a_clear(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;
    scene.settle(None, Some(1)).await;

    scene.say_and_arm(5000).await;

    assert_eq!(scene.clear().await, None);
    let job = scene.claim_one(20_000).await;
    assert_eq!(job.held.kind, JobKind::Wake);
    assert_eq!(scene.ledger().await[1..], ["cancelled superseded 1..1"]);
}

/// The one that reads knows, and so does every device that is connected.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_connected_device_is_not_told_to_clear(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;
    scene.connect("phone", 5000).await;
    scene.settle(None, Some(1)).await;

    assert_eq!(scene.claim(20_000).await, []);

    assert_eq!(scene.ledger().await[1..], ["suppressed connected 1..1"]);
}

/// A browser must show something for every push.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_browser_is_not_told_to_clear(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let phone = scene.phone;
    scene.token(phone, WEB_ROUTE, "token").await;
    scene.say_and_arm(0).await;
    let job = claim_route(&mut scene.conn, WEB_ROUTE, 1000)
        .await
        .remove(0);
    scene.finish(&job, SENT, 1000).await;
    scene.settle(None, Some(1)).await;

    assert_eq!(claim_route(&mut scene.conn, WEB_ROUTE, 20_000).await, []);

    assert_eq!(scene.ledger().await[1..], ["suppressed webpush 1..1"]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn one_notification_clears_many_conversations(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.run("update push_tokens set budget = 1000").await;
    let conversations = scene.pushed_and_read(25).await;
    scene
        .run("update push_tokens set budget = 5, budget_at = to_timestamp(2000000050)")
        .await;

    let jobs = scene.claim(50_000).await;

    let counts: Vec<_> = jobs.iter().map(|job| job.held.parts.len()).collect();
    assert_eq!(counts, [CLEARED_MAX, 5]);
    let mut cleared: Vec<_> = jobs
        .iter()
        .flat_map(|job| job.held.parts.iter().map(|part| part.conversation))
        .collect();
    cleared.sort_unstable();
    assert_eq!(cleared, conversations);
    let budget: f32 = sqlx::query_scalar("select budget from push_tokens")
        .fetch_one(&mut scene.conn)
        .await
        .unwrap();
    assert!((budget - 3.0).abs() < 0.001, "two notifications, {budget}");
    for job in &jobs {
        let parts = job.held.parts.len() as u64;
        assert_eq!(scene.finish(job, SENT, 50_000).await, parts);
    }
    assert_eq!(scene.claim(3_600_000).await, []);
}

/// A hot path that must not pay: positions without a reading touch no job.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn acknowledging_clears_nothing(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;
    scene.settle(Some(1), None).await;
    assert_eq!(scene.clear().await, None);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_clear_that_fails_is_tried_again_and_grows(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.push(0).await;
    scene.settle(None, Some(1)).await;
    let job = scene.claim_one(20_000).await;
    scene.finish(&job, retry(60), 20_000).await;
    assert_eq!(scene.claim(79_999).await, []);
    let again = scene.claim_one(80_000).await;
    assert_eq!(again.notification_id, job.notification_id);
    assert_eq!(again.attempts, 1);
    scene.finish(&again, SENT, 80_000).await;
    assert_eq!(scene.clear().await, Some(done(1)));

    // What is pushed and read later is cleared again.
    scene.push(100_000).await;
    scene.settle(None, Some(2)).await;
    assert_eq!(scene.clear().await, Some(armed(2)));
}

impl Scene {
    /// In so many conversations something has been pushed, and read elsewhere.
    async fn pushed_and_read(&mut self, count: i64) -> Vec<ConversationId> {
        let (alice, bob) = (self.alice.clone(), self.bob.clone());
        let mut conversations = Vec::new();
        for number in 0..count {
            let other = group(&mut self.conn, &[&alice, &bob]).await;
            say(&mut self.conn, other, &alice, "", number).await;
            conversations.push(other);
        }
        let rows: Vec<_> = conversations.iter().map(|id| row(*id, 1, 1)).collect();
        arm_rows(&mut self.conn, &rows, Pass::Early, 2000).await;
        for round in 0..2 {
            self.run("update push_tokens set budget = 1000, budget_at = null")
                .await;
            for job in self.claim(3000 + round * 100_000).await {
                self.finish(&job, SENT, 3000).await;
            }
        }
        for conversation in &conversations {
            self.group = *conversation;
            self.settle(None, Some(1)).await;
        }
        // As settle() takes the time from the clock: they are due already.
        sqlx::query("update push_jobs set due_at = to_timestamp($1 / 1000.0) where kind = 'clear'")
            .bind(START)
            .execute(&mut self.conn)
            .await
            .unwrap();
        conversations.sort_unstable();
        conversations
    }
}
