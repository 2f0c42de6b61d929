//! Rows of an inbox against a recount of the log, whatever happens.

use std::collections::HashMap;

use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId, UserId},
        message::{Content, NewMessage},
    },
    store::{
        MIGRATOR,
        changes::append_changes,
        conversations::{self, Role},
        cursors::{self, Settled},
        expiry,
        inbox::{self, Row, Wanted},
        inbox_settings::{self, InboxChange},
        messages,
        thread::readable,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::{PgConnection, PgPool};

use super::{User, group, message_with_id, sequence, user, writer};

const STEPS: usize = 250;
const SEEDS: u64 = 3;

/// What a row shows that its version covers.
fn covered(row: &Row) -> Row {
    Row {
        version: 0,
        ..row.clone()
    }
}

/// Counts the slow way: every message of the log, one after the other.
async fn recount(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
) -> (i64, i64) {
    sqlx::query_as(
        "select count(*) filter (where counts), count(*) filter (where counts and exists (
             select from mentions n where n.conversation_id = $1 and n.user_id = $2 and n.seq = seq_of))
         from (
             select m.seq as seq_of, m.ordinal is not null and m.retract_seq is null and m.content_format >= 0
                    and m.sender_id <> $2 and m.seq > p.read_seq and p.left_seq is null
                    and m.seq >= p.visible_from as counts
             from messages m join participants p on p.conversation_id = m.conversation_id
             where m.conversation_id = $1 and p.user_id = $2
         ) m",
    )
    .bind(conversation.0)
    .bind(user.0)
    .fetch_one(conn)
    .await
    .unwrap()
}

fn content(message: &mut NewMessage, kind: &str, target: i64, body: &str) {
    let id = message.content.id.as_str().to_owned();
    message.content = Content {
        target: Some(sequence(target)),
        ..Content::new(ClientMessageId::new(id).unwrap(), kind, body.to_owned())
    };
}

/// Goal: sends, mentions, edits, retractions, reactions, reads, pins, archives, removals and
/// erasures in any order leave right counts, and no row shows something else under the same version.
#[sqlx::test(migrator = "MIGRATOR")]
async fn counts_and_versions_are_right_after_every_step(pool: PgPool) {
    let mut conn = writer(&pool).await;
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut users: Vec<User> = Vec::new();
        for name in ["alice", "bob", "carol"] {
            users.push(user(&mut conn, &format!("{name}-{seed}")).await);
        }
        let all: Vec<_> = users.iter().collect();
        let groups = [group(&mut conn, &all).await, group(&mut conn, &all).await];
        sqlx::query("update conversations set retention_seconds = 3600")
            .execute(&mut conn)
            .await
            .unwrap();
        let mut shown: HashMap<(UserId, ConversationId), Row> = HashMap::new();
        for step in 0..STEPS {
            let who = users[random.random_range(0..users.len())].clone();
            let conversation = groups[random.random_range(0..groups.len())];
            perform(&mut conn, &mut random, &users, &who, conversation, step).await;
            for user in &users {
                let pairs = groups.map(|group| (user.0, group));
                for row in inbox::rows(&mut conn, &pairs).await.unwrap() {
                    let counts = recount(&mut conn, row.conversation, user.0).await;
                    assert_eq!(
                        (row.unread, row.mentions),
                        counts,
                        "seed {seed} step {step}"
                    );
                    let key = (user.0, row.conversation);
                    if let Some(earlier) = shown.insert(key, row.clone()) {
                        let is_same = covered(&earlier) == covered(&row)
                            || (earlier.is_removed && row.is_removed);
                        let rises = if is_same {
                            row.version >= earlier.version
                        } else {
                            row.version > earlier.version
                        };
                        assert!(rises, "seed {seed} step {step}: {earlier:?} became {row:?}");
                    }
                }
            }
        }
    }
}

async fn perform(
    conn: &mut PgConnection,
    random: &mut StdRng,
    users: &[User],
    who: &User,
    conversation: ConversationId,
    step: usize,
) {
    let state = readable(conn, who.0, &[conversation]).await.unwrap()[0].1;
    let any = random.random_range(0..=state.last_seq.max(1)).max(1);
    let mut message = message_with_id(conversation, who, &format!("m-{step}"));
    match random.random_range(0..14) {
        0..=3 => {
            message.content.mentions = random.random_bool(0.5).then(|| vec![users[0].1.clone()]);
            messages::append_batch(conn, &[message]).await.unwrap();
        }
        change @ 4..=6 => {
            let (kind, body) = [
                ("edit", "\"new\""),
                ("retract", ""),
                ("reaction", r#"{"key":"x"}"#),
            ][change - 4];
            content(&mut message, kind, any, body);
            append_changes(conn, &[message], 50).await.unwrap();
        }
        7 | 8 => {
            let read = Settled {
                device: None,
                user: who.0,
                conversation,
                delivered: None,
                read: Some(any),
            };
            cursors::settle(conn, &[read]).await.unwrap();
        }
        9 | 10 => {
            let change = InboxChange {
                pinned: random.random_bool(0.5).then(|| random.random_bool(0.5)),
                archived: random.random_bool(0.5).then(|| random.random_bool(0.5)),
                ..InboxChange::default()
            };
            inbox_settings::change(conn, conversation, who.0, change)
                .await
                .unwrap();
        }
        12 => {
            let statement = "update messages set expires_at = now()
                             where conversation_id = $1 and seq = $2 and ordinal is not null
                               and content_format >= 0";
            let update = sqlx::query(statement).bind(conversation.0).bind(any);
            update.execute(&mut *conn).await.unwrap();
            expiry::erase_expired(conn, 10).await.unwrap();
        }
        13 => {
            let statement = "update messages set created_at = to_timestamp(0)
                             where conversation_id = $1 and seq <= $2 / 8";
            let update = sqlx::query(statement).bind(conversation.0).bind(any);
            update.execute(&mut *conn).await.unwrap();
            expiry::erase_outdated(conn, 1_000).await.unwrap();
        }
        _ => {
            let (whom, actor) = ((who.0, &who.1), (users[0].0, &users[0].1));
            if state.left_seq.is_some() {
                conversations::add(conn, conversation, whom, Role::Member, actor, 10)
                    .await
                    .unwrap();
            } else {
                conversations::remove(conn, conversation, whom, actor)
                    .await
                    .unwrap();
            }
        }
    }
}

/// Goal: a page costs the conversations' order and the details of its own rows, not of all.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_page_looks_up_the_details_of_its_own_rows_alone(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    for _ in 0..300 {
        let id = group(&mut conn, &[&alice, &bob]).await;
        super::fill(&mut conn, id, &bob, 3).await;
    }
    sqlx::query("analyze").execute(&mut conn).await.unwrap();
    let reads =
        "select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
                 from pg_stat_xact_user_tables";
    let mut tx = sqlx::Connection::begin(&mut conn).await.unwrap();
    for (wanted, found_max) in [
        // Two look-ups for each conversation at most (one if the table is vacuumed), and about
        // eight for each of ten rows.
        (Wanted::default(), 600 + 120),
        (
            Wanted {
                is_unread: true,
                archived: Some(false),
                ..Wanted::default()
            },
            600 + 150,
        ),
        (
            Wanted {
                archived: Some(true),
                ..Wanted::default()
            },
            310,
        ),
        (
            Wanted {
                is_pinned: true,
                ..Wanted::default()
            },
            310,
        ),
        (
            Wanted {
                since_millis: Some(0),
                ..Wanted::default()
            },
            600 + 120,
        ),
    ] {
        let archived = wanted
            .archived
            .or(wanted.since_millis.is_none().then_some(false));
        let wanted = Wanted {
            limit: 10,
            archived,
            ..wanted
        };
        let before: (i64, i64) = sqlx::query_as(reads).fetch_one(&mut *tx).await.unwrap();
        inbox::page(&mut tx, alice.0, &wanted).await.unwrap();
        let after: (i64, i64) = sqlx::query_as(reads).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(after.0 - before.0, 0, "rows of whole tables: {wanted:?}");
        let found = after.1 - before.1;
        assert!(found <= found_max, "{found} rows: {wanted:?}");
    }
}

/// Goal: a change that commits after `as_of` was asked is later than it, however early its
/// transaction began.
#[sqlx::test(migrator = "MIGRATOR")]
async fn as_of_lies_before_every_transaction_that_runs(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let id = group(&mut conn, &[&alice, &bob]).await;
    let mut slow = pool.begin().await.unwrap();
    sqlx::query("update participants set own_version = own_version + 1, changed_at = now() - interval '0.9 s'")
        .execute(&mut *slow)
        .await
        .unwrap();
    let began: i64 = sqlx::query_scalar("select (extract(epoch from now()) * 1000)::bigint")
        .fetch_one(&mut *slow)
        .await
        .unwrap();
    let as_of = inbox::as_of_millis(&mut conn).await.unwrap();
    assert!(as_of <= began - 1000, "{as_of} {began}");
    slow.commit().await.unwrap();
    let wanted = Wanted {
        since_millis: Some(as_of),
        limit: 10,
        ..Wanted::default()
    };
    let page = inbox::page(&mut conn, alice.0, &wanted).await.unwrap();
    assert_eq!(
        page.iter().map(|row| row.conversation).collect::<Vec<_>>(),
        [id]
    );
}
