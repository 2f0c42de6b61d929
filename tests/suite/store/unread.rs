//! What counts as unread, and what a message costs those who have not read it.

use std::collections::BTreeMap;

use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId, Subject},
        message::Content,
    },
    store::{
        MIGRATOR,
        changes::append_changes,
        conversations::{self, Kind, NewConversation, Role},
        inbox::{self, Wanted},
        messages,
        users::ensure,
        view,
    },
};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::{User, append, fill, group, message, message_with_id, sequence, user, writer};

/// By `conversations::unread`, by the row of the inbox with its mentions, and whether the
/// inbox shows the conversation among the unread ones.
async fn counts(
    conn: &mut PgConnection,
    conversation: ConversationId,
    reader: &User,
) -> (i64, i64, i64, bool) {
    let view = view::of(conn, conversation, &reader.1).await.unwrap();
    let first = view.unwrap().first_seq;
    let unread = conversations::unread(conn, conversation, reader.0, first);
    let unread = unread.await.unwrap();
    let pair = [(reader.0, conversation)];
    let row = inbox::rows(conn, &pair).await.unwrap().remove(0);
    let wanted = Wanted {
        is_unread: true,
        limit: 10,
        ..Wanted::default()
    };
    let page = inbox::page(conn, reader.0, &wanted).await.unwrap();
    (unread, row.unread, row.mentions, !page.is_empty())
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_gone_is_unread_nowhere(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    for number in 1..=4 {
        let mut message = message_with_id(conversation, &alice, &format!("m-{number}"));
        message.content.mentions = Some(vec![bob.1.clone()]);
        messages::append_batch(&mut conn, &[message]).await.unwrap();
    }
    let found = counts(&mut conn, conversation, &bob).await;
    assert_eq!(found, (4, 4, 4, true));

    let mut retraction = message(conversation, &alice);
    retraction.content = Content {
        target: Some(sequence(1)),
        ..Content::new(
            ClientMessageId::new("taken-back".to_owned()).unwrap(),
            "retract",
            "",
        )
    };
    append_changes(&mut conn, &[retraction], 50).await.unwrap();
    let found = counts(&mut conn, conversation, &bob).await;
    assert_eq!(found, (3, 3, 3, true), "one is retracted");

    for (change, left) in [
        ("expires_at = now() + interval '1 day' where seq = 2", 3),
        ("expires_at = now() where seq = 2", 2),
        ("content_format = -1 where seq = 3", 1),
        ("expires_at = now() where seq = 4", 0),
    ] {
        let update = sqlx::AssertSqlSafe(format!("update messages set {change}"));
        sqlx::query(update).execute(&mut conn).await.unwrap();
        let found = counts(&mut conn, conversation, &bob).await;
        assert_eq!(found, (left, left, left, left > 0), "{change}");
    }
}

/// Goal: what a message costs does not rise with those it is for.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_message_to_five_hundred_absent_members_writes_three_rows(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let names: Vec<_> = (0..500)
        .map(|number| Subject::new(&format!("user-{number}")).unwrap())
        .collect();
    let users = ensure(&mut conn, &names).await.unwrap();
    let conversation = ConversationId::random();
    let everybody = NewConversation {
        id: conversation,
        kind: Kind::Group,
        title: None,
        history_depth: None,
        participants: users.iter().map(|user| (*user, Role::Member)).collect(),
    };
    conversations::create(&mut conn, &everybody).await.unwrap();
    let sender = (users[0], names[0].clone());

    // The database counts what this connection has written and not yet reported.
    let mut transaction = conn.begin().await.unwrap();
    let before = written(&mut transaction).await;
    append(&mut transaction, &[message(conversation, &sender)]).await;
    let mut written = written(&mut transaction).await;

    for (table, rows) in &mut written {
        *rows -= before.get(table).copied().unwrap_or(0);
    }
    written.retain(|_, rows| *rows > 0);
    let tables: Vec<_> = written.keys().map(String::as_str).collect();
    assert!(
        matches!(tables[..], ["conversations", partition, "outbox"] if partition.starts_with("messages_")),
        "{written:?}"
    );
    assert_eq!(written.values().sum::<i64>(), 3, "{written:?}");
}

/// How many rows were written to which tables.
async fn written(conn: &mut PgConnection) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select relname::text, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_xact_user_tables",
    )
    .fetch_all(conn)
    .await
    .unwrap();
    rows.into_iter().collect()
}

/// Goal: unread messages are counted without a walk over the edits and reactions behind them.
#[sqlx::test(migrator = "MIGRATOR")]
async fn entries_after_the_newest_message_are_not_walked(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    // In one of them alice has written all, and read nothing.
    for sender in [&bob, &alice] {
        let id = group(&mut conn, &[&alice, &bob]).await;
        fill(&mut conn, id, sender, 3).await;
        sqlx::query(
            "with entries as (
                 insert into messages (conversation_id, seq, sender_id, client_message_id, type, body)
                 select $1, seq, $2, 'e-' || seq, 'edit', '' from generate_series(4, 1000) seq
             )
             update conversations set last_seq = 1000 where conversation_id = $1",
        )
        .bind(id.0)
        .bind(bob.0.0)
        .execute(&mut conn)
        .await
        .unwrap();
    }
    let found = "select coalesce(sum(idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables";
    let wanted = Wanted {
        is_unread: true,
        limit: 10,
        ..Wanted::default()
    };
    let mut tx = conn.begin().await.unwrap();
    let page = inbox::page(&mut tx, alice.0, &wanted).await.unwrap();
    assert_eq!((page.len(), page[0].unread), (1, 3));
    let found: i64 = sqlx::query_scalar(found).fetch_one(&mut *tx).await.unwrap();
    assert!(found <= 60, "{found} rows");
}
