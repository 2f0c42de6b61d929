//! Arming: who gets a job, and when it is due.

use std::time::Duration;

use homing::store::{
    conversations, outbox,
    push::arm::{Armed, Pass},
};
use sqlx::{Connection, PgPool};

use super::{ROUTE, SENT, START, Scene, WEB_ROUTE, arm_rows, group, row, say, user};

const ONE: Armed = Armed {
    jobs: 1,
    suppressed: 0,
    skipped: 0,
};
const NONE: Armed = Armed {
    jobs: 0,
    suppressed: 0,
    skipped: 0,
};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_is_away_is_armed_early(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say("", 0).await;

    assert_eq!(scene.arm(Pass::Early, 1, 1, 1000).await, ONE);
    let job = scene.job().await;
    assert_eq!(
        (job.state.as_str(), job.from_seq, job.to_seq),
        ("armed", 1, 1)
    );
    assert_eq!(job.due, Some(1000));

    // Again, and late, changes nothing.
    assert_eq!(scene.arm(Pass::Early, 1, 1, 1000).await, NONE);
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, NONE);
    assert_eq!(scene.job().await, job);
}

/// All combinations of what the device and another device of the user do.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_grace_depends_on_who_is_connected(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let tablet = scene.device("tablet", -1_000_000).await;
    let (away, here) = (1000, 8000);
    let elsewhere = 15_000;
    let cases = [
        // (phone, tablet, the grace)
        ("offline", "offline", away),
        ("offline", "background", away),
        ("offline", "away", away),
        ("offline", "suspected", away),
        ("offline", "active", elsewhere),
        ("away", "offline", away),
        ("suspected", "offline", away),
        ("suspected", "active", elsewhere),
        ("background", "offline", here),
        ("active", "offline", here),
        ("active", "away", here),
        ("background", "active", elsewhere),
        ("active", "active", elsewhere),
    ];
    for (phone_is, tablet_is, grace) in cases {
        for (device, is) in [(scene.phone, phone_is), (tablet, tablet_is)] {
            sqlx::query(
                "update sessions set node = case when $2 <> 'offline' then 'node-1' end,
                     activity = case when $2 in ('background', 'away') then $2 else 'active' end,
                     suspected_at = case when $2 = 'suspected' then now() end
                 where device_id = $1",
            )
            .bind(device.0)
            .bind(is)
            .execute(&mut scene.conn)
            .await
            .unwrap();
        }
        scene.run("delete from push_jobs").await;
        let seq = scene.say("", 0).await;

        let early = scene.arm(Pass::Early, seq, seq, 1000).await;
        assert_eq!(
            early.jobs == 1,
            grace == away,
            "{phone_is}, {tablet_is}: early"
        );
        let late = scene.arm(Pass::Late, seq, seq, 8000).await;
        assert_eq!(
            late.jobs == 1,
            grace != away,
            "{phone_is}, {tablet_is}: late"
        );
        assert_eq!(
            scene.job().await.due,
            Some(grace),
            "{phone_is}, {tablet_is}"
        );
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_has_just_come_back_gets_time_to_catch_up(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say("", 0).await;
    scene.connect("phone", 5000).await;

    scene.arm(Pass::Late, 1, 1, 8000).await;

    assert_eq!(scene.job().await.due, Some(13_000));
}

/// A restart of the broker leaves nobody connected: what was to wait long waits no more.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn after_a_restart_of_the_broker_everybody_is_away(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.connect("phone", -5000).await;
    scene.say("", 0).await;
    assert_eq!(scene.arm(Pass::Early, 1, 1, 1000).await, NONE);

    homing::store::sessions::disconnect_node(&mut scene.conn, "node-1")
        .await
        .unwrap();

    assert_eq!(scene.arm(Pass::Early, 1, 1, 2000).await, ONE);
    assert_eq!(scene.job().await.due, Some(1000));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_acknowledged_or_read_costs_no_job(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for at in 0..3 {
        scene.say("", at).await;
    }
    scene.settle(Some(1), None).await;
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, NONE);
    scene.settle(None, Some(2)).await;
    assert_eq!(scene.arm(Pass::Late, 2, 2, 8000).await, NONE);

    assert_eq!(scene.arm(Pass::Late, 1, 3, 8000).await, ONE);
    assert_eq!(scene.job().await.from_seq, 3);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn nobody_is_woken_by_their_own_message_or_by_a_notice(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (bob, alice, phone) = (scene.bob.clone(), scene.alice.clone(), scene.phone);
    let carol = user(&mut scene.conn, "carol").await;
    let group = scene.group;
    say(&mut scene.conn, group, &bob, "", 0).await;
    let role = conversations::Role::Member;
    let (carol, alice) = ((carol.0, &carol.1), (alice.0, &alice.1));
    conversations::add(&mut scene.conn, group, carol, role, alice, 10)
        .await
        .unwrap();

    assert_eq!(scene.arm(Pass::Late, 1, 2, 8000).await, NONE);
    assert_eq!(scene.job_of(phone, "wake").await, None);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_what_the_user_may_see_is_told(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (bob, alice, group) = (scene.bob.clone(), scene.alice.clone(), scene.group);
    scene.carol_reads().await;
    for at in 0..2 {
        scene.say("", at).await;
    }
    let (bob, alice) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::remove(&mut scene.conn, group, bob, alice)
        .await
        .unwrap();
    scene.say("", 3).await;
    assert_eq!(scene.arm(Pass::Late, 1, 4, 8000).await, NONE, "removed");

    let role = conversations::Role::Member;
    conversations::add(&mut scene.conn, group, bob, role, alice, 10)
        .await
        .unwrap();
    assert_eq!(
        scene.arm(Pass::Late, 1, 5, 8000).await,
        NONE,
        "before coming back"
    );
    scene.say("", 6).await;
    assert_eq!(scene.arm(Pass::Late, 1, 6, 8000).await, ONE);
    assert_eq!(
        scene.job().await.from_seq,
        5,
        "nothing from before coming back"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_live_tokens_of_configured_apps_are_armed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let phone = scene.phone;
    scene.carol_reads().await;
    scene.say("", 0).await;
    scene.token(phone, "fcm:other:production", "token").await;
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, NONE, "another app");
    scene.token(phone, ROUTE, "token").await;
    scene
        .run("update push_tokens set dead_since = now() where token = 'token'")
        .await;
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, NONE, "dead");
    scene
        .run("delete from push_tokens where token = 'token'")
        .await;
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, NONE, "none");

    scene.token(phone, WEB_ROUTE, "token").await;
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, ONE);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn newer_messages_extend_a_job_that_is_armed(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let first = scene.job().await;
    scene.say_and_arm(500).await;

    let job = scene.job().await;
    assert_eq!((job.from_seq, job.to_seq), (1, 2));
    assert_eq!(
        job.due,
        Some(1000),
        "the first message has waited since then"
    );
    assert_eq!(job.notification_id, first.notification_id);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn newer_messages_extend_a_back_off_and_do_not_end_it(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.finish(&job, super::retry(60), 1000).await;

    scene.say_and_arm(2000).await;

    let job = scene.job().await;
    assert_eq!((job.state.as_str(), job.to_seq), ("backoff", 2));
    assert_eq!((job.due, job.attempts), (Some(61_000), 1));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_job_that_is_done_begins_anew_after_the_repeat_interval(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let pushed = scene.push(0).await;
    let done = scene.job().await;
    assert_eq!((done.state.as_str(), done.due), ("done", None));

    scene.say_and_arm(2000).await;
    let job = scene.job().await;
    assert_eq!(
        (job.state.as_str(), job.from_seq, job.to_seq),
        ("armed", 2, 2)
    );
    assert_eq!(job.due, Some(11_000), "pushed at 1 s, and 10 s between two");
    assert_ne!(job.notification_id, pushed.notification_id);

    // One more does not make it earlier.
    scene.say_and_arm(3000).await;
    assert_eq!(scene.job().await.due, Some(11_000));
    assert_eq!(scene.claim(10_999).await, []);
    assert_eq!(scene.claim_one(11_000).await.held.parts[0].to, 3);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn newer_messages_while_in_flight_do_not_disturb_it(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say_and_arm(0).await;
    let job = scene.claim_one(1000).await;
    scene.say_and_arm(1500).await;
    scene.say_and_arm(1600).await;
    assert_eq!(scene.job().await.state, "in_flight");
    assert_eq!(scene.claim(3000).await, [], "one unsent job at most");

    scene.finish(&job, SENT, 3000).await;

    let row = scene.job().await;
    assert_eq!(
        (row.state.as_str(), row.from_seq, row.to_seq),
        ("armed", 2, 3)
    );
    assert_eq!((row.pushed_seq, row.due), (1, Some(13_000)));
    let again = scene.claim_one(13_000).await;
    assert_ne!(again.notification_id, job.notification_id);
    assert_eq!((again.held.parts[0].from, again.held.parts[0].to), (2, 3));
    assert_eq!(again.committed_at_millis, START + 1500);
}

/// A message is armed late, since the device was connected; a newer one early, since it is not
/// any more.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_older_message_after_a_newer_one_counts_too(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say(r#"{"urgent":true}"#, 0).await;
    scene.say("", 100).await;
    scene.arm(Pass::Early, 2, 2, 1100).await;
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, ONE);
    let job = scene.claim_one(8000).await;
    assert!(job.is_urgent);
    assert_eq!((job.held.parts[0].from, job.held.parts[0].to), (1, 2));
    assert_eq!(scene.arm(Pass::Late, 1, 1, 8000).await, NONE, "in flight");
    scene.finish(&job, SENT, 8000).await;
    assert_eq!(scene.arm(Pass::Late, 1, 2, 8000).await, NONE, "pushed");
}

/// The newer one has nothing to tell any more; the older one has.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_older_message_outlives_a_newer_one(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say("", 0).await;
    let extra = format!(r#"{{"expires_at":{}}}"#, START + 1000);
    scene.say(&extra, 0).await;
    assert_eq!(scene.arm(Pass::Early, 2, 2, 999).await, ONE);
    assert_eq!(scene.claim(1000).await, []);
    assert_eq!(scene.ledger().await, ["cancelled expired 2..2"]);

    assert_eq!(scene.arm(Pass::Late, 1, 2, 8000).await.jobs, 1);

    let part = scene.claim_one(8000).await.held.parts[0];
    assert_eq!((part.from, part.to), (1, 1));
}

/// Two transactions commit in another order than they began; none is skipped.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_late_commit_is_armed_too(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let mut slow = Scene::conn(&pool).await;
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let other = group(&mut scene.conn, &[&alice, &bob]).await;
    let mut late = slow.begin().await.unwrap();
    say(&mut late, other, &alice, "", 0).await;
    scene.say("", 100).await;
    let age = Duration::from_secs(1);
    let long_after = Some(START * 2);
    let early = outbox::read_older_than(&mut scene.conn, "push", 100, age, long_after)
        .await
        .unwrap();
    assert_eq!(early, [], "the older transaction still runs");
    late.commit().await.unwrap();

    let rows = super::until_aged(&mut scene.conn, 2, long_after).await;
    assert_eq!(
        arm_rows(&mut scene.conn, &rows, Pass::Early, 1000)
            .await
            .jobs,
        2
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn rows_younger_than_the_age_are_not_read(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    for at in 0..3 {
        scene.say("", at).await;
    }
    scene
        .run("update outbox set created_at = to_timestamp(2000000000 + (payload ->> 'to')::bigint)")
        .await;
    super::until_aged(&mut scene.conn, 3, Some(START * 2)).await;
    let age = Duration::from_secs(1);

    let at = Some(START + 3999);
    let rows = outbox::read_older_than(&mut scene.conn, "push", 100, age, at)
        .await
        .unwrap();

    let ends: Vec<_> = rows
        .iter()
        .map(|row| (row.to, row.created_at_millis))
        .collect();
    assert_eq!(ends, [(1, START + 1000), (2, START + 2000)]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_consumer_that_reads_no_more_holds_no_rows(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    scene.say("", 0).await;
    let rows = super::until_aged(&mut scene.conn, 1, Some(START * 2)).await;
    outbox::read(&mut scene.conn, "fan-out", 1).await.unwrap();
    outbox::advance(&mut scene.conn, "fan-out", rows[0].place)
        .await
        .unwrap();
    assert_eq!(outbox::prune(&mut scene.conn).await.unwrap(), 0);

    outbox::forget(&mut scene.conn, "push").await.unwrap();

    assert_eq!(outbox::prune(&mut scene.conn).await.unwrap(), 1);
}

/// The database refuses whatever concerns one conversation; the others are armed.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_row_that_is_refused_does_not_stop_the_others(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let poisoned = scene.group;
    let sound = group(&mut scene.conn, &[&alice, &bob]).await;
    scene.say("", 0).await;
    say(&mut scene.conn, sound, &alice, "", 0).await;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "alter table push_jobs add check (conversation_id <> '{}')",
        poisoned.0
    )))
    .execute(&mut scene.conn)
    .await
    .unwrap();

    let rows = [row(poisoned, 1, 1), row(sound, 1, 1), row(poisoned, 1, 0)];
    let armed = arm_rows(&mut scene.conn, &rows, Pass::Early, 1000).await;

    assert_eq!((armed.jobs, armed.skipped), (1, 1));
}

/// Whatever a sender writes into the members that concern push, the messages are armed.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn no_envelope_stops_the_arming(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let poison = [
        r#"{"mentions":["b\u0000b","\ud800",1,{}],"urgent":true}"#,
        r#"{"expires_at":9223372036854775807}"#,
        r#"{"expires_at":-9223372036854775808}"#,
        r#"{"expires_at":1e999,"urgent":1}"#,
        r#"{"urgent":"\u0000","mentions":null}"#,
        "not json at all: \"urgent\"",
    ];
    for (extra, seq) in poison.into_iter().zip(1..) {
        scene.say(extra, seq).await;
        let armed = scene.arm(Pass::Early, seq, seq, 1000).await;
        let has_expired = extra.contains("-9");
        assert_eq!(
            (armed.jobs == 0, armed.skipped),
            (has_expired, 0),
            "{extra}"
        );
    }
}

impl Scene {
    /// Somebody else in the group has a live token, and has read all that is coming.
    async fn carol_reads(&mut self) {
        let carol = user(&mut self.conn, "carol").await;
        sqlx::query(
            "with carols as (
                 insert into devices (user_id, client_id) values ($1, 'phone') returning device_id
             ), part as (
                 insert into participants (conversation_id, user_id, joined_seq, read_seq)
                 values ($2, $1, 1, 9)
             )
             insert into push_tokens (device_id, user_id, provider, app, token)
             select device_id, $1, 'apns', 'com.example.chat', 'hers' from carols",
        )
        .bind(carol.0.0)
        .bind(self.group.0)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }
}
