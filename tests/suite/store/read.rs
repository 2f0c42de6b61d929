//! Reading the log: what was stored, in order, and only what the user may see.

use bytes::Bytes;
use homing::{
    domain::{
        envelope::{Stamp, entry_json},
        ids::DeviceId,
        message::SharedEntry,
    },
    store::{
        conversations,
        messages::{Outcome, read_after, read_before},
    },
};
use sqlx::{PgConnection, PgPool};

use super::{User, append, fill, group, message, sequence, user, writer};
use homing::domain::ids::ConversationId;

fn sequences(entries: &[SharedEntry]) -> Vec<i64> {
    entries
        .iter()
        .map(|entry| entry.position.sequence.get())
        .collect()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_read_is_what_was_stored(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    let mut sent = message(conversation, &alice);
    sent.sender_device = Some(DeviceId(7));
    sent.content.body = Bytes::from_static(r#"{"text": "ü\u0000"}"#.as_bytes());
    sent.content.reply_to = Some(sequence(1));
    sent.content.extra = Bytes::from_static(br#"{"x":null}"#);
    let plain = message(conversation, &alice);

    let mut outcomes = append(&mut conn, std::slice::from_ref(&plain)).await;
    outcomes.extend(append(&mut conn, std::slice::from_ref(&sent)).await);
    let entries = read_after(&mut conn, conversation, alice.0, 0, 10)
        .await
        .unwrap();

    for ((message, outcome), entry) in [plain, sent].iter().zip(outcomes).zip(&entries) {
        let Outcome::Stored {
            sequence,
            at_millis,
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        let stamp = Stamp {
            sequence,
            from: &alice.1,
            at_millis,
        };
        assert_eq!(entry.payload, entry_json(stamp, &message.content));
        assert_eq!(entry.sender_device, message.sender_device);
        assert_eq!(entry.position.conversation, conversation);
    }
    assert_eq!(sequences(&entries), [1, 2]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn pages_go_in_both_directions(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 9).await;

    let after = read_after(&mut conn, conversation, alice.0, 4, 3)
        .await
        .unwrap();
    let before = read_before(&mut conn, conversation, alice.0, 4, 2)
        .await
        .unwrap();
    let newest = read_before(&mut conn, conversation, alice.0, i64::MAX, 2)
        .await
        .unwrap();
    let end = read_after(&mut conn, conversation, alice.0, 9, 3)
        .await
        .unwrap();

    assert_eq!(sequences(&after), [5, 6, 7]);
    assert_eq!(sequences(&before), [2, 3]);
    assert_eq!(sequences(&newest), [8, 9]);
    assert!(end.is_empty());
}

/// Bob is added at 3, removed at 6, and added again at 9.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_user_sees_from_the_joining_to_the_leaving(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let stranger = user(&mut conn, "stranger").await;
    let conversation = group(&mut conn, &[&alice]).await;
    let role = conversations::Role::Member;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));

    fill(&mut conn, conversation, &alice, 2).await;
    conversations::add(&mut conn, conversation, whom, role, actor, 10)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 2).await;
    conversations::remove(&mut conn, conversation, whom, actor)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 2).await;

    assert_eq!(seen(&mut conn, conversation, &bob).await, [3, 4, 5, 6]);
    assert!(seen(&mut conn, conversation, &stranger).await.is_empty());

    conversations::add(&mut conn, conversation, whom, role, actor, 10)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 1).await;

    assert_eq!(seen(&mut conn, conversation, &bob).await, [9, 10]);
    assert_eq!(seen(&mut conn, conversation, &alice).await.len(), 10);
}

/// What both ways of reading agree on.
async fn seen(conn: &mut PgConnection, conversation: ConversationId, user: &User) -> Vec<i64> {
    let forwards = read_after(conn, conversation, user.0, 0, 100)
        .await
        .unwrap();
    let backwards = read_before(conn, conversation, user.0, i64::MAX, 100)
        .await
        .unwrap();
    assert_eq!(forwards, backwards);
    sequences(&forwards)
}
