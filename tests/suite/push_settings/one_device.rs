//! One device and its token.

use homing::store::push::tokens::{self, NewPushToken, TooManyTokens};
use sqlx::PgPool;

use super::{TOKENS_MAX, connect, device_of, fcm, job, jobs, register, user};

/// As if it had been registered an hour ago, used up since, and found dead.
async fn age(pool: &PgPool, device: i64, is_dead: bool) {
    sqlx::query(
        "update push_tokens
         set registered_at = now() - interval '1 hour', budget = 1, budget_at = now(),
             background_at = now(), dead_since = case when $2 then now() end,
             dead_reason = case when $2 then 'UNREGISTERED' end
         where device_id = $1",
    )
    .bind(device)
    .bind(is_dead)
    .execute(pool)
    .await
    .unwrap();
}

async fn budget(pool: &PgPool, device: i64) -> (bool, bool, bool) {
    sqlx::query_as(
        "select budget is null, budget_at is null, background_at is null
         from push_tokens where device_id = $1",
    )
    .bind(device)
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_same_token_keeps_its_age_and_its_budget(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    register(&mut conn, alice, "phone", "one").await;
    let device = device_of(&pool, alice, "phone").await;
    age(&pool, device, false).await;
    let before = tokens::show(&mut conn, alice, "phone").await.unwrap();

    let after = register(&mut conn, alice, "phone", "one").await;

    assert_eq!(Some(after), before);
    assert_eq!(budget(&pool, device).await, (false, false, false));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn another_token_begins_anew(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    let first = register(&mut conn, alice, "phone", "one").await;
    let device = device_of(&pool, alice, "phone").await;
    age(&pool, device, false).await;

    let second = register(&mut conn, alice, "phone", "two").await;

    assert_ne!(second.fingerprint, first.fingerprint);
    assert!(second.registered_at_millis >= first.registered_at_millis);
    assert_eq!(budget(&pool, device).await, (true, true, true));
}

/// The app says that the token works: what the provider said earlier is over.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_dead_token_that_is_registered_again_lives(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    let first = register(&mut conn, alice, "phone", "one").await;
    let device = device_of(&pool, alice, "phone").await;
    age(&pool, device, true).await;
    let dead = tokens::show(&mut conn, alice, "phone").await.unwrap();
    let (_, reason) = dead.unwrap().dead.unwrap();
    assert_eq!(reason, "UNREGISTERED");

    let again = register(&mut conn, alice, "phone", "one").await;

    assert_eq!(again.dead, None);
    assert!(again.registered_at_millis >= first.registered_at_millis);
    assert_eq!(budget(&pool, device).await, (true, true, true));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_waits_goes_to_the_new_route(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    register(&mut conn, alice, "phone", "one").await;
    let device = device_of(&pool, alice, "phone").await;
    for state in ["armed", "backoff", "in_flight", "done"] {
        job(&pool, alice, device, state).await;
    }

    let apns = NewPushToken {
        provider: "apns",
        app: "com.example.chat",
        environment: "sandbox",
        ..fcm("two")
    };
    tokens::register(&mut conn, alice, "phone", &apns, None, TOKENS_MAX)
        .await
        .unwrap()
        .unwrap();

    let (new, old) = ("apns:com.example.chat:sandbox", "fcm:my-project:production");
    let routes: Vec<_> = jobs(&pool, device)
        .await
        .into_iter()
        .map(|(.., route)| route)
        .collect();
    assert_eq!(routes, [new, new, old, old]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_registers_before_it_ever_connects(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    register(&mut conn, alice, "phone", "one").await;
    let [device] = &tokens::devices(&mut conn, alice).await.unwrap()[..] else {
        panic!("one device");
    };
    assert!(!device.is_connected && device.token.is_some());

    let opened = connect(&mut conn, alice, "phone").await;

    assert!(!opened.is_present, "there was no session to come back to");
    assert_eq!(opened.device.0, device_of(&pool, alice, "phone").await);
    assert!(tokens::devices(&mut conn, alice).await.unwrap()[0].is_connected);
}

/// Both make the device; whoever is second finds it, and the session.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_registers_and_connects_at_once_is_one_device(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    for round in 0..20 {
        let client_id = format!("phone-{round}");
        let (mut one, mut two) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let new = fcm(&client_id);
        let (registered, opened) = tokio::join!(
            tokens::register(&mut one, alice, &client_id, &new, None, 100),
            connect(&mut two, alice, &client_id),
        );
        registered.unwrap().unwrap();
        assert_eq!(opened.device.0, device_of(&pool, alice, &client_id).await);
        let token = tokens::show(&mut conn, alice, &client_id).await.unwrap();
        assert!(token.is_some());
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn devices_that_connected_last_come_first(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    register(&mut conn, alice, "never", "one").await;
    connect(&mut conn, alice, "first").await;
    connect(&mut conn, alice, "second").await;

    let devices = tokens::devices(&mut conn, alice).await.unwrap();

    let names: Vec<_> = devices
        .iter()
        .map(|device| device.client_id.as_str())
        .collect();
    assert_eq!(names, ["second", "first", "never"]);
}

/// Six registrations of new devices at once, three allowed.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_limit_holds_against_registrations_at_once(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let alice = user(&mut conn, "alice").await;
    let mut at_once = tokio::task::JoinSet::new();
    for number in 0..6 {
        let pool = pool.clone();
        at_once.spawn(async move {
            let mut conn = pool.acquire().await.unwrap();
            let name = format!("phone-{number}");
            tokens::register(&mut conn, alice, &name, &fcm(&name), None, TOKENS_MAX)
                .await
                .unwrap()
                .map(drop)
        });
    }
    let answers = at_once.join_all().await;

    let refused = answers
        .iter()
        .filter(|answer| **answer == Err(TooManyTokens));
    assert_eq!(refused.count(), 3, "{answers:?}");
    assert_eq!(
        tokens::devices(&mut conn, alice).await.unwrap().len(),
        3,
        "a refusal makes no device"
    );
}
