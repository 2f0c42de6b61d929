//! A token that changes hands, and one that is taken away: nothing of the old user may reach
//! the new one.

use homing::{domain::ids::UserId, store::push::tokens};
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::{device_of, fcm, job, jobs, register, user};

/// (user, outcome, reason, first sequence) of the ledger.
async fn ledger(pool: &PgPool) -> Vec<(i64, String, String, i64)> {
    sqlx::query_as(
        "select user_id, outcome, reason, from_seq from push_attempts order by attempt_id",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn holders(pool: &PgPool) -> Vec<(i64, String)> {
    sqlx::query_as("select user_id, token from push_tokens order by user_id, token")
        .fetch_all(pool)
        .await
        .unwrap()
}

fn removed(UserId(user): UserId) -> (i64, String, String, i64) {
    (user, "cancelled".to_owned(), "token_removed".to_owned(), 1)
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_waited_for_the_old_user_ends_when_the_token_moves(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    register(&mut conn, alice, "phone", "one").await;
    register(&mut conn, alice, "tablet", "two").await;
    let (phone, tablet) = (
        device_of(&pool, alice, "phone").await,
        device_of(&pool, alice, "tablet").await,
    );
    for state in ["armed", "backoff", "in_flight", "done"] {
        job(&pool, alice, phone, state).await;
    }
    job(&pool, alice, tablet, "armed").await;

    register(&mut conn, bob, "phone", "one").await;

    let states = |jobs: Vec<(String, bool, String)>| {
        let state = |(state, is_due, _): (String, bool, String)| (state, is_due);
        jobs.into_iter().map(state).collect::<Vec<_>>()
    };
    let (done, flies) = (("done".to_owned(), false), ("in_flight".to_owned(), true));
    assert_eq!(
        states(jobs(&pool, phone).await),
        [done.clone(), done.clone(), flies, done]
    );
    let waits = ("armed".to_owned(), true);
    assert_eq!(
        states(jobs(&pool, tablet).await),
        [waits],
        "it keeps its token"
    );
    assert_eq!(ledger(&pool).await, [removed(alice), removed(alice)]);
    assert_eq!(tokens::show(&mut conn, alice, "phone").await.unwrap(), None);
    assert!(
        tokens::show(&mut conn, bob, "phone")
            .await
            .unwrap()
            .is_some()
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_waited_ends_when_the_token_is_taken_away(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    register(&mut conn, alice, "phone", "one").await;
    let phone = device_of(&pool, alice, "phone").await;
    job(&pool, alice, phone, "armed").await;

    assert!(tokens::remove(&mut conn, alice, "phone").await.unwrap());
    assert!(!tokens::remove(&mut conn, alice, "phone").await.unwrap());
    assert!(!tokens::remove(&mut conn, alice, "laptop").await.unwrap());

    assert_eq!(jobs(&pool, phone).await[0].0, "done");
    assert_eq!(ledger(&pool).await, [removed(alice)]);
}

/// A new installation on the same phone: another client id, the same token.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_moves_between_the_devices_of_one_user(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    register(&mut conn, alice, "old", "one").await;
    register(&mut conn, alice, "new", "one").await;

    assert_eq!(tokens::show(&mut conn, alice, "old").await.unwrap(), None);
    assert_eq!(holders(&pool).await, [(alice.0, "one".to_owned())]);
}

/// The same text in two apps is two tokens.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_of_another_app_is_another_token(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    register(&mut conn, alice, "phone", "one").await;
    let other = tokens::NewPushToken {
        app: "other-project",
        ..fcm("one")
    };
    let registered = tokens::register(&mut conn, bob, "phone", &other, None, 3).await;
    registered.unwrap().unwrap();

    assert_eq!(holders(&pool).await.len(), 2);
}

/// Eight users register one token at once, again and again, and trade two more: one has it at
/// the end, nobody waits for ever, and nothing is refused.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn registrations_at_once_leave_one_holder(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let mut users = Vec::new();
    for number in 0..8 {
        users.push(user(&mut conn, &format!("user-{number}")).await);
    }
    let mut at_once = JoinSet::new();
    for (number, user) in users.into_iter().enumerate() {
        let pool = pool.clone();
        at_once.spawn(async move {
            let mut conn = homing::store::messages::connect_writer(&pool.connect_options())
                .await
                .unwrap();
            for round in 0..20 {
                let token = ["one", "two", "three"][(number + round) % 3];
                register(&mut conn, user, "phone", token).await;
            }
        });
    }
    at_once.join_all().await;

    let mut tokens: Vec<_> = holders(&pool)
        .await
        .into_iter()
        .map(|(_, token)| token)
        .collect();
    tokens.sort();
    assert!(tokens.len() <= 3, "{tokens:?}");
    tokens.dedup();
    assert_eq!(tokens.len(), holders(&pool).await.len(), "{tokens:?}");
}

/// Bob's phone gets another token while alice takes its old one: nobody else has registered the
/// new one, so it stays.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_that_is_given_up_does_not_take_the_next_one_along(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let mut at_once = JoinSet::new();
    for (user, names) in [(alice, ["one", "one"]), (bob, ["one", "bobs"])] {
        let pool = pool.clone();
        at_once.spawn(async move {
            let mut conn = homing::store::messages::connect_writer(&pool.connect_options())
                .await
                .unwrap();
            for round in 0..200 {
                register(&mut conn, user, "phone", names[round % 2]).await;
                if user == bob && round % 2 == 1 {
                    let token = tokens::show(&mut conn, bob, "phone").await.unwrap();
                    assert!(token.is_some(), "lost in round {round}");
                }
            }
        });
    }
    at_once.join_all().await;
}
