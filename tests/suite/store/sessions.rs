//! Sessions: one holder at a time, and nothing left of what has ended.

use homing::{
    domain::{
        ids::{DeviceId, UserId},
        message::Position,
    },
    store::{
        cursors::{Coverage, Settled, begin_at_head, settle},
        sessions::{self, OpenSession, Opened, open, persist, save_inflight},
    },
};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::JoinSet;

use super::{User, close, fill, group, sequence, server_process, until_blocked, user, writer};

const HOUR: i64 = 3600;

fn connect(user: UserId) -> OpenSession<'static> {
    OpenSession {
        user,
        client_id: "phone",
        clean_start: false,
        expiry_seconds: 3600,
        node: "node-1",
        issued_at: None,
    }
}

/// A session with a subscription, a cursor and a message in flight; its device is away.
async fn session_away(conn: &mut PgConnection, user: &User, expiry_seconds: i64) -> Opened {
    let conversation = group(conn, &[user]).await;
    fill(conn, conversation, user, 3).await;
    let mut opened = open(conn, &connect(user.0)).await.unwrap();
    let (device, generation) = (opened.device, opened.generation);
    opened.subscriptions = json!([{"filter": "c/#", "qos": 1}]);
    opened.inflight = vec![(
        9,
        Position {
            conversation,
            sequence: sequence(3),
        },
    )];

    let subscriptions = &opened.subscriptions;
    assert!(
        persist(conn, device, generation, subscriptions, HOUR, true)
            .await
            .unwrap()
    );
    begin_at_head(conn, device, user.0, Coverage::Only(&[]), Coverage::All)
        .await
        .unwrap();
    assert!(
        close(
            conn,
            device,
            generation,
            true,
            expiry_seconds,
            &opened.inflight
        )
        .await
        .unwrap()
    );
    opened
}

async fn count_cursors(conn: &mut PgConnection, device: DeviceId) -> i64 {
    sqlx::query_scalar("select count(*) from device_cursors where device_id = $1")
        .bind(device.0)
        .fetch_one(conn)
        .await
        .unwrap()
}

fn assert_is_new(opened: &Opened) {
    assert!(!opened.is_present);
    assert_eq!(opened.subscriptions, json!([]));
    assert_eq!(opened.inflight, []);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_first_session_is_new(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);

    let first = open(&mut conn, &connect(alice.0)).await.unwrap();
    let same_client_id = open(&mut conn, &connect(bob.0)).await.unwrap();

    assert_is_new(&first);
    assert_ne!(first.device, same_client_id.device);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_session_goes_on_as_it_was_left(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let left = session_away(&mut conn, &alice, HOUR).await;

    let opened = open(&mut conn, &connect(alice.0)).await.unwrap();

    assert!(opened.is_present && opened.generation > left.generation);
    assert_eq!(opened.device, left.device);
    assert_eq!(
        (opened.subscriptions, opened.inflight),
        (left.subscriptions, left.inflight)
    );
    assert_eq!(count_cursors(&mut conn, opened.device).await, 1);
}

/// A clean start, an expired session and one that its device ended.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_has_ended_leaves_nothing(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;

    let left = session_away(&mut conn, &alice, HOUR).await;
    let clean = OpenSession {
        clean_start: true,
        ..connect(alice.0)
    };
    let opened = open(&mut conn, &clean).await.unwrap();
    assert_is_new(&opened);
    assert!(opened.device == left.device && opened.generation > left.generation);
    assert_eq!(count_cursors(&mut conn, left.device).await, 0);

    session_away(&mut conn, &alice, 0).await;
    assert_is_new(&open(&mut conn, &connect(alice.0)).await.unwrap());
    assert_eq!(count_cursors(&mut conn, left.device).await, 0);

    session_away(&mut conn, &alice, HOUR).await;
    let Opened {
        device, generation, ..
    } = open(&mut conn, &connect(alice.0)).await.unwrap();
    assert!(
        close(&mut conn, device, generation, false, HOUR, &left.inflight)
            .await
            .unwrap()
    );
    assert_eq!(count_cursors(&mut conn, left.device).await, 0);
    assert_is_new(&open(&mut conn, &connect(alice.0)).await.unwrap());
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_session_that_ends_with_its_connection_is_not_there_to_come_back_to(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let brief = OpenSession {
        expiry_seconds: 0,
        ..connect(alice.0)
    };
    open(&mut conn, &brief).await.unwrap();

    // The broker died before it could close the session.
    assert_is_new(&open(&mut conn, &connect(alice.0)).await.unwrap());
    assert!(open(&mut conn, &connect(alice.0)).await.unwrap().is_present);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_was_taken_over_changes_nothing(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let Opened {
        device,
        generation: old,
        inflight,
        ..
    } = session_away(&mut conn, &alice, HOUR).await;
    let new = open(&mut conn, &connect(alice.0)).await.unwrap();

    let late = json!([{"filter": "late"}]);
    assert!(
        !persist(&mut conn, device, old, &late, 0, false)
            .await
            .unwrap()
    );
    assert!(!close(&mut conn, device, old, false, 0, &[]).await.unwrap());
    save_inflight(&mut conn, &[(device, old, Vec::new())])
        .await
        .unwrap();

    let next = open(&mut conn, &connect(alice.0)).await.unwrap();
    assert!(next.is_present);
    assert_eq!(
        (next.subscriptions, next.inflight),
        (new.subscriptions, inflight)
    );
}

/// Many connections of one new device at once: each gets its own generation, and only the
/// newest still holds the session.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn of_many_connections_at_once_one_holds_the_session(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let mut connections = JoinSet::new();
    for _ in 0..8 {
        let (pool, alice) = (pool.clone(), alice.0);
        connections.spawn(async move {
            let mut conn = writer(&pool).await;
            open(&mut conn, &connect(alice)).await.unwrap()
        });
    }
    let mut opened = connections.join_all().await;

    opened.sort_by_key(|opened| opened.generation);
    let newest = opened.pop().unwrap();
    assert!(opened.is_sorted_by(|a, b| a.generation < b.generation));
    for old in opened {
        assert_eq!(old.device, newest.device);
        assert!(old.generation < newest.generation);
        let held = persist(
            &mut conn,
            old.device,
            old.generation,
            &json!([]),
            HOUR,
            true,
        )
        .await;
        assert!(!held.unwrap());
    }
    let held = persist(
        &mut conn,
        newest.device,
        newest.generation,
        &json!([]),
        HOUR,
        true,
    )
    .await;
    assert!(held.unwrap());
}

/// A rollback stands for the crash that forgets a commit which was not fsynced.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_generation_is_not_given_twice_even_if_it_was_forgotten(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    session_away(&mut conn, &alice, HOUR).await;

    let mut forgotten = conn.begin().await.unwrap();
    let lost = open(&mut forgotten, &connect(alice.0)).await.unwrap();
    forgotten.rollback().await.unwrap();
    let next = open(&mut conn, &connect(alice.0)).await.unwrap();

    assert!(next.generation > lost.generation);
    assert!(
        !close(&mut conn, lost.device, lost.generation, false, 0, &[])
            .await
            .unwrap()
    );
}

/// The same crash, but nobody else has connected.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_was_forgotten_holds_the_session_until_somebody_else_connects(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    session_away(&mut conn, &alice, HOUR).await;
    let mut forgotten = conn.begin().await.unwrap();
    let lost = open(&mut forgotten, &connect(alice.0)).await.unwrap();
    forgotten.rollback().await.unwrap();

    assert!(
        close(&mut conn, lost.device, lost.generation, false, 0, &[])
            .await
            .unwrap()
    );

    assert_is_new(&open(&mut conn, &connect(alice.0)).await.unwrap());
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_session_that_ends_meanwhile_is_not_resumed(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let process = server_process(&mut two).await;
    let alice = user(&mut one, "alice").await;
    session_away(&mut one, &alice, HOUR).await;
    let Opened {
        device, generation, ..
    } = open(&mut one, &connect(alice.0)).await.unwrap();

    let mut ending = one.begin().await.unwrap();
    assert!(
        close(&mut ending, device, generation, false, 0, &[])
            .await
            .unwrap()
    );
    let session = connect(alice.0);
    let (opened, ()) = tokio::join!(open(&mut two, &session), async {
        until_blocked(&pool, process).await;
        ending.commit().await.unwrap();
    });

    assert_is_new(&opened.unwrap());
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn windows_are_saved_while_their_devices_are_connected(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let away = session_away(&mut conn, &bob, HOUR).await;
    session_away(&mut conn, &alice, HOUR).await;
    let connected = open(&mut conn, &connect(alice.0)).await.unwrap();
    let conversation = away.inflight[0].1.conversation;
    let window: Vec<_> = (1..=3)
        .map(|n| {
            (
                n,
                Position {
                    conversation,
                    sequence: sequence(n.into()),
                },
            )
        })
        .collect();

    let windows = [
        (connected.device, connected.generation, window.clone()),
        (away.device, away.generation, Vec::new()),
    ];
    save_inflight(&mut conn, &windows).await.unwrap();

    let alices = open(&mut conn, &connect(alice.0)).await.unwrap();
    let bobs = open(&mut conn, &connect(bob.0)).await.unwrap();
    assert_eq!((alices.inflight, bobs.inflight), (window, away.inflight));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn expired_sessions_are_removed_and_others_stay(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let mut expired = Vec::new();
    for name in ["a", "b", "c"] {
        let user = user(&mut conn, name).await;
        expired.push(session_away(&mut conn, &user, 0).await.device);
    }
    let alice = user(&mut conn, "alice").await;
    let waiting = session_away(&mut conn, &alice, HOUR).await.device;

    assert_eq!(sessions::remove_expired(&mut conn, 2).await.unwrap(), 2);
    assert_eq!(sessions::remove_expired(&mut conn, 2).await.unwrap(), 1);
    assert_eq!(sessions::remove_expired(&mut conn, 2).await.unwrap(), 0);

    for device in expired {
        assert_eq!(count_cursors(&mut conn, device).await, 0);
    }
    assert_eq!(count_cursors(&mut conn, waiting).await, 1);
    assert!(open(&mut conn, &connect(alice.0)).await.unwrap().is_present);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_session_begins_to_expire_when_its_node_has_crashed(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let elsewhere = OpenSession {
        node: "node-2",
        ..connect(bob.0)
    };
    for session in [connect(alice.0), elsewhere] {
        let opened = open(&mut conn, &session).await.unwrap();
        let (device, generation) = (opened.device, opened.generation);
        assert!(
            persist(&mut conn, device, generation, &json!([]), 0, true)
                .await
                .unwrap()
        );
    }
    assert_eq!(sessions::remove_expired(&mut conn, 10).await.unwrap(), 0);

    sessions::disconnect_node(&mut conn, "node-1")
        .await
        .unwrap();

    assert_eq!(sessions::remove_expired(&mut conn, 10).await.unwrap(), 1);
    assert!(open(&mut conn, &connect(bob.0)).await.unwrap().is_present);
}

async fn is_fsynced(conn: &mut PgConnection) -> bool {
    let setting: String = sqlx::query_scalar("select current_setting('synchronous_commit')")
        .fetch_one(conn)
        .await
        .unwrap();
    setting != "off"
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_what_may_be_repeated_goes_without_fsync(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let away = session_away(&mut conn, &alice, HOUR).await;
    let report = Settled {
        device: Some(away.device),
        user: alice.0,
        conversation: away.inflight[0].1.conversation,
        delivered: Some(2),
        read: None,
    };

    let mut tx = conn.begin().await.unwrap();
    open(&mut tx, &connect(alice.0)).await.unwrap();
    assert!(!is_fsynced(&mut tx).await, "coming back");
    tx.rollback().await.unwrap();

    let connected = open(&mut conn, &connect(alice.0)).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    let window = (connected.device, connected.generation, Vec::new());
    save_inflight(&mut tx, &[window]).await.unwrap();
    assert!(!is_fsynced(&mut tx).await, "a window");
    tx.rollback().await.unwrap();

    let mut tx = conn.begin().await.unwrap();
    open(
        &mut tx,
        &OpenSession {
            clean_start: true,
            ..connect(alice.0)
        },
    )
    .await
    .unwrap();
    assert!(is_fsynced(&mut tx).await, "beginning anew");
    tx.rollback().await.unwrap();

    let mut tx = conn.begin().await.unwrap();
    settle(&mut tx, &[report]).await.unwrap();
    assert!(!is_fsynced(&mut tx).await, "a delivery");
    tx.rollback().await.unwrap();

    let mut tx = conn.begin().await.unwrap();
    settle(
        &mut tx,
        &[
            report,
            Settled {
                read: Some(sequence(1).get()),
                ..report
            },
        ],
    )
    .await
    .unwrap();
    assert!(is_fsynced(&mut tx).await, "a reading");
    tx.rollback().await.unwrap();
    assert!(is_fsynced(&mut conn).await, "afterwards");
}
