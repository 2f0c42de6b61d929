//! The cost of a statement depends on what it handles, not on what waits: everything is found
//! by an index, also by one with stale statistics.

use homing::{
    domain::ids::ConversationId,
    store::{
        cursors::{self, Settled},
        push::{
            arm::{Pass, arm},
            finish::{Finished, finish},
            jobs::{Claim, claim, next_due_millis},
            ledger, upkeep,
        },
    },
};
use sqlx::{Connection, PgConnection, PgPool};

use super::{GRACES, PATIENCE, ROUTE, SENT, START, Scene, claim_of, group, routes, row, say};

/// Jobs that wait for others.
const WAITING: i64 = 100_000;

/// What the statements of a transaction have read: rows of whole tables, rows by an index.
async fn reads(conn: &mut PgConnection) -> (i64, i64) {
    sqlx::query_as(
        "select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
         from pg_stat_xact_user_tables",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

/// Since the last look no table has been scanned, and at most so many rows were found.
async fn check(conn: &mut PgConnection, before: &mut (i64, i64), what: &str, found_max: i64) {
    let after = reads(conn).await;
    assert_eq!(after.0 - before.0, 0, "{what}: rows of whole tables");
    let found = after.1 - before.1;
    let tables = "select relname || ' ' || idx_tup_fetch from pg_stat_xact_user_tables
                  where idx_tup_fetch > 0 order by idx_tup_fetch desc";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(conn).await.unwrap();
    assert!(
        found <= found_max,
        "{what}: {found} rows, {found_max} would do; so far {tables:?}"
    );
    *before = after;
}

/// As the product connects.
async fn product(pool: &PgPool) -> Scene {
    let mut scene = Scene::new(pool).await;
    let options = pool.connect_options();
    let pool = homing::store::open_pool(options.as_ref().clone(), 1, PATIENCE);
    scene.conn = pool.acquire().await.unwrap().detach();
    scene
}

/// Users with a phone each, in one group with Alice; and jobs of others, due and not due.
async fn crowd(scene: &mut Scene, members: i64) -> ConversationId {
    let alice = scene.alice.clone();
    let crowded = group(&mut scene.conn, &[&alice]).await;
    for text in [
        "insert into users (subject) select 'member-' || n from generate_series(1, $2) n",
        "insert into devices (user_id, client_id) select user_id, 'phone' from users
         where subject like 'member-%'",
        "insert into sessions (device_id, disconnected_at) select device_id, now() from devices
         on conflict do nothing",
        "insert into push_tokens (device_id, user_id, provider, app, token)
         select device_id, user_id, 'apns', 'com.example.chat', 'token ' || device_id from devices
         on conflict do nothing",
        "insert into participants (conversation_id, user_id, joined_seq)
         select $1, user_id, 1 from users where subject like 'member-%'",
        "insert into push_jobs (conversation_id, user_id, device_id, kind, route, state, from_seq, to_seq,
                                committed_at, due_at)
         select gen_random_uuid(), n, n, 'wake', 'apns:com.example.chat:production', 'armed', 1, 1, now(),
                to_timestamp(2000000000 + n % 1000)
         from generate_series(1, $3) n",
    ] {
        sqlx::query(text)
            .bind(crowded.0)
            .bind(members)
            .bind(WAITING)
            .execute(&mut scene.conn)
            .await
            .unwrap();
    }
    crowded
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_waits_for_others_costs_nothing(pool: PgPool) {
    let mut scene = product(&pool).await;
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let crowded = crowd(&mut scene, 1000).await;
    say(&mut scene.conn, crowded, &alice, "", -10_000).await;
    let quiet = group(&mut scene.conn, &[&alice, &bob]).await;
    say(&mut scene.conn, quiet, &alice, "", -10_000).await;

    let mut conn = scene.conn;
    let mut tx = conn.begin().await.unwrap();
    let mut before = reads(&mut tx).await;
    for (conversation, jobs, found_max) in [(quiet, 1, 40), (crowded, 1000, 12_000)] {
        let rows = [row(conversation, 1, 1)];
        let at = Some(START);
        let armed = arm(&mut tx, &rows, Pass::Late, &GRACES, &routes(), at).await;
        assert_eq!(armed.unwrap().jobs, jobs);
        check(&mut tx, &mut before, "arm", found_max).await;
    }
    let hundred = Claim {
        limit: 100,
        ..claim_of(ROUTE)
    };
    let jobs = claim(&mut tx, &hundred, Some(START)).await.unwrap();
    assert_eq!(jobs.len(), 100);
    check(&mut tx, &mut before, "claim", 100 * 30).await;
    let finished: Vec<_> = jobs
        .iter()
        .map(|job| Finished {
            held: job.held.clone(),
            token: job.address.token.clone(),
            result: SENT,
        })
        .collect();
    let done = finish(&mut tx, &finished, GRACES.repeat, Some(START)).await;
    assert_eq!(done.unwrap(), 100);
    check(&mut tx, &mut before, "finish", 100 * 20).await;
    next_due_millis(&mut tx, ROUTE, Some(START)).await.unwrap();
    check(&mut tx, &mut before, "next_due_millis", 1).await;
    let settled = Settled {
        device: None,
        user: jobs[0].held.user,
        conversation: jobs[0].held.parts[0].conversation,
        delivered: None,
        read: Some(1),
    };
    cursors::settle(&mut tx, &[settled]).await.unwrap();
    check(&mut tx, &mut before, "settle", 14).await;
    upkeep::end_unrouted(&mut tx, &routes(), 100, None)
        .await
        .unwrap();
    check(&mut tx, &mut before, "end_unrouted", 3).await;
    upkeep::revive(&mut tx, ROUTE, START, None).await.unwrap();
    check(&mut tx, &mut before, "revive", 0).await;
    upkeep::delete_dead(&mut tx, GRACES.repeat, 10, None)
        .await
        .unwrap();
    check(&mut tx, &mut before, "delete_dead", 0).await;
    let sequence = homing::domain::message::Sequence::FIRST;
    let user = jobs[0].held.user;
    ledger::explain(&mut tx, crowded, user, sequence)
        .await
        .unwrap();
    check(&mut tx, &mut before, "explain", 10).await;
    ledger::prune(&mut tx, GRACES.repeat, 10, Some(START * 2))
        .await
        .unwrap();
    check(&mut tx, &mut before, "prune", 30).await;
}

/// `cargo nextest run --run-ignored only -E 'test(how_fast)' --no-capture` prints figures.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
#[ignore = "a measurement"]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, and says so"
)]
async fn how_fast_jobs_are_done(pool: PgPool) {
    let mut scene = product(&pool).await;
    let alice = scene.alice.clone();
    let crowded = crowd(&mut scene, 5000).await;
    scene
        .run("delete from push_jobs where user_id % 10 = 0")
        .await;
    scene.run("analyze").await;
    let mut took = [0.0; 3];
    let mut count = 0_u32;
    for round in 0..5 {
        let now = round * 2_000_000;
        let seq = say(&mut scene.conn, crowded, &alice, "", now).await;
        let begun = std::time::Instant::now();
        let rows = [row(crowded, seq, seq)];
        let at = Some(START + now + 1000);
        arm(&mut scene.conn, &rows, Pass::Early, &GRACES, &routes(), at)
            .await
            .unwrap();
        took[0] += begun.elapsed().as_secs_f64();
        loop {
            let at = Some(START + now + 1_500_000);
            let begun = std::time::Instant::now();
            let jobs = claim(&mut scene.conn, &claim_of(ROUTE), at).await.unwrap();
            took[1] += begun.elapsed().as_secs_f64();
            let finished: Vec<_> = jobs
                .iter()
                .map(|job| Finished {
                    held: job.held.clone(),
                    token: job.address.token.clone(),
                    result: SENT,
                })
                .collect();
            let begun = std::time::Instant::now();
            finish(&mut scene.conn, &finished, GRACES.repeat, at)
                .await
                .unwrap();
            took[2] += begun.elapsed().as_secs_f64();
            count += u32::try_from(jobs.len()).unwrap();
            let due: bool = sqlx::query_scalar(
                "select exists (select from push_jobs where due_at <= to_timestamp($1 / 1000.0))",
            )
            .bind(at)
            .fetch_one(&mut scene.conn)
            .await
            .unwrap();
            if !due {
                break;
            }
        }
    }
    let of = |seconds: f64| seconds * 1000.0 / f64::from(count);
    println!("{count} jobs: arm {:.3} ms each", of(took[0]));
    println!(
        "claim {:.3} ms each (with 90,000 jobs cancelled)",
        of(took[1])
    );
    println!("finish {:.3} ms each", of(took[2]));
}
