//! Standings: how far participants have got, as receipts tell it.

use homing::{
    domain::{
        ids::{ConversationId, DeviceId, UserId},
        receipt::Standing,
    },
    store::{
        conversations::{self, Role},
        cursors::{Moved, Settled, settle, standings},
    },
};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;

use super::{User, fill, group, server_process, until_blocked, user, writer};

fn read(user: &User, conversation: ConversationId, to: i64) -> Settled {
    Settled {
        device: None,
        user: user.0,
        conversation,
        delivered: None,
        read: Some(to),
    }
}

fn delivered(device: i64, user: &User, conversation: ConversationId, to: i64) -> Settled {
    let device = Some(DeviceId(device));
    Settled {
        device,
        user: user.0,
        conversation,
        delivered: Some(to),
        read: None,
    }
}

/// (delivered, read) of each standing that moved.
fn positions(moved: &[Moved]) -> Vec<(i64, i64)> {
    moved
        .iter()
        .map(|moved| (moved.delivered, moved.read))
        .collect()
}

async fn all_standings(conn: &mut PgConnection, conversation: ConversationId) -> Vec<Standing> {
    let standings = standings(conn, conversation, UserId(0), None, 100);
    standings.await.unwrap()
}

async fn read_ordinal(conn: &mut PgConnection, conversation: ConversationId, user: &User) -> i64 {
    sqlx::query_scalar(
        "select read_ordinal from participants where conversation_id = $1 and user_id = $2",
    )
    .bind(conversation.0)
    .bind(user.0.0)
    .fetch_one(conn)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_what_rises_is_told(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 9).await;

    let batch = [
        delivered(1, &bob, conversation, 3),
        delivered(2, &bob, conversation, 5),
    ];
    let moved = settle(&mut conn, &batch).await.unwrap();
    assert_eq!(
        moved,
        [Moved {
            conversation,
            user: bob.0,
            name: bob.1.clone(),
            delivered: 5,
            read: 0,
            has_read: false,
            is_told: true,
        }]
    );

    // The slower device, a repeat, and an older reading move nothing.
    assert_eq!(
        settle(&mut conn, &[delivered(1, &bob, conversation, 4)])
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        positions(
            &settle(&mut conn, &[read(&bob, conversation, 2)])
                .await
                .unwrap()
        ),
        [(5, 2)]
    );
    assert_eq!(
        settle(&mut conn, &[read(&bob, conversation, 1)])
            .await
            .unwrap(),
        []
    );
    assert_eq!(settle(&mut conn, &[]).await.unwrap(), []);
    let standing = |user: &User, delivered, read| Standing {
        user: user.1.clone(),
        delivered,
        read,
    };
    assert_eq!(
        all_standings(&mut conn, conversation).await,
        [standing(&alice, 0, 0), standing(&bob, 5, 2)]
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_read_is_delivered_and_within_the_log(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 4).await;

    let moved = settle(&mut conn, &[read(&alice, conversation, 3)])
        .await
        .unwrap();
    assert_eq!(positions(&moved), [(3, 3)]);
    let moved = settle(&mut conn, &[read(&alice, conversation, 1000)])
        .await
        .unwrap();
    assert_eq!(positions(&moved), [(4, 4)]);
}

/// The entries 1 and 2 are messages, 3 says that Bob was added, 4 is a message.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_reading_counts_messages_only(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice]).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    fill(&mut conn, conversation, &alice, 2).await;
    conversations::add(&mut conn, conversation, whom, Role::Member, actor, 10)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 1).await;

    assert_eq!(read_ordinal(&mut conn, conversation, &bob).await, 2);
    for (to, ordinal) in [(1, 1), (3, 2), (4, 3)] {
        settle(&mut conn, &[read(&alice, conversation, to)])
            .await
            .unwrap();
        assert_eq!(
            read_ordinal(&mut conn, conversation, &alice).await,
            ordinal,
            "read {to}"
        );
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_takes_no_part_has_no_standing(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let stranger = user(&mut conn, "stranger").await;
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 4).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::remove(&mut conn, conversation, whom, actor)
        .await
        .unwrap();

    let nowhere = ConversationId::random();
    let batch = [
        read(&bob, conversation, 2),
        read(&stranger, conversation, 2),
        read(&alice, nowhere, 2),
        read(&alice, conversation, 2),
    ];
    let moved = settle(&mut conn, &batch).await.unwrap();

    assert_eq!(
        moved.iter().map(|moved| &moved.name).collect::<Vec<_>>(),
        [&alice.1]
    );
    assert_eq!(all_standings(&mut conn, conversation).await.len(), 1);
}

/// Four connections settle the same cursors, half of them in the opposite order.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn opposite_batches_do_not_deadlock(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let mut conversations = Vec::new();
    for _ in 0..40 {
        let id = group(&mut conn, &[&alice]).await;
        fill(&mut conn, id, &alice, 20).await;
        conversations.push(id);
    }

    let mut flushes = JoinSet::new();
    for flush in 0..4 {
        let (pool, alice, mut conversations) = (pool.clone(), alice.clone(), conversations.clone());
        if flush % 2 == 1 {
            conversations.reverse();
        }
        flushes.spawn(async move {
            let mut conn = writer(&pool).await;
            for to in 1..=20 {
                let batch: Vec<_> = conversations
                    .iter()
                    .flat_map(|id| [delivered(1, &alice, *id, to), read(&alice, *id, to)])
                    .collect();
                settle(&mut conn, &batch).await.unwrap();
            }
        });
    }
    flushes.join_all().await;

    for id in conversations {
        let standing = &all_standings(&mut conn, id).await[0];
        assert_eq!((standing.delivered, standing.read), (20, 20));
    }
}

/// Two readers' reports come to the same three conversations from opposite ends, and meet at
/// the one in the middle, which a third transaction holds.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn opposite_readings_do_not_deadlock(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let processes = [
        server_process(&mut one).await,
        server_process(&mut two).await,
    ];
    let alice = user(&mut one, "alice").await;
    let mut conversations = Vec::new();
    for _ in 0..3 {
        let id = group(&mut one, &[&alice]).await;
        fill(&mut one, id, &alice, 5).await;
        conversations.push(id);
    }
    let forwards: Vec<_> = conversations
        .iter()
        .map(|id| read(&alice, *id, 3))
        .collect();
    let backwards: Vec<_> = conversations
        .iter()
        .rev()
        .map(|id| read(&alice, *id, 4))
        .collect();

    let mut holder = pool.begin().await.unwrap();
    settle(&mut holder, &[read(&alice, conversations[1], 1)])
        .await
        .unwrap();
    let (first, second, ()) = tokio::join!(
        settle(&mut one, &forwards),
        settle(&mut two, &backwards),
        async {
            for process in processes {
                until_blocked(&pool, process).await;
            }
            holder.commit().await.unwrap();
        }
    );

    // Whichever came later moved all three to 4 in the end.
    first.and(second).unwrap();
    for id in conversations {
        assert_eq!(all_standings(&mut one, id).await[0].read, 4);
    }
}

/// (delivered, read) of a cursor, if there is one.
async fn cursor(conn: &mut PgConnection, device: i64) -> Option<(i64, i64)> {
    sqlx::query_as("select delivered_seq, read_seq from device_cursors where device_id = $1")
        .bind(device)
        .fetch_optional(conn)
        .await
        .unwrap()
}

/// Goal: what is read on a device is known of it, and moves nobody past what was not delivered.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_reads_keeps_its_cursor(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 9).await;
    let read_on = |device: i64, to| Settled {
        device: Some(DeviceId(device)),
        ..read(&bob, conversation, to)
    };

    settle(&mut conn, &[read_on(1, 3)]).await.unwrap();
    assert_eq!(cursor(&mut conn, 1).await, None);

    settle(&mut conn, &[delivered(1, &bob, conversation, 2)])
        .await
        .unwrap();
    settle(&mut conn, &[delivered(2, &bob, conversation, 1)])
        .await
        .unwrap();
    settle(&mut conn, &[read_on(1, 5)]).await.unwrap();
    assert_eq!(cursor(&mut conn, 1).await, Some((2, 5)));
    assert_eq!(cursor(&mut conn, 2).await, Some((1, 0)));

    // Both at once, older ones, and one beyond the log.
    let both = Settled {
        delivered: Some(4),
        ..read_on(1, 4)
    };
    settle(&mut conn, &[both, read_on(2, 99)]).await.unwrap();
    assert_eq!(cursor(&mut conn, 1).await, Some((4, 5)));
    assert_eq!(cursor(&mut conn, 2).await, Some((1, 9)));
}

/// Goal: an inbox row has a new version when its user has read on, and for no delivery.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_reading_is_a_change_of_the_users_own_row(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 9).await;
    sqlx::query("update participants set changed_at = 'epoch'")
        .execute(&mut conn)
        .await
        .unwrap();
    let mut steps = Vec::new();
    for report in [
        delivered(1, &bob, conversation, 3),
        read(&bob, conversation, 2),
        read(&bob, conversation, 2),
        read(&bob, conversation, 1),
        read(&bob, conversation, 99),
        delivered(1, &bob, conversation, 9),
    ] {
        let moved = settle(&mut conn, &[report]).await.unwrap();
        let (version, is_changed): (i64, bool) = sqlx::query_as(
            "with old as (select * from participants where user_id = $1)
             update participants p set changed_at = 'epoch' from old
             where p.user_id = old.user_id returning p.own_version, old.changed_at > 'epoch'",
        )
        .bind(bob.0.0)
        .fetch_one(&mut conn)
        .await
        .unwrap();
        let has_read = moved.first().map(|moved| moved.has_read);
        steps.push((version, is_changed, has_read));
    }
    let expected = [
        (0, false, Some(false)),
        (1, true, Some(true)),
        (1, false, None),
        (1, false, None),
        (2, true, Some(true)),
        (2, false, None),
    ];
    assert_eq!(steps, expected);
    let strangers = "select sum(own_version)::bigint from participants where user_id <> $1";
    let strangers: i64 = sqlx::query_scalar(strangers)
        .bind(bob.0.0)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(strangers, 0);
}
