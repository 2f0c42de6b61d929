//! Cursors: where a device goes on, in which conversations.

use homing::{
    domain::ids::{ConversationId, DeviceId, UserId},
    store::{
        conversations,
        cursors::{Coverage, Pending, Settled, begin_at_head, forget, pending, settle},
        sessions::{self, OpenSession},
    },
};
use sqlx::{PgConnection, PgPool};

use super::{User, fill, group, user, writer};

async fn device(conn: &mut PgConnection, user: UserId, client_id: &str) -> DeviceId {
    let session = OpenSession {
        user,
        client_id,
        clean_start: false,
        expiry_seconds: 3600,
        node: "node-1",
        issued_at: None,
    };
    sessions::open(conn, &session).await.unwrap().device
}

fn delivered(device: DeviceId, user: &User, conversation: ConversationId, to: i64) -> Settled {
    Settled {
        device: Some(device),
        user: user.0,
        conversation,
        delivered: Some(to),
        read: None,
    }
}

async fn waiting(conn: &mut PgConnection, device: DeviceId, user: &User) -> Vec<(i64, i64)> {
    let mut rows = pending(conn, device, user.0, Coverage::All).await.unwrap();
    rows.sort_by_key(|row| row.conversation);
    rows.iter().map(|row| (row.cursor, row.head)).collect()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_begins_with_what_comes_next(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let first = group(&mut conn, &[&alice]).await;
    fill(&mut conn, first, &alice, 5).await;
    let phone = device(&mut conn, alice.0, "phone").await;

    begin_at_head(
        &mut conn,
        phone,
        alice.0,
        Coverage::Only(&[]),
        Coverage::All,
    )
    .await
    .unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, []);

    // Subscribing again moves nothing; a conversation that is new meanwhile is all new.
    fill(&mut conn, first, &alice, 2).await;
    let second = group(&mut conn, &[&alice]).await;
    fill(&mut conn, second, &alice, 3).await;
    assert_eq!(waiting(&mut conn, phone, &alice).await, [(5, 7), (0, 3)]);
    begin_at_head(
        &mut conn,
        phone,
        alice.0,
        Coverage::All,
        Coverage::Only(&[first]),
    )
    .await
    .unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, [(5, 7), (0, 3)]);

    // What is covered anew begins at the head, whatever was known of it before.
    begin_at_head(
        &mut conn,
        phone,
        alice.0,
        Coverage::Only(&[first]),
        Coverage::All,
    )
    .await
    .unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, [(5, 7)]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_what_is_covered_waits(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let (one, two) = (
        group(&mut conn, &[&alice]).await,
        group(&mut conn, &[&alice]).await,
    );
    fill(&mut conn, one, &alice, 1).await;
    fill(&mut conn, two, &alice, 2).await;
    let phone = device(&mut conn, alice.0, "phone").await;

    let rows = pending(&mut conn, phone, alice.0, Coverage::Only(&[two]))
        .await
        .unwrap();
    assert_eq!(
        rows,
        [Pending {
            conversation: two,
            cursor: 0,
            head: 2
        }]
    );
    assert_eq!(
        pending(&mut conn, phone, alice.0, Coverage::Only(&[]))
            .await
            .unwrap(),
        []
    );

    begin_at_head(
        &mut conn,
        phone,
        alice.0,
        Coverage::Only(&[]),
        Coverage::Only(&[two]),
    )
    .await
    .unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, [(0, 1)]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_no_longer_covered_is_forgotten(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let (one, two) = (
        group(&mut conn, &[&alice]).await,
        group(&mut conn, &[&alice]).await,
    );
    fill(&mut conn, one, &alice, 1).await;
    fill(&mut conn, two, &alice, 2).await;
    let (phone, tablet) = (
        device(&mut conn, alice.0, "phone").await,
        device(&mut conn, alice.0, "tablet").await,
    );
    begin_at_head(
        &mut conn,
        phone,
        alice.0,
        Coverage::Only(&[]),
        Coverage::All,
    )
    .await
    .unwrap();
    begin_at_head(
        &mut conn,
        tablet,
        alice.0,
        Coverage::Only(&[]),
        Coverage::All,
    )
    .await
    .unwrap();

    forget(&mut conn, phone, Coverage::All).await.unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, []);
    forget(&mut conn, phone, Coverage::Only(&[one]))
        .await
        .unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, [(0, 2)]);
    forget(&mut conn, phone, Coverage::Only(&[])).await.unwrap();
    assert_eq!(waiting(&mut conn, phone, &alice).await, [(0, 1), (0, 2)]);
    assert_eq!(waiting(&mut conn, tablet, &alice).await, []);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn each_device_has_its_own_cursor_and_none_goes_back(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 9).await;
    let (phone, tablet) = (
        device(&mut conn, alice.0, "phone").await,
        device(&mut conn, alice.0, "tablet").await,
    );

    let batch = [
        delivered(phone, &alice, conversation, 4),
        delivered(tablet, &alice, conversation, 2),
        delivered(phone, &alice, conversation, 6),
    ];
    settle(&mut conn, &batch).await.unwrap();
    settle(&mut conn, &[delivered(phone, &alice, conversation, 5)])
        .await
        .unwrap();

    assert_eq!(waiting(&mut conn, phone, &alice).await, [(6, 9)]);
    assert_eq!(waiting(&mut conn, tablet, &alice).await, [(2, 9)]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_cursor_stays_within_what_the_user_may_see(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let stranger = user(&mut conn, "stranger").await;
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 3).await;
    let phone = device(&mut conn, alice.0, "phone").await;
    let bobs = device(&mut conn, bob.0, "phone").await;
    let strangers = device(&mut conn, stranger.0, "phone").await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::remove(&mut conn, conversation, whom, actor)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 2).await;

    // What leads to the removal still waits for Bob's device, and can be acknowledged.
    assert_eq!(waiting(&mut conn, bobs, &bob).await, [(0, 4)]);
    let batch = [
        delivered(phone, &alice, conversation, 1000),
        delivered(bobs, &bob, conversation, 1000),
        delivered(strangers, &stranger, conversation, 1000),
    ];
    settle(&mut conn, &batch).await.unwrap();

    let cursors: Vec<(i64, i64)> =
        sqlx::query_as("select device_id, delivered_seq from device_cursors order by device_id")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert_eq!(cursors, [(phone.0, 6), (bobs.0, 4)]);
    assert_eq!(waiting(&mut conn, bobs, &bob).await, []);
}

/// A conversation that ended for the user long ago is not news for a new device.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_new_device_does_not_begin_with_what_was_left(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    fill(&mut conn, conversation, &alice, 3).await;
    conversations::remove(&mut conn, conversation, whom, actor)
        .await
        .unwrap();
    let phone = device(&mut conn, bob.0, "phone").await;

    begin_at_head(&mut conn, phone, bob.0, Coverage::Only(&[]), Coverage::All)
        .await
        .unwrap();
    assert_eq!(waiting(&mut conn, phone, &bob).await, []);

    // Added again, everything from then on is.
    let role = conversations::Role::Member;
    conversations::add(&mut conn, conversation, whom, role, actor, 10)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 1).await;
    assert_eq!(waiting(&mut conn, phone, &bob).await, [(4, 6)]);
}
