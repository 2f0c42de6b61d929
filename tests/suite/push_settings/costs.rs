//! What a user sets costs the same, however many others there are: everything is found by an
//! index, on a database that has no statistics yet.

use homing::store::{
    messages::connect_writer,
    push::{
        settings::{self, NotificationsChange, QuietHours},
        tokens,
    },
};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::{device_of, fcm, job, register, user};

const OTHERS: usize = 100;

/// Rows of tables that were read as a whole in this transaction, and rows found by an index.
async fn reads(conn: &mut PgConnection) -> (i64, i64) {
    sqlx::query_as(
        "select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
         from pg_stat_xact_user_tables",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn settings_are_found_by_index(pool: PgPool) {
    let mut conn = connect_writer(&pool.connect_options()).await.unwrap();
    for number in 0..OTHERS {
        let other = user(&mut conn, &format!("other-{number}")).await;
        register(&mut conn, other, "phone", &format!("token-{number}")).await;
        let device = device_of(&pool, other, "phone").await;
        job(&pool, other, device, "armed").await;
    }
    let alice = user(&mut conn, "alice").await;
    let conversation = homing::domain::ids::ConversationId::random();
    let hours = QuietHours {
        from_minute: 0,
        until_minute: 60,
        zone: "UTC".to_owned(),
    };

    let mut tx = conn.begin().await.unwrap();
    let before = reads(&mut tx).await;
    register(&mut tx, alice, "phone", "hers").await;
    register(&mut tx, alice, "phone", "token-7").await;
    let tablet = tokens::register(&mut tx, alice, "tablet", &fcm("other"), None, 100).await;
    tablet.unwrap().unwrap();
    tokens::devices(&mut tx, alice).await.unwrap();
    tokens::remove(&mut tx, alice, "phone").await.unwrap();
    let change = NotificationsChange::default();
    settings::set_notifications(&mut tx, conversation, alice, change)
        .await
        .unwrap();
    settings::notifications(&mut tx, conversation, alice)
        .await
        .unwrap();
    let set = settings::set_quiet_hours(&mut tx, alice, Some(&hours)).await;
    set.unwrap().unwrap();
    settings::quiet_hours(&mut tx, alice).await.unwrap();

    let after = reads(&mut tx).await;
    assert_eq!(after.0 - before.0, 0, "rows of whole tables");
    let found = after.1 - before.1;
    assert!(found <= 80, "{found} rows");
}
