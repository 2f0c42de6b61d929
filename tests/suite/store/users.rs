//! Users are made once, whoever asks for them.

use homing::{
    domain::ids::{Subject, UserId},
    store::users::ensure,
};
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::writer;

fn names(names: &[&str]) -> Vec<Subject> {
    names
        .iter()
        .map(|name| Subject::new(name).unwrap())
        .collect()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn ids_come_in_the_order_of_the_names(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let known = ensure(&mut conn, &names(&["bob", "alice"])).await.unwrap();

    let ids = ensure(&mut conn, &names(&["alice", "carol", "bob", "alice"]))
        .await
        .unwrap();

    assert_eq!((ids[0], ids[2], ids[3]), (known[1], known[0], known[1]));
    assert!(!known.contains(&ids[1]));
    assert_eq!(ensure(&mut conn, &[]).await.unwrap(), []);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn asking_again_uses_up_no_numbers(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let UserId(first) = ensure(&mut conn, &names(&["alice"])).await.unwrap()[0];
    for _ in 0..5 {
        ensure(&mut conn, &names(&["alice"])).await.unwrap();
    }

    let UserId(next) = ensure(&mut conn, &names(&["alice", "bob"])).await.unwrap()[1];

    assert_eq!(next, first + 1);
}

/// Four connections ask for the same new users, half of them in the opposite order.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn opposite_lists_do_not_deadlock_and_agree(pool: PgPool) {
    let mut askers = JoinSet::new();
    for asker in 0..4 {
        let pool = pool.clone();
        askers.spawn(async move {
            let mut conn = writer(&pool).await;
            let mut all = Vec::new();
            for round in 0..10 {
                let new = |number| Subject::new(&format!("{round}-{number}")).unwrap();
                let mut names: Vec<_> = (0..200).map(new).collect();
                if asker % 2 == 1 {
                    names.reverse();
                }
                let mut ids = ensure(&mut conn, &names).await.unwrap();
                ids.sort_unstable();
                all.push(ids);
            }
            all
        });
    }
    let answers = askers.join_all().await;

    assert!(answers.iter().all(|answer| *answer == answers[0]));
}
