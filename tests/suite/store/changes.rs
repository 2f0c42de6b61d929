//! Changes: one after the other, without a gap, and never to what the sender does not see.

use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId},
        message::{Content, NewMessage},
    },
    store::{
        changes::append_changes,
        conversations::{self, Role},
        expiry,
        messages::{Outcome, read_after},
        outbox,
    },
};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;

use crate::harness::until;

use super::{User, append, fill, group, message, message_with_id, sequence, user, writer};

fn change(
    conversation: ConversationId,
    sender: &User,
    kind: &str,
    id: &str,
    target: i64,
) -> NewMessage {
    let body = match kind {
        "retract" => "",
        "reaction" => r#"{"key":"x"}"#,
        _ => "\"better\"",
    };
    let id = ClientMessageId::new(id.to_owned()).unwrap();
    NewMessage {
        conversation,
        sender: sender.0,
        sender_name: sender.1.clone(),
        sender_device: None,
        content: Content {
            target: Some(sequence(target)),
            ..Content::new(id, kind, body)
        },
    }
}

async fn apply(conn: &mut PgConnection, batch: &[NewMessage]) -> Vec<Outcome> {
    let appended = append_changes(conn, batch, 50).await.unwrap();
    appended.into_iter().map(|answer| answer.outcome).collect()
}

fn stored(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Stored { sequence, .. } => sequence.get(),
        other => panic!("should have been stored: {other:?}"),
    }
}

/// Goal: of one batch each change sees what those before it did, in each conversation.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn changes_of_a_batch_happen_one_after_the_other(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let one = group(&mut conn, &[&alice, &bob]).await;
    let two = group(&mut conn, &[&alice]).await;
    fill(&mut conn, one, &alice, 2).await;
    fill(&mut conn, two, &alice, 1).await;

    let outcomes = apply(
        &mut conn,
        &[
            change(one, &alice, "edit", "a", 1),
            change(two, &alice, "retract", "a", 1),
            change(one, &bob, "reaction", "b", 1),
            change(one, &bob, "edit", "c", 1),
            change(one, &alice, "retract", "d", 1),
            change(one, &alice, "edit", "e", 1),
            change(one, &bob, "reaction", "f", 2),
            change(two, &bob, "reaction", "g", 1),
            change(ConversationId::random(), &bob, "reaction", "h", 1),
        ],
    )
    .await;

    let sequences: Vec<_> = [0, 1, 2, 4, 6].map(|place| stored(outcomes[place])).into();
    assert_eq!(sequences, [3, 2, 4, 5, 6]);
    assert_eq!(outcomes[3], Outcome::NotAuthor);
    assert_eq!(outcomes[5], Outcome::Gone);
    assert_eq!(outcomes[7], Outcome::NotParticipant);
    assert_eq!(outcomes[8], Outcome::NoConversation);
    let head = conversations::conversation(&mut conn, one)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(head.last_seq, 6);
    let heads: (i64, i64) = sqlx::query_as(
        "select last_ordinal, last_message_seq from conversations where conversation_id = $1",
    )
    .bind(one.0)
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(heads, (2, 2), "a change is no message");
    let announced: i64 = sqlx::query_scalar(
        "select count(*) from outbox where aggregate_id = $1 and payload = '{\"from\": 3, \"to\": 6}'",
    )
    .bind(one.0)
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(announced, 1);
    assert_eq!(append(&mut conn, &[message(one, &bob)]).await.len(), 1);
    assert_eq!(
        read_after(&mut conn, one, alice.0, 6, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_repeated_change_keeps_its_sequence(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 1).await;
    append(&mut conn, &[message_with_id(conversation, &bob, "1")]).await;
    let edit = change(conversation, &alice, "edit", "1", 1);
    assert_eq!(
        stored(apply(&mut conn, std::slice::from_ref(&edit)).await[0]),
        3
    );
    let retraction = change(conversation, &alice, "retract", "2", 1);
    apply(&mut conn, &[retraction]).await;
    // Whoever was removed, and whatever was retracted since: it is stored.
    let (whom, actor) = ((alice.0, &alice.1), (bob.0, &bob.1));
    conversations::remove(&mut conn, conversation, whom, actor)
        .await
        .unwrap();

    let repeated = apply(
        &mut conn,
        &[edit, change(conversation, &bob, "reaction", "1", 2)],
    )
    .await;

    // Ids are the sender's own, and those of messages and changes are the same sort.
    assert_eq!(
        repeated,
        [
            Outcome::Duplicate {
                sequence: sequence(3)
            },
            Outcome::Duplicate {
                sequence: sequence(2)
            }
        ]
    );
}

/// Goal: of one batch too, the second of two equal reactions is the first one again.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_reaction_that_changes_nothing_is_not_stored(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 2).await;
    let take = |sender: &User, id: &str| {
        let mut change = change(conversation, sender, "reaction", id, 2);
        change.content.body = r#"{"key":"x","remove":true}"#.into();
        change
    };
    let give = |sender: &User, id: &str| change(conversation, sender, "reaction", id, 2);

    let outcomes = apply(
        &mut conn,
        &[
            give(&alice, "1"),
            take(&bob, "1"),
            give(&alice, "2"),
            give(&bob, "2"),
            take(&alice, "3"),
            take(&alice, "4"),
            give(&alice, "5"),
        ],
    )
    .await;

    let duplicate = |seq| Outcome::Duplicate {
        sequence: sequence(seq),
    };
    let sequences: Vec<_> = [0, 3, 4, 6].map(|place| stored(outcomes[place])).into();
    assert_eq!(sequences, [3, 4, 5, 6]);
    assert_eq!(
        [outcomes[1], outcomes[2], outcomes[5]],
        [duplicate(2), duplicate(3), duplicate(2)]
    );
    let log = read_after(&mut conn, conversation, alice.0, 0, 9)
        .await
        .unwrap();
    assert_eq!(log.len(), 6);
}

/// Who came late, or came back, changes nothing of before; nor does who left or only reads.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_the_sender_does_not_see_cannot_be_changed(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 2).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::add(&mut conn, conversation, whom, Role::Member, actor, 9)
        .await
        .unwrap();
    sqlx::query("update participants set visible_from = 2 where user_id = $1")
        .bind(bob.0.0)
        .execute(&mut conn)
        .await
        .unwrap();
    let react = |id: &str, target| change(conversation, &bob, "reaction", id, target);
    let outcomes = apply(&mut conn, &[react("1", 1), react("2", 2), react("3", 3)]).await;
    assert_eq!(outcomes[0], Outcome::NoMessage, "before what may be read");
    assert_eq!(stored(outcomes[1]), 4);
    assert_eq!(outcomes[2], Outcome::NoMessage, "no message");

    sqlx::query("update conversations set first_seq = 3")
        .execute(&mut conn)
        .await
        .unwrap();
    assert_eq!(
        apply(&mut conn, &[react("5", 2)]).await,
        [Outcome::NoMessage]
    );
    sqlx::query("update conversations set first_seq = 1")
        .execute(&mut conn)
        .await
        .unwrap();
    for so in ["role = 'readonly'", "role = 'member', left_seq = 4"] {
        let statement = format!("update participants set {so} where user_id = $1");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(bob.0.0)
            .execute(&mut conn)
            .await
            .unwrap();
        assert_eq!(
            apply(&mut conn, &[react("6", 2)]).await,
            [Outcome::NotParticipant],
            "{so}"
        );
    }
}

/// Messages and changes of several connections at once, to the same two conversations.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn concurrent_changes_and_messages_leave_no_gap(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversations = [
        group(&mut conn, &[&alice]).await,
        group(&mut conn, &[&alice]).await,
    ];
    for conversation in conversations {
        fill(&mut conn, conversation, &alice, 3).await;
    }
    let mut senders = JoinSet::new();
    for sender in 0..6 {
        let (pool, alice) = (pool.clone(), alice.clone());
        senders.spawn(async move {
            let mut conn = writer(&pool).await;
            for round in 0..5 {
                let id = format!("{sender}-{round}");
                let mut order = conversations;
                if sender % 2 == 0 {
                    order.reverse();
                }
                if (sender + round) % 3 == 0 {
                    let batch =
                        order.map(|conversation| message_with_id(conversation, &alice, &id));
                    append(&mut conn, &batch).await;
                } else {
                    let kind = ["edit", "reaction", "retract"][round % 3];
                    let target = 1 + i64::try_from(round % 3).unwrap();
                    let batch =
                        order.map(|conversation| change(conversation, &alice, kind, &id, target));
                    apply(&mut conn, &batch).await;
                }
                expiry::erase_expired(&mut conn, 10).await.unwrap();
                expiry::erase_outdated(&mut conn, 10).await.unwrap();
            }
        });
    }
    senders.join_all().await;
    for conversation in conversations {
        let log = read_after(&mut conn, conversation, alice.0, 0, 100)
            .await
            .unwrap();
        let sequences: Vec<_> = log
            .iter()
            .map(|entry| entry.position.sequence.get())
            .collect();
        let head = conversations::conversation(&mut conn, conversation)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(sequences, (1..=head.last_seq).collect::<Vec<_>>());
        assert!(head.last_seq > 13);
    }
    // Rows are read below the oldest transaction of the whole cluster, other tests' included.
    until("the outbox", async || {
        let rows = outbox::read(&mut conn, "fan-out", 1000).await.unwrap();
        !rows.is_empty()
    })
    .await;
}

/// Goal: what is erased is erased in small steps, the oldest first, and only once.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn contents_are_erased_in_steps_and_once(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 9).await;
    for text in [
        "update messages set expires_at = now() where seq in (7, 8, 9)",
        "update messages set created_at = now() - interval '1 minute' where seq <= 5",
        "update conversations set retention_seconds = 30",
    ] {
        sqlx::query(text).execute(&mut conn).await.unwrap();
    }
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(expiry::erase_expired(&mut conn, 2).await.unwrap().entries);
        counts.push(expiry::erase_outdated(&mut conn, 3).await.unwrap().entries);
    }
    assert_eq!(counts, [2, 3, 1, 2, 0, 0]);
    let left: Vec<i64> =
        sqlx::query_scalar("select seq from messages where body <> '' order by seq")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert_eq!(left, [6]);
    let first: i64 = sqlx::query_scalar("select first_seq from conversations")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(first, 6);
}
