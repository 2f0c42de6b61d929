//! The outbox: every committed batch reaches every consumer, and then leaves.
//!
//! A transaction that runs anywhere in the server holds the readers back, also one of
//! another test: what must be there is waited for.

use std::time::Duration;

use homing::{
    domain::ids::ConversationId,
    store::{
        conversations,
        outbox::{Place, Row, advance, oldest_age, prune, read},
    },
};
use sqlx::{Connection, PgConnection, PgPool};

use super::{PATIENCE, append, fill, group, message, user, writer};

/// Reads until there are `count` rows.
async fn until_read(conn: &mut PgConnection, consumer: &str, count: usize) -> Vec<Row> {
    let enough = async {
        loop {
            let rows = read(conn, consumer, 100).await.unwrap();
            if rows.len() >= count {
                return rows;
            }
        }
    };
    tokio::time::timeout(PATIENCE, enough)
        .await
        .expect("the rows should become readable")
}

fn ranges(rows: &[Row]) -> Vec<(ConversationId, i64, i64)> {
    rows.iter()
        .map(|row| (row.conversation, row.from.get(), row.to.get()))
        .collect()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_batch_is_one_row_for_each_conversation(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let (one, two) = (
        group(&mut conn, &[&alice]).await,
        group(&mut conn, &[&alice]).await,
    );
    fill(&mut conn, one, &alice, 1).await;
    let batch = [
        message(one, &alice),
        message(two, &alice),
        message(one, &alice),
        message(two, &bob),
    ];
    append(&mut conn, &batch).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    let role = conversations::Role::Member;
    conversations::add(&mut conn, one, whom, role, actor, 10)
        .await
        .unwrap();

    let mut rows = ranges(&until_read(&mut conn, "fan-out", 4).await);

    rows[1..3].sort_unstable(); // one transaction has no order of its own
    assert_eq!(rows, [(one, 1, 1), (one, 2, 3), (two, 1, 1), (one, 4, 4)]);
}

/// The first transaction begins before the second one and commits after it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_late_commit_is_not_skipped(pool: PgPool) {
    let (mut conn, mut slow) = (writer(&pool).await, writer(&pool).await);
    let alice = user(&mut conn, "alice").await;
    let (one, two) = (
        group(&mut conn, &[&alice]).await,
        group(&mut conn, &[&alice]).await,
    );

    let mut late = slow.begin().await.unwrap();
    append(&mut late, &[message(one, &alice)]).await;
    append(&mut conn, &[message(two, &alice)]).await;

    // The second one has committed, but may not be read before the first one has ended.
    assert_eq!(read(&mut conn, "fan-out", 100).await.unwrap(), []);
    late.commit().await.unwrap();
    let rows = until_read(&mut conn, "fan-out", 2).await;
    assert_eq!(ranges(&rows), [(one, 1, 1), (two, 1, 1)]);
    assert!(rows[0].place < rows[1].place);
}

/// Goal: the age is that of the oldest row that the consumer has not passed, be it one that an older
/// transaction keeps from being read.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_oldest_row_that_is_not_read_has_an_age(pool: PgPool) {
    let (mut conn, mut slow) = (writer(&pool).await, writer(&pool).await);
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    assert_eq!(read(&mut conn, "fan-out", 1).await.unwrap(), []);
    assert_eq!(oldest_age(&mut conn, "fan-out").await.unwrap(), None);

    let mut late = slow.begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()")
        .execute(&mut *late)
        .await
        .unwrap();
    for _ in 0..2 {
        fill(&mut conn, conversation, &alice, 1).await;
    }
    let hours = "update outbox set created_at = now() - make_interval(hours => 3 - id::integer)";
    sqlx::query(hours).execute(&mut conn).await.unwrap();
    assert_eq!(read(&mut conn, "fan-out", 9).await.unwrap(), []);
    let age = async |conn: &mut PgConnection| oldest_age(conn, "fan-out").await.unwrap();
    let hours = |count| Duration::from_hours(count)..Duration::from_hours(count + 1);
    assert!(hours(2).contains(&age(&mut conn).await.unwrap()));

    late.commit().await.unwrap();
    let rows = until_read(&mut conn, "fan-out", 2).await;
    advance(&mut conn, "fan-out", rows[0].place).await.unwrap();
    assert!(hours(1).contains(&age(&mut conn).await.unwrap()));
    advance(&mut conn, "fan-out", rows[1].place).await.unwrap();
    assert_eq!(age(&mut conn).await, None);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_consumer_goes_on_where_it_was(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    for _ in 0..3 {
        fill(&mut conn, conversation, &alice, 1).await;
    }
    let rows = until_read(&mut conn, "fan-out", 3).await;
    assert_eq!(read(&mut conn, "fan-out", 2).await.unwrap(), rows[..2]);

    advance(&mut conn, "fan-out", rows[1].place).await.unwrap();
    assert_eq!(until_read(&mut conn, "fan-out", 1).await, rows[2..]);

    // Never back, and another consumer has its own place.
    advance(&mut conn, "fan-out", rows[0].place).await.unwrap();
    assert_eq!(until_read(&mut conn, "fan-out", 1).await, rows[2..]);
    assert_eq!(until_read(&mut conn, "push", 3).await, rows);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn rows_leave_when_all_consumers_have_passed(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    for _ in 0..3 {
        fill(&mut conn, conversation, &alice, 1).await;
    }
    assert_eq!(prune(&mut conn).await.unwrap(), 0, "nobody has read yet");
    let rows = until_read(&mut conn, "fan-out", 3).await;
    until_read(&mut conn, "push", 3).await;

    advance(&mut conn, "fan-out", rows[2].place).await.unwrap();
    assert_eq!(
        prune(&mut conn).await.unwrap(),
        0,
        "push has not passed any"
    );
    advance(&mut conn, "push", rows[1].place).await.unwrap();
    assert_eq!(prune(&mut conn).await.unwrap(), 2);

    assert_eq!(until_read(&mut conn, "push", 1).await, rows[2..]);
    advance(
        &mut conn,
        "push",
        Place {
            xid: i64::MAX,
            id: 0,
        },
    )
    .await
    .unwrap();
    assert_eq!(prune(&mut conn).await.unwrap(), 1);
}
