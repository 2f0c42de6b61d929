//! Participants come and go at a sequence.

use homing::{
    domain::{envelope::KIND_MEMBERSHIP, ids::ConversationId, message::SharedEntry},
    store::{
        conversations::{
            self, Change, Kind, NewConversation, Participant, Role, add, participants, remove, role,
        },
        messages::{Outcome, read_after},
    },
};
use serde_json::{Value, json};
use sqlx::{Connection, PgPool};

use super::{append, fill, group, message, server_process, until_blocked, user, writer};

fn changed(change: Change) -> (SharedEntry, i32) {
    match change {
        Change::Changed {
            entry,
            members_version,
        } => (entry, members_version),
        other => panic!("should have changed: {other:?}"),
    }
}

fn payload(entry: &SharedEntry) -> Value {
    serde_json::from_slice(&entry.payload).unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_new_conversation_is_as_it_was_asked_for(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let id = ConversationId::random();
    let new = NewConversation {
        id,
        kind: Kind::Direct,
        title: Some("us".to_owned()),
        history_depth: Some(0),
        participants: vec![(alice.0, Role::Owner), (bob.0, Role::Readonly)],
    };

    conversations::create(&mut conn, &new).await.unwrap();

    let row = conversations::conversation(&mut conn, id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.kind, row.title.as_deref()), (Kind::Direct, Some("us")));
    assert_eq!((row.epoch, row.last_seq, row.members_version), (1, 0, 1));
    let unknown = ConversationId::random();
    assert_eq!(
        conversations::conversation(&mut conn, unknown)
            .await
            .unwrap(),
        None
    );
    let takes_part = |user: &super::User, role| Participant {
        user: user.0,
        name: user.1.clone(),
        role,
        joined: 1,
        left: None,
    };
    assert_eq!(
        participants(&mut conn, &[unknown, id]).await.unwrap(),
        [(
            id,
            1,
            vec![
                takes_part(&alice, Role::Owner),
                takes_part(&bob, Role::Readonly)
            ]
        )]
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_change_is_an_entry_of_the_log(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice]).await;
    fill(&mut conn, conversation, &alice, 1).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));

    let (added, version) = changed(
        add(&mut conn, conversation, whom, Role::Admin, actor, 10)
            .await
            .unwrap(),
    );
    assert_eq!((added.position.sequence.get(), version), (2, 2));
    let said = payload(&added);
    assert_eq!(
        (&said["type"], &said["from"]),
        (&json!(KIND_MEMBERSHIP), &json!("alice"))
    );
    assert_eq!(
        said["body"],
        json!({"change": "added", "user": "bob", "role": "admin"})
    );
    assert_eq!(
        role(&mut conn, conversation, bob.0).await.unwrap(),
        Some(Role::Admin)
    );

    let (removed, version) = changed(remove(&mut conn, conversation, whom, actor).await.unwrap());
    assert_eq!((removed.position.sequence.get(), version), (3, 3));
    assert_eq!(
        payload(&removed)["body"],
        json!({"change": "removed", "user": "bob"})
    );
    assert_eq!(role(&mut conn, conversation, bob.0).await.unwrap(), None);

    // What the caller fans out is what is read later, and the log goes on behind it.
    let entries = read_after(&mut conn, conversation, alice.0, 1, 10)
        .await
        .unwrap();
    assert_eq!(entries, [added, removed]);
    let next = append(&mut conn, &[message(conversation, &alice)]).await[0];
    assert!(
        matches!(next, Outcome::Stored { sequence, .. } if sequence.get() == 4),
        "{next:?}"
    );
    let lists = participants(&mut conn, &[conversation]).await.unwrap();
    let bounds: Vec<_> = lists[0]
        .2
        .iter()
        .map(|list| (list.joined, list.left))
        .collect();
    assert_eq!(bounds, [(1, None), (2, Some(3))]);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_changes_nothing_leaves_no_entry(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let carol = user(&mut conn, "carol").await;
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    let actor = (alice.0, &alice.1);
    let member = Role::Member;

    let again = add(&mut conn, conversation, (bob.0, &bob.1), member, actor, 2)
        .await
        .unwrap();
    let full = add(
        &mut conn,
        conversation,
        (carol.0, &carol.1),
        member,
        actor,
        2,
    )
    .await
    .unwrap();
    let absent = remove(&mut conn, conversation, (carol.0, &carol.1), actor)
        .await
        .unwrap();
    let nowhere = ConversationId::random();
    let unknown = add(&mut conn, nowhere, (bob.0, &bob.1), member, actor, 2)
        .await
        .unwrap();

    assert_eq!(
        (again, full, absent, unknown),
        (
            Change::Unchanged,
            Change::Full,
            Change::Unchanged,
            Change::NoConversation
        )
    );
    let row = conversations::conversation(&mut conn, conversation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.last_seq, row.members_version), (0, 1));
}

/// The removal commits first, so that the message waiting behind it must see it.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_message_behind_a_removal_is_refused(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let process = server_process(&mut two).await;
    let (alice, bob) = (user(&mut one, "alice").await, user(&mut one, "bob").await);
    let conversation = group(&mut one, &[&alice, &bob]).await;

    let mut removal = one.begin().await.unwrap();
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    changed(
        remove(&mut removal, conversation, whom, actor)
            .await
            .unwrap(),
    );
    let batch = [message(conversation, &bob), message(conversation, &alice)];
    let (outcomes, ()) = tokio::join!(append(&mut two, &batch), async {
        until_blocked(&pool, process).await;
        removal.commit().await.unwrap();
    });

    assert_eq!(outcomes[0], Outcome::NotParticipant);
    assert!(matches!(outcomes[1], Outcome::Stored { sequence, .. } if sequence.get() == 2));
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn two_additions_at_once_respect_the_limit(pool: PgPool) {
    let (mut one, mut two) = (writer(&pool).await, writer(&pool).await);
    let process = server_process(&mut two).await;
    let (alice, bob) = (user(&mut one, "alice").await, user(&mut one, "bob").await);
    let carol = user(&mut one, "carol").await;
    let conversation = group(&mut one, &[&alice]).await;
    let actor = (alice.0, &alice.1);

    let mut first = one.begin().await.unwrap();
    changed(
        add(
            &mut first,
            conversation,
            (bob.0, &bob.1),
            Role::Member,
            actor,
            2,
        )
        .await
        .unwrap(),
    );
    let second = add(
        &mut two,
        conversation,
        (carol.0, &carol.1),
        Role::Member,
        actor,
        2,
    );
    let (second, ()) = tokio::join!(second, async {
        until_blocked(&pool, process).await;
        first.commit().await.unwrap();
    });

    assert_eq!(second.unwrap(), Change::Full);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn unread_counts_what_others_wrote_and_the_user_may_see(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice]).await;
    let (whom, actor) = ((bob.0, &bob.1), (alice.0, &alice.1));
    fill(&mut conn, conversation, &alice, 5).await;
    add(&mut conn, conversation, whom, Role::Member, actor, 10)
        .await
        .unwrap();
    fill(&mut conn, conversation, &alice, 2).await;
    fill(&mut conn, conversation, &bob, 3).await;

    // The entry of the joining does not count, nor does what came before it.
    assert_eq!(
        conversations::unread(&mut conn, conversation, bob.0, 1)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        conversations::unread(&mut conn, conversation, alice.0, 1)
            .await
            .unwrap(),
        3
    );

    remove(&mut conn, conversation, whom, actor).await.unwrap();
    fill(&mut conn, conversation, &alice, 4).await;
    assert_eq!(
        conversations::unread(&mut conn, conversation, bob.0, 1)
            .await
            .unwrap(),
        2
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn unread_stops_counting_at_its_limit(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = group(&mut conn, &[&alice, &bob]).await;
    fill(&mut conn, conversation, &alice, 1200).await;

    let unread = conversations::unread(&mut conn, conversation, bob.0, 1)
        .await
        .unwrap();

    assert_eq!(unread, conversations::UNREAD_MAX);
}
