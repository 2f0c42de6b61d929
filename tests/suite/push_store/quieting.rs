//! Rules that keep a device quiet: mute, quiet hours, budget.

use homing::store::push::jobs::{Claim, claim};
use sqlx::PgPool;

use super::{BURST, Pass, ROUTE, SENT, START, Scene, arm_rows, claim_of, group, row, say};

const HOUR: i64 = 3_600_000;

impl Scene {
    /// Bob mutes the group until then.
    async fn mute(&mut self, until: i64, mentions_break_mute: bool) {
        sqlx::query(
            "update participants set muted_until = to_timestamp($2 / 1000.0), mentions_break_mute = $3
             where user_id = $1",
        )
        .bind(self.bob.0.0)
        .bind(START + until)
        .bind(mentions_break_mute)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }

    /// Bob's quiet hours; the scene begins at 03:33:20 UTC.
    async fn quiet(&mut self, from: &str, until: &str, zone: &str) {
        sqlx::query(
            "update users set quiet_from = $2::text::time, quiet_until = $3::text::time, quiet_zone = $4
             where user_id = $1",
        )
        .bind(self.bob.0.0)
        .bind(from)
        .bind(until)
        .bind(zone)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }

    async fn say_and_arm_with(&mut self, extra: &str, at: i64) -> i64 {
        let seq = self.say(extra, at).await;
        self.arm(Pass::Early, seq, seq, at + 1000).await;
        seq
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_muted_when_it_is_armed_needs_no_job(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.mute(HOUR, true).await;
    scene.say_and_arm(0).await;
    assert_eq!(scene.ledger().await, [""; 0], "the late pass says so, once");
    let armed = scene.arm(Pass::Late, 1, 1, 8000).await;
    assert_eq!((armed.jobs, armed.suppressed), (0, 1));
    assert_eq!(scene.ledger().await, ["suppressed muted 1..1"]);

    // When the mute ends, it ends.
    scene.say_and_arm(HOUR - 1000).await;
    assert_eq!(scene.claim_one(HOUR).await.held.parts[0].from, 2);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_muted_before_it_is_due_is_not_pushed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    scene
        .run("update participants set muted_until = 'infinity'")
        .await;

    assert_eq!(scene.claim(1000).await, []);

    assert_eq!(scene.ledger().await, ["suppressed muted 1..1"]);
    assert_eq!(scene.job().await.state, "done");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_mention_breaks_through_a_mute_if_so_set(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let mention = r#"{"mentions":["carol","bob"]}"#;
    scene.mute(HOUR, true).await;
    scene.say_and_arm_with(r#"{"mentions":["carol"]}"#, 0).await;
    assert_eq!(scene.claim(1000).await, []);
    scene.say_and_arm_with(mention, 0).await;
    let job = scene.claim_one(1000).await;
    assert!(job.is_mention);
    scene.finish(&job, SENT, 1000).await;

    scene.mute(HOUR, false).await;
    let seq = scene.say(mention, 20_000).await;
    assert_eq!(scene.arm(Pass::Early, seq, seq, 21_000).await.jobs, 0);

    // Nor if it was armed before.
    scene.mute(0, true).await;
    scene.arm(Pass::Early, seq, seq, 21_000).await;
    scene.mute(HOUR, false).await;
    assert_eq!(scene.claim(21_000).await, []);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn urgent_does_not_break_a_mute(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.mute(HOUR, true).await;
    scene.say_and_arm_with(r#"{"urgent":true}"#, 0).await;
    assert_eq!(scene.claim(1000).await, []);
}

/// The scene begins at 03:33:20 UTC.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn quiet_hours_postpone_until_they_end(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let minutes = 60_000;
    let half_past_five = 2 * HOUR - 3 * minutes - 20_000;
    let cases = [
        ("03:00", "05:30", "UTC", Some(half_past_five)),
        // Over midnight: begun today, and begun yesterday.
        ("03:33", "02:30", "UTC", Some(half_past_five + 21 * HOUR)),
        ("22:00", "05:30", "UTC", Some(half_past_five)),
        // By the clocks of the user: it is 05:33 in Berlin, 23:33 of the day before in New York.
        ("05:00", "07:30", "Europe/Berlin", Some(half_past_five)),
        ("23:00", "01:30", "America/New_York", Some(half_past_five)),
        ("05:00", "07:30", "UTC", None),
        ("03:00", "03:33:20", "UTC", None),
        ("04:00", "03:00", "UTC", None),
        ("03:00", "03:00", "UTC", None),
        ("00:00", "23:59", "Nowhere/Atlantis", None),
    ];
    for (from, until, zone, ends) in cases {
        scene.run("delete from push_jobs").await;
        scene.run("delete from push_attempts").await;
        scene.quiet(from, until, zone).await;
        let seq = scene.say("", -1000).await;
        scene.arm(Pass::Early, seq, seq, 0).await;

        let jobs = scene.claim(0).await;

        let case = format!("{from} to {until} in {zone}");
        assert_eq!(jobs.is_empty(), ends.is_some(), "{case}");
        if ends.is_some() {
            assert_eq!(scene.job().await.due, ends, "{case}");
            let row = format!("postponed quiet_hours {seq}..{seq}");
            assert_eq!(scene.ledger().await, [row], "{case}");
        }
    }
}

/// In Berlin, 02:30 comes twice on 2033-10-30, and never on 2033-03-27.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn quiet_hours_end_also_when_the_clocks_are_changed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let cases = [
        // 00:30 UTC is 02:30 for the first time: quiet until 02:45 the second time.
        (
            "2033-10-30 00:30Z",
            "02:00",
            "02:45",
            Some("2033-10-30 01:45Z"),
        ),
        // 23:00 winter time to 07:00 summer time is an hour less.
        (
            "2033-03-26 22:30Z",
            "23:00",
            "07:00",
            Some("2033-03-27 05:00Z"),
        ),
        (
            "2033-10-29 22:30Z",
            "23:00",
            "07:00",
            Some("2033-10-30 06:00Z"),
        ),
        // 02:30 does not exist; it is over at 03:30.
        (
            "2033-03-27 00:59Z",
            "01:00",
            "02:30",
            Some("2033-03-27 01:30Z"),
        ),
        ("2033-03-27 01:01Z", "01:00", "02:30", None),
    ];
    for (at, from, until, ends) in cases {
        let same: bool = sqlx::query_scalar(
            "select push_quiet_until($2::text::time, $3::text::time, 'Europe/Berlin', $1::text::timestamptz)
                    is not distinct from $4::text::timestamptz",
        )
        .bind(at)
        .bind(from)
        .bind(until)
        .bind(ends)
        .fetch_one(&mut scene.conn)
        .await
        .unwrap();
        assert!(same, "{at}: {from} to {until} should end {ends:?}");
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_comes_in_quiet_hours_waits_with_the_rest_and_is_noted_once(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.quiet("03:00", "05:00", "UTC").await;
    scene.say_and_arm(0).await;
    assert_eq!(scene.claim(1000).await, []);
    let due = scene.job().await.due;
    scene.say_and_arm(2000).await;
    assert_eq!(scene.job().await.due, due);
    assert_eq!(scene.ledger().await, ["postponed quiet_hours 1..1"]);

    // They have been prolonged.
    scene.quiet("03:00", "06:00", "UTC").await;
    assert_eq!(scene.claim(due.unwrap()).await, []);
    assert_eq!(scene.ledger().await, ["postponed quiet_hours 1..1"]);

    let job = scene.claim_one(due.unwrap() + HOUR).await;

    assert_eq!((job.held.parts[0].from, job.held.parts[0].to), (1, 2));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn urgent_breaks_quiet_hours(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.quiet("03:00", "05:00", "UTC").await;
    scene.say_and_arm(0).await;
    assert_eq!(scene.claim(1000).await, []);

    scene.say_and_arm_with(r#"{"urgent":true}"#, 1000).await;

    let job = scene.claim_one(2000).await;
    assert!(job.is_urgent);
    assert_eq!((job.held.parts[0].from, job.held.parts[0].to), (1, 2));
}

/// A storm: many conversations at once, then one notification per interval.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_storm_does_not_reach_the_phone(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let mut rows = Vec::new();
    for number in 0..30 {
        let other = group(&mut scene.conn, &[&alice, &bob]).await;
        let extra = if number == 29 {
            r#"{"urgent":true}"#
        } else {
            ""
        };
        say(&mut scene.conn, other, &alice, extra, number).await;
        rows.push(row(other, 1, 1));
    }
    arm_rows(&mut scene.conn, &rows, Pass::Early, 2000).await;

    let burst = scene.claim(2000).await;
    assert_eq!(burst.len(), BURST as usize);
    assert!(
        burst.iter().any(|job| job.is_urgent),
        "first what is urgent"
    );
    assert_eq!(scene.ledger().await, ["postponed budget 1..1"; 10]);
    for job in &burst {
        scene.finish(job, SENT, 2000).await;
    }
    for number in 1..=10 {
        let at = 2000 + number * 10_000;
        assert_eq!(scene.claim(at - 1).await, []);
        let job = scene.claim_one(at).await;
        scene.finish(&job, SENT, at).await;
    }
    assert_eq!(scene.ledger().await.len(), 40, "each has been noted once");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn urgent_does_not_break_the_budget(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene
        .run("update push_tokens set budget = 0.5, budget_at = to_timestamp(2000000001)")
        .await;
    scene.say_and_arm_with(r#"{"urgent":true}"#, 0).await;
    assert_eq!(scene.claim(1000).await, []);
    assert_eq!(scene.claim_one(6000).await.held.parts[0].to, 1);
}

/// The bucket never holds more than the burst, and a clock that goes back takes nothing.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_bucket_has_a_bottom_and_a_rim(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for (text, at, left) in [
        ("update push_tokens set budget = 100", 20_000, 19.0),
        (
            "update push_tokens set budget = 5, budget_at = to_timestamp(2000000900)",
            60_000,
            4.0,
        ),
        (
            "update push_tokens set budget = 5, budget_at = to_timestamp(1)",
            120_000,
            19.0,
        ),
    ] {
        scene.run(text).await;
        scene.say_and_arm(at - 1000).await;
        let one = Claim {
            limit: 1,
            ..claim_of(ROUTE)
        };
        let jobs = claim(&mut scene.conn, &one, Some(START + at)).await;
        let job = jobs.unwrap().remove(0);
        scene.finish(&job, SENT, at).await;
        let budget: f32 = sqlx::query_scalar("select budget from push_tokens")
            .fetch_one(&mut scene.conn)
            .await
            .unwrap();
        assert!((budget - left).abs() < 0.001, "{text}: {budget}");
    }
}
