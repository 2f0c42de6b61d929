//! Appending: no gap, no repeat, and a bad message fails alone.

use homing::{
    domain::ids::ConversationId,
    store::{
        conversations::{self, Kind, NewConversation, Role},
        messages::{Outcome, append_batch},
    },
};
use sqlx::{Connection, PgPool};
use tokio::task::JoinSet;

use super::{
    append, fill, group, message, message_with_id, sequence, server_process, until_blocked, user,
    writer,
};

fn stored_sequence(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Stored { sequence, .. } => sequence.get(),
        other => panic!("should have been stored: {other:?}"),
    }
}

/// Forty batches of one to three messages from eight connections at once.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn concurrent_senders_leave_no_gap(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;

    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let (pool, alice) = (pool.clone(), alice.clone());
        senders.spawn(async move {
            let mut conn = writer(&pool).await;
            let mut outcomes = Vec::new();
            for batch in 0..5 {
                let size = 1 + (sender + batch) % 3;
                let batch: Vec<_> = (0..size).map(|_| message(conversation, &alice)).collect();
                outcomes.extend(append(&mut conn, &batch).await);
            }
            outcomes
        });
    }
    let outcomes: Vec<_> = senders.join_all().await.into_iter().flatten().collect();

    let mut sequences: Vec<_> = outcomes.into_iter().map(stored_sequence).collect();
    sequences.sort_unstable();
    let last = i64::try_from(sequences.len()).unwrap();
    assert_eq!(sequences, (1..=last).collect::<Vec<_>>());
    let row = conversations::conversation(&mut conn, conversation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.last_seq, last);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn times_rise_with_the_sequences(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;

    // The first transaction starts before the second one and commits after it.
    let mut early = writer(&pool).await;
    let mut early = early.begin().await.unwrap();
    sqlx::query("select now()")
        .execute(&mut *early)
        .await
        .unwrap();
    let second = append(&mut conn, &[message(conversation, &alice)]).await[0];
    let first = append(&mut early, &[message(conversation, &alice)]).await[0];
    early.commit().await.unwrap();

    let (
        Outcome::Stored {
            at_millis: earlier, ..
        },
        Outcome::Stored {
            at_millis: later, ..
        },
    ) = (second, first)
    else {
        panic!("both are new: {second:?}, {first:?}");
    };
    assert!(
        earlier <= later,
        "sequence 1 at {earlier}, sequence 2 at {later}"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_repeat_keeps_its_sequence(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    let other = group(&mut conn, &[&alice]).await;
    let first = message_with_id(conversation, &alice, "1");
    append(&mut conn, &[message(conversation, &bob), first.clone()]).await;

    let outcomes = append(
        &mut conn,
        &[
            message_with_id(conversation, &bob, "1"),
            first,
            message_with_id(other, &alice, "1"),
            message(conversation, &alice),
        ],
    )
    .await;

    // The same id of another sender, or in another conversation, is another message.
    assert_eq!(stored_sequence(outcomes[0]), 3);
    assert_eq!(
        outcomes[1],
        Outcome::Duplicate {
            sequence: sequence(2)
        }
    );
    assert_eq!(stored_sequence(outcomes[2]), 1);
    assert_eq!(stored_sequence(outcomes[3]), 4);
}

/// A device sends, loses its connection, and sends again to another node before the first
/// one has committed.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_repeat_waits_for_the_first_to_commit(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let process = server_process(&mut two).await;
    let alice = user(&mut one, "alice").await;
    let conversation = group(&mut one, &[&alice]).await;
    let sent = message_with_id(conversation, &alice, "1");

    let mut first = one.begin().await.unwrap();
    append(&mut first, std::slice::from_ref(&sent)).await;
    let (repeated, ()) = tokio::join!(append(&mut two, std::slice::from_ref(&sent)), async {
        until_blocked(&pool, process).await;
        first.commit().await.unwrap();
    });

    assert_eq!(
        repeated,
        [Outcome::Duplicate {
            sequence: sequence(1)
        }]
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_repeat_is_stored_if_the_first_rolls_back(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let process = server_process(&mut two).await;
    let alice = user(&mut one, "alice").await;
    let conversation = group(&mut one, &[&alice]).await;
    let sent = message_with_id(conversation, &alice, "1");

    let mut first = one.begin().await.unwrap();
    append(&mut first, std::slice::from_ref(&sent)).await;
    let (repeated, ()) = tokio::join!(append(&mut two, std::slice::from_ref(&sent)), async {
        until_blocked(&pool, process).await;
        first.rollback().await.unwrap();
    });

    assert_eq!(stored_sequence(repeated[0]), 1);
}

/// Two batches come to the same three conversations from opposite ends, and meet at the one
/// in the middle, which a third transaction holds.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn opposite_batches_do_not_deadlock_and_store_once(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let processes = [
        server_process(&mut one).await,
        server_process(&mut two).await,
    ];
    let alice = user(&mut one, "alice").await;
    let mut conversations = Vec::new();
    for _ in 0..3 {
        conversations.push(group(&mut one, &[&alice]).await);
    }
    let repeated = |id: &ConversationId| message_with_id(*id, &alice, "1");
    let forwards: Vec<_> = conversations.iter().map(repeated).collect();
    let backwards: Vec<_> = conversations.iter().rev().map(repeated).collect();

    let mut holder = pool.begin().await.unwrap();
    append(&mut holder, &[message(conversations[1], &alice)]).await;
    let (forwards, backwards, ()) = tokio::join!(
        append(&mut one, &forwards),
        append(&mut two, &backwards),
        async {
            for process in processes {
                until_blocked(&pool, process).await;
            }
            holder.commit().await.unwrap();
        }
    );

    let is_stored = |outcome: &&Outcome| matches!(outcome, Outcome::Stored { .. });
    assert_eq!(
        forwards.iter().chain(&backwards).filter(is_stored).count(),
        3
    );
    for (place, last) in [1, 2, 1].into_iter().enumerate() {
        let id = conversations[place];
        let row = conversations::conversation(&mut one, id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.last_seq, last);
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_bad_message_is_refused_alone(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, reader) = (
        user(&mut conn, "alice").await,
        user(&mut conn, "reader").await,
    );
    let stranger = user(&mut conn, "stranger").await;
    let conversation = ConversationId::random();
    let participants = vec![(alice.0, Role::Owner), (reader.0, Role::Readonly)];
    let new = NewConversation {
        id: conversation,
        kind: Kind::Group,
        title: None,
        history_depth: Some(0),
        participants,
    };
    conversations::create(&mut conn, &new).await.unwrap();

    let batch = [
        message(conversation, &alice),
        message(ConversationId::random(), &alice),
        message(conversation, &stranger),
        message(conversation, &reader),
        message(conversation, &alice),
    ];
    let appended = append_batch(&mut conn, &batch).await.unwrap();

    assert_eq!(stored_sequence(appended[0].outcome), 1);
    assert_eq!(appended[1].outcome, Outcome::NoConversation);
    assert_eq!(appended[2].outcome, Outcome::NotParticipant);
    assert_eq!(appended[3].outcome, Outcome::NotParticipant);
    assert_eq!(stored_sequence(appended[4].outcome), 2);
    let versions: Vec<_> = appended
        .iter()
        .map(|appended| appended.members_version)
        .collect();
    assert_eq!(versions, [1, 0, 1, 1, 1]);
}

/// Goal: an answer is judged by the log before its batch and by what its sender may see; a
/// repeat is answered first.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_answer_to_what_the_sender_does_not_see_is_refused_alone(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 3).await;
    let sees_from = async |conn: &mut sqlx::PgConnection, first: i64| {
        sqlx::query("update participants set visible_from = $2 where user_id = $1")
            .bind(bob.0.0)
            .bind(first)
            .execute(conn)
            .await
            .unwrap();
    };
    sees_from(&mut conn, 2).await;
    let answer = |id: &str, target| {
        let mut answer = message_with_id(conversation, &bob, id);
        answer.content.reply_to = Some(sequence(target));
        answer
    };
    let second = answer("2", 2);
    let batch = [
        answer("1", 1),
        second.clone(),
        answer("3", 3),
        answer("4", 4),
        answer("5", i64::MAX),
        message(conversation, &bob),
    ];
    let outcomes = append(&mut conn, &batch).await;
    assert_eq!(outcomes[0], Outcome::NoMessage, "before what may be read");
    assert_eq!(stored_sequence(outcomes[1]), 4);
    assert_eq!(stored_sequence(outcomes[2]), 5);
    assert_eq!(outcomes[3], Outcome::NoMessage, "of the same batch");
    assert_eq!(outcomes[4], Outcome::NoMessage, "not there");
    assert_eq!(stored_sequence(outcomes[5]), 6);

    sees_from(&mut conn, 9).await;
    let sequence = sequence(4);
    let repeated = append(&mut conn, &[second]).await;
    assert_eq!(repeated, [Outcome::Duplicate { sequence }]);
    sees_from(&mut conn, 1).await;
    sqlx::query("update conversations set first_seq = 3")
        .execute(&mut conn)
        .await
        .unwrap();
    let outcomes = append(&mut conn, &[answer("6", 2), answer("7", 3)]).await;
    assert_eq!(outcomes[0], Outcome::NoMessage, "before the log begins");
    assert_eq!(stored_sequence(outcomes[1]), 7);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_was_removed_still_learns_what_was_stored(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 3).await;
    let sent = message_with_id(conversation, &bob, "1");
    append(&mut conn, std::slice::from_ref(&sent)).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    conversations::remove(&mut conn, conversation, whom, actor)
        .await
        .unwrap();

    let outcomes = append(&mut conn, &[sent, message(conversation, &bob)]).await;

    assert_eq!(
        outcomes[0],
        Outcome::Duplicate {
            sequence: sequence(4)
        }
    );
    assert_eq!(outcomes[1], Outcome::NotParticipant);
}
