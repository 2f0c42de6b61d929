//! The direct conversation of two users, when many make it at once.

use std::collections::HashSet;

use futures_util::future::join_all;
use homing::{
    domain::ids::{ConversationId, UserId},
    store::direct::find_or_claim,
};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::{product_pool, server_process, until_blocked, user, writer};

async fn claim(
    conn: &mut PgConnection,
    one: UserId,
    other: UserId,
    id: ConversationId,
) -> Option<ConversationId> {
    find_or_claim(conn, one, other, id).await.unwrap()
}

/// Goal: who comes second waits for the first, whichever way round the two are named, and finds
/// what it made, or makes it if the first one gave up.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_second_one_waits_for_the_first(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let process = server_process(&mut two).await;
    let (alice, bob) = (
        user(&mut one, "alice").await.0,
        user(&mut one, "bob").await.0,
    );
    let ids = [(); 3].map(|()| ConversationId::random());

    let mut first = one.begin().await.unwrap();
    assert_eq!(claim(&mut first, alice, bob, ids[0]).await, None);
    let (found, ()) = tokio::join!(claim(&mut two, bob, alice, ids[1]), async {
        until_blocked(&pool, process).await;
        first.rollback().await.unwrap();
    });
    assert_eq!(found, None, "nobody made one");

    let mut third = one.begin().await.unwrap();
    assert_eq!(claim(&mut third, alice, bob, ids[2]).await, Some(ids[1]));
    third.commit().await.unwrap();
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn of_many_at_once_one_makes_it(pool: PgPool) {
    let many = product_pool(&pool);
    let mut conn = writer(&pool).await;
    let mut users = Vec::new();
    for name in ["alice", "bob", "carol"] {
        users.push(user(&mut conn, name).await.0);
    }
    let claims = (0..48).map(|number| {
        let (one, other) = [(0, 1), (1, 0), (1, 2), (2, 1)][number % 4];
        let (one, other) = (users[one], users[other]);
        let many = &many;
        async move {
            let mut tx = many.begin().await.unwrap();
            let id = ConversationId::random();
            let found = claim(&mut tx, one, other, id).await;
            tx.commit().await.unwrap();
            (
                (one.min(other), one.max(other)),
                found.unwrap_or(id),
                found.is_none(),
            )
        }
    });
    let answers = join_all(claims).await;
    let made = answers.iter().filter(|(.., is_new)| *is_new).count();
    assert_eq!(made, 2, "one for each pair");
    let known: HashSet<_> = answers.iter().map(|(pair, id, _)| (*pair, *id)).collect();
    assert_eq!(known.len(), 2, "{known:?}");
}

/// Goal: should the lock ever be forgotten, the key of the table still refuses a second one.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_table_itself_holds_one_for_each_pair(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (
        user(&mut conn, "alice").await.0,
        user(&mut conn, "bob").await.0,
    );
    let (low, high) = (alice.0.min(bob.0), alice.0.max(bob.0));
    let mut insert = async |low: i64, high: i64| {
        let insert = "insert into direct_conversations (low_id, high_id, conversation_id)
                      values ($1, $2, $3)";
        let insert = sqlx::query(insert).bind(low).bind(high);
        let done = insert.bind(ConversationId::random().0);
        done.execute(&mut conn).await.is_ok()
    };
    assert!(insert(low, high).await);
    assert!(!insert(low, high).await, "a second one");
    assert!(!insert(high, low).await, "the other way round");
}
