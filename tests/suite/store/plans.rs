//! The cost of a statement does not grow with the rows of others: everything is found by an
//! index, on a database that has no statistics yet.
//!
//! Counted by the server itself, inside of functions too.

use homing::{
    domain::{
        ids::{DeviceId, Subject},
        message::Position,
        push::Activity,
    },
    store::{
        changes, conversations,
        cursors::{self, Coverage, Settled},
        expiry,
        messages::{self, read_after, read_before},
        outbox,
        sessions::{self, OpenSession, Sign},
        status, users,
    },
};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};

use super::{User, fill, group, message, product_pool, sequence, user, writer};

/// Others, each with a conversation, a device, a session and a cursor.
const OTHERS: usize = 300;

/// What the statements of a transaction have read so far, but for the few consumers.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Reads {
    /// Rows of tables that were read as a whole.
    scanned: i64,
    /// Rows that were found by an index.
    found: i64,
}

async fn reads(conn: &mut PgConnection) -> Reads {
    sqlx::query_as(
        "select coalesce(sum(seq_tup_read), 0)::bigint as scanned,
                coalesce(sum(idx_tup_fetch), 0)::bigint as found
         from pg_stat_xact_user_tables where relname <> 'outbox_consumers'",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

/// Checks one statement after the other.
struct Meter {
    before: Reads,
}

impl Meter {
    async fn start(conn: &mut PgConnection) -> Self {
        Self {
            before: reads(conn).await,
        }
    }

    /// What ran since the last check has scanned no table and found at most `found_max` rows.
    async fn check(&mut self, conn: &mut PgConnection, what: &str, found_max: i64) {
        let after = reads(conn).await;
        let scanned = after.scanned - self.before.scanned;
        let found = after.found - self.before.found;
        assert_eq!(scanned, 0, "{what}: rows of whole tables");
        assert!(
            found <= found_max,
            "{what}: {found} rows, {found_max} would do"
        );
        self.before = after;
    }
}

async fn device(conn: &mut PgConnection, user: &User) -> sessions::Opened {
    let phone = OpenSession {
        user: user.0,
        client_id: "phone",
        clean_start: false,
        expiry_seconds: 3600,
        node: "node-1",
        issued_at: None,
    };
    let opened = sessions::open(conn, &phone).await.unwrap();
    let (device, generation) = (opened.device, opened.generation);
    sessions::persist(conn, device, generation, &json!([]), 60, true)
        .await
        .unwrap();
    opened
}

async fn crowd(conn: &mut PgConnection) {
    let mut tx = conn.begin().await.unwrap();
    for number in 0..OTHERS {
        let other = user(&mut tx, &format!("other-{number}")).await;
        let conversation = group(&mut tx, &[&other]).await;
        fill(&mut tx, conversation, &other, 3).await;
        let opened = device(&mut tx, &other).await;
        cursors::begin_at_head(
            &mut tx,
            opened.device,
            other.0,
            Coverage::Only(&[]),
            Coverage::All,
        )
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn appending_finds_its_rows_by_index(pool: PgPool) {
    let mut conn = writer(&pool).await;
    crowd(&mut conn).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let (one, two) = (
        group(&mut conn, &[&alice, &bob]).await,
        group(&mut conn, &[&alice]).await,
    );
    let repeat = message(one, &alice);
    let batch = [
        repeat.clone(),
        message(one, &bob),
        message(two, &alice),
        message(two, &bob),
    ];

    let mut tx = conn.begin().await.unwrap();
    let mut meter = Meter::start(&mut tx).await;
    messages::append_batch(&mut tx, &batch).await.unwrap();
    // For each message its conversation and its sender; each conversation twice more.
    meter.check(&mut tx, "append_batch", 12).await;
    messages::append_batch(&mut tx, &[repeat]).await.unwrap();
    meter.check(&mut tx, "a repeat", 4).await;
}

/// A change looks for its conversation, its repeat, its sender and its message, and writes what
/// it changes; the conversation has many messages, edits, reactions and mentions of others.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn changes_find_their_rows_by_index(pool: PgPool) {
    let mut conn = writer(&pool).await;
    crowd(&mut conn).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 100).await;
    let change = |kind: &str, body: &'static str, target| {
        let mut change = message(conversation, &alice);
        change.content.kind = kind.to_owned();
        change.content.body = body.into();
        change.content.target = Some(sequence(target));
        change
    };
    let reaction = |target| change("reaction", r#"{"key":"x"}"#, target);
    let mut others: Vec<_> = (1..=90).map(|target| change("edit", "1", target)).collect();
    for edit in &mut others {
        edit.content.mentions = Some(vec![bob.1.clone()]);
    }
    others.extend((1..=90).map(reaction));
    changes::append_changes(&mut conn, &others, 50)
        .await
        .unwrap();

    let mut tx = conn.begin().await.unwrap();
    let mut meter = Meter::start(&mut tx).await;
    let mut mentioning = message(conversation, &alice);
    mentioning.content.mentions = Some(vec![bob.1.clone()]);
    messages::append_batch(&mut tx, &[mentioning])
        .await
        .unwrap();
    meter.check(&mut tx, "a mention", 8).await;
    let mut edit = change("edit", "2", 50);
    edit.content.mentions = Some(vec![bob.1.clone()]);
    changes::append_changes(&mut tx, &[edit], 50).await.unwrap();
    meter.check(&mut tx, "an edit", 10).await;
    changes::append_changes(&mut tx, &[reaction(95)], 50)
        .await
        .unwrap();
    meter.check(&mut tx, "a reaction", 7).await;
    changes::append_changes(&mut tx, &[change("retract", "", 50)], 50)
        .await
        .unwrap();
    meter.check(&mut tx, "a retraction of two edits", 14).await;
    expiry::erase_expired(&mut tx, 10).await.unwrap();
    meter.check(&mut tx, "expiry::erase_expired", 0).await;
    expiry::erase_outdated(&mut tx, 10).await.unwrap();
    meter.check(&mut tx, "expiry::erase_outdated", 0).await;
    sqlx::query("update messages set expires_at = now() where conversation_id = $1 and seq = 60")
        .bind(conversation.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(
        "update messages set created_at = to_timestamp(0) where conversation_id = $1 and seq <= 3",
    )
    .bind(conversation.0)
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query("update conversations set retention_seconds = 60 where conversation_id = $1")
        .bind(conversation.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    meter.before = reads(&mut tx).await;
    let erased = expiry::erase_expired(&mut tx, 10).await.unwrap();
    assert_eq!(erased.entries, 1);
    meter
        .check(&mut tx, "to erase one that has expired", 6)
        .await;
    let erased = expiry::erase_outdated(&mut tx, 10).await.unwrap();
    assert_eq!(erased.entries, 3);
    meter
        .check(&mut tx, "to erase three that are outdated", 30)
        .await;
}

/// The statistics say that a conversation holds one message; this one holds many.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_repeat_in_a_long_conversation_is_found_by_its_own_key(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    sqlx::query(
        "insert into messages (conversation_id, seq, sender_id, client_message_id, type, body)
         select gen_random_uuid(), 1, 1, gen_random_uuid()::text, 'text', '0'
         from generate_series(1, 1000)",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    sqlx::query("analyze messages")
        .execute(&mut conn)
        .await
        .unwrap();
    let conversation = group(&mut conn, &[&alice]).await;
    let repeat = message(conversation, &alice);
    fill(&mut conn, conversation, &alice, 200).await;

    let mut tx = conn.begin().await.unwrap();
    messages::append_batch(&mut tx, std::slice::from_ref(&repeat))
        .await
        .unwrap();
    fill(&mut tx, conversation, &alice, 200).await;
    let mut meter = Meter::start(&mut tx).await;
    messages::append_batch(&mut tx, &[repeat]).await.unwrap();
    meter.check(&mut tx, "a repeat", 4).await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn connecting_and_catching_up_find_their_rows_by_index(pool: PgPool) {
    let pool = product_pool(&pool);
    let mut conn = pool.acquire().await.unwrap();
    crowd(&mut conn).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    let second = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 50).await;
    device(&mut conn, &alice).await;
    let window = vec![(
        1,
        Position {
            conversation,
            sequence: sequence(1),
        },
    )];

    let mut tx = conn.begin().await.unwrap();
    let mut meter = Meter::start(&mut tx).await;
    users::ensure(&mut tx, &[Subject::new("alice").unwrap()])
        .await
        .unwrap();
    meter.check(&mut tx, "users::ensure", 1).await;
    let opened = device(&mut tx, &alice).await;
    meter.check(&mut tx, "sessions::open and persist", 5).await;
    sessions::save_inflight(&mut tx, &[(opened.device, opened.generation, window)])
        .await
        .unwrap();
    meter.check(&mut tx, "sessions::save_inflight", 3).await;
    let sign = Sign {
        device: opened.device,
        generation: opened.generation,
        activity: Some(Activity::Away),
        is_suspect: Some(true),
    };
    sessions::save_signs(&mut tx, &[sign]).await.unwrap();
    meter.check(&mut tx, "sessions::save_signs", 3).await;
    cursors::pending(&mut tx, opened.device, alice.0, Coverage::All)
        .await
        .unwrap();
    meter.check(&mut tx, "cursors::pending", 4).await;
    cursors::begin_at_head(
        &mut tx,
        opened.device,
        alice.0,
        Coverage::Only(&[]),
        Coverage::All,
    )
    .await
    .unwrap();
    meter.check(&mut tx, "cursors::begin_at_head", 4).await;
    read_after(&mut tx, conversation, alice.0, 10, 5)
        .await
        .unwrap();
    meter.check(&mut tx, "messages::read_after", 12).await;
    read_before(&mut tx, conversation, alice.0, 40, 5)
        .await
        .unwrap();
    meter.check(&mut tx, "messages::read_before", 12).await;
    conversations::participants(&mut tx, &[conversation, second])
        .await
        .unwrap();
    meter.check(&mut tx, "conversations::participants", 6).await;
    conversations::unread(&mut tx, conversation, alice.0, 1)
        .await
        .unwrap();
    meter.check(&mut tx, "conversations::unread", 51).await;
    cursors::forget(&mut tx, opened.device, Coverage::Only(&[second]))
        .await
        .unwrap();
    meter.check(&mut tx, "cursors::forget", 4).await;
    super::close(&mut tx, opened.device, opened.generation, false, 0, &[])
        .await
        .unwrap();
    meter.check(&mut tx, "sessions::close", 8).await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn flushes_and_sweeps_find_their_rows_by_index(pool: PgPool) {
    let pool = product_pool(&pool);
    let mut conn = pool.acquire().await.unwrap();
    crowd(&mut conn).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 50).await;
    outbox::read(&mut conn, "fan-out", 1).await.unwrap();

    let mut tx = conn.begin().await.unwrap();
    let mut meter = Meter::start(&mut tx).await;
    let report = Settled {
        device: Some(DeviceId(1)),
        user: alice.0,
        conversation,
        delivered: Some(9),
        read: Some(5),
    };
    cursors::settle(&mut tx, &[report]).await.unwrap();
    meter.check(&mut tx, "cursors::settle", 8).await;
    cursors::standings(&mut tx, conversation, alice.0, None, 10)
        .await
        .unwrap();
    meter.check(&mut tx, "cursors::standings", 3).await;
    cursors::read_by_writing(&mut tx, &[(alice.0, conversation, 50)])
        .await
        .unwrap();
    meter.check(&mut tx, "cursors::read_by_writing", 2).await;
    status::of_entry(&mut tx, conversation, 9).await.unwrap();
    meter.check(&mut tx, "status::of_entry", 3).await;
    status::reached(&mut tx, conversation, (9, alice.0), None, 10)
        .await
        .unwrap();
    meter.check(&mut tx, "status::reached", 2).await;
    status::recent(&mut tx, conversation, 20).await.unwrap();
    meter.check(&mut tx, "status::recent", 21).await;
    status::standpoints(&mut tx, conversation, 9).await.unwrap();
    meter.check(&mut tx, "status::standpoints", 1).await;
    sessions::remove_expired(&mut tx, 10).await.unwrap();
    meter.check(&mut tx, "sessions::remove_expired", 0).await;
    sessions::disconnect_node(&mut tx, "node-2").await.unwrap();
    meter.check(&mut tx, "sessions::disconnect_node", 0).await;
    outbox::read(&mut tx, "fan-out", 5).await.unwrap();
    meter.check(&mut tx, "outbox::read", 6).await;
    outbox::oldest_age(&mut tx, "fan-out").await.unwrap();
    meter.check(&mut tx, "outbox::oldest_age", 1).await;
    outbox::prune(&mut tx).await.unwrap();
    meter.check(&mut tx, "outbox::prune", 1).await;
}

/// What a device costs that comes back to a thousand conversations, of which two have news.
/// The statistics say that everybody has one conversation.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_thousand_conversations_are_three_rows_each(pool: PgPool) {
    let pool = product_pool(&pool);
    let mut conn = pool.acquire().await.unwrap();
    crowd(&mut conn).await;
    sqlx::query("analyze").execute(&mut *conn).await.unwrap();
    let alice = user(&mut conn, "alice").await;
    let opened = device(&mut conn, &alice).await;
    let mut tx = conn.begin().await.unwrap();
    let mut conversations = Vec::new();
    for _ in 0..1000 {
        conversations.push(group(&mut tx, &[&alice]).await);
    }
    let mut meter = Meter::start(&mut tx).await;
    cursors::begin_at_head(
        &mut tx,
        opened.device,
        alice.0,
        Coverage::Only(&[]),
        Coverage::All,
    )
    .await
    .unwrap();
    meter.check(&mut tx, "cursors::begin_at_head", 2000).await;
    fill(&mut tx, conversations[1], &alice, 1).await;
    fill(&mut tx, conversations[7], &alice, 2).await;
    meter.before = reads(&mut tx).await;

    let rows = cursors::pending(&mut tx, opened.device, alice.0, Coverage::All)
        .await
        .unwrap();

    meter.check(&mut tx, "cursors::pending", 3000).await;
    assert_eq!(rows.len(), 2);
}
