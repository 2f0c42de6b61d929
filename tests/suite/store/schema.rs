//! The schema and the connections: what fits together, and what is worth another try.

use homing::store::{self, StoreError};
use sqlx::PgPool;

use super::{PATIENCE, product_pool, server_process, user};

#[sqlx::test(migrations = false)]
async fn migrating_again_or_at_once_changes_nothing(pool: PgPool) {
    let (one, two) = tokio::join!(store::migrate(&pool), store::migrate(&pool));
    one.and(two).unwrap();
    store::migrate(&pool).await.unwrap();

    let mut conn = product_pool(&pool).acquire().await.unwrap();
    user(&mut conn, "alice").await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_newer_schema_is_refused(pool: PgPool) {
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();

    let error = store::migrate(&pool).await.unwrap_err();

    assert!(
        matches!(error, StoreError::SchemaNewer { version: 9999 }),
        "{error:?}"
    );
    assert!(!error.is_transient());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn another_schema_of_the_same_version_is_refused(pool: PgPool) {
    sqlx::query("update _sqlx_migrations set checksum = 'x'")
        .execute(&pool)
        .await
        .unwrap();

    let error = store::migrate(&pool).await.unwrap_err();

    assert!(
        matches!(error, StoreError::SchemaDiffers { version: 1 }),
        "{error:?}"
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_server_that_stops_is_worth_another_try(pool: PgPool) {
    let product = product_pool(&pool);
    let mut conn = product.acquire().await.unwrap();
    let process = server_process(&mut conn).await;
    sqlx::query("select pg_terminate_backend($1)")
        .bind(process)
        .execute(&pool)
        .await
        .unwrap();

    let lost = store::users::ensure(&mut conn, &["alice".parse().unwrap()])
        .await
        .unwrap_err();
    drop(conn);

    assert!(lost.is_transient(), "{lost:?}");
    user(&mut product.acquire().await.unwrap(), "alice").await;
}

#[sqlx::test(migrations = false)]
async fn a_server_that_is_away_is_worth_another_try(pool: PgPool) {
    let nowhere = pool
        .connect_options()
        .as_ref()
        .clone()
        .host("127.0.0.1")
        .port(1);
    let pool = store::open_pool(
        nowhere,
        1,
        PATIENCE.min(std::time::Duration::from_millis(200)),
    );

    let error = store::migrate(&pool).await.unwrap_err();

    assert!(error.is_transient(), "{error:?}");
}

#[sqlx::test(migrations = false)]
async fn a_statement_that_is_wrong_is_not(pool: PgPool) {
    // Without the schema there is no such table.
    let mut conn = pool.acquire().await.unwrap();
    let error = store::users::ensure(&mut conn, &["alice".parse().unwrap()])
        .await
        .unwrap_err();

    assert!(!error.is_transient(), "{error:?}");
}
