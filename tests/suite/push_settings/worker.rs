//! Registrations while a worker takes jobs: what was meant for one user never leaves for
//! another, and neither waits for the other in a circle.

use std::time::Duration;

use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId, Subject, UserId},
        message::{Content, NewMessage},
    },
    store::{
        conversations::{self, Kind, NewConversation, Role},
        messages::{append_batch, connect_writer},
        push::{
            arm::Graces,
            jobs::{Claim, Job, claim},
            tokens,
        },
    },
};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;

use super::{device_of, register, user};

/// A conversation with one message of somebody else.
async fn conversation(conn: &mut PgConnection, users: &[UserId]) -> ConversationId {
    let sender = user(conn, "carol").await;
    let members = users.iter().chain([&sender]);
    let new = NewConversation {
        id: ConversationId::random(),
        kind: Kind::Group,
        title: None,
        history_depth: Some(0),
        participants: members.map(|user| (*user, Role::Member)).collect(),
    };
    conversations::create(conn, &new).await.unwrap();
    let message = NewMessage {
        conversation: new.id,
        sender,
        sender_name: Subject::new("carol").unwrap(),
        sender_device: None,
        content: Content::new(ClientMessageId::new("1".to_owned()).unwrap(), "text", "1"),
    };
    append_batch(conn, &[message]).await.unwrap();
    new.id
}

/// The message waits to be pushed to all devices with a token, since a minute.
async fn arm_all(conn: &mut PgConnection, conversation: ConversationId) {
    sqlx::query(
        "insert into push_jobs (conversation_id, user_id, device_id, kind, route, state, from_seq,
                                to_seq, committed_at, due_at)
         select $1, t.user_id, t.device_id, 'wake', t.route, 'armed', 1, 1,
                now() - interval '1 minute', now()
         from push_tokens t order by t.device_id
         on conflict (conversation_id, user_id, device_id, kind) do update
         set state = 'armed', due_at = now() - interval '1 second'",
    )
    .bind(conversation.0)
    .execute(conn)
    .await
    .unwrap();
}

async fn take(conn: &mut PgConnection) -> Vec<Job> {
    let no_time = Duration::ZERO;
    let due = Claim {
        route: "fcm:my-project:production",
        limit: 100,
        lease: Duration::from_secs(30),
        graces: Graces {
            offline: no_time,
            connected: no_time,
            elsewhere: no_time,
            repeat: no_time,
        },
        has_badge: false,
        budget_burst: 1_000_000,
        budget_interval: Duration::from_secs(1),
        time_to_live: Duration::from_hours(1),
    };
    claim(conn, &due, None).await.unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_was_meant_for_the_old_user_does_not_leave_for_the_new_one(pool: PgPool) {
    let mut conn = connect_writer(&pool.connect_options()).await.unwrap();
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = conversation(&mut conn, &[alice, bob]).await;
    register(&mut conn, alice, "phone", "one").await;
    register(&mut conn, alice, "tablet", "two").await;
    arm_all(&mut conn, conversation).await;

    register(&mut conn, bob, "phone", "one").await;
    let taken = take(&mut conn).await;

    let [job] = &taken[..] else {
        panic!("only the tablet's: {taken:?}");
    };
    assert_eq!((job.held.user, &job.address.token[..]), (alice, "two"));
}

/// Two phones trade their tokens and give them up, while two workers take jobs.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn registrations_and_workers_do_not_wait_in_a_circle(pool: PgPool) {
    let mut conn = connect_writer(&pool.connect_options()).await.unwrap();
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let conversation = conversation(&mut conn, &[alice, bob]).await;
    register(&mut conn, alice, "phone", "one").await;
    register(&mut conn, bob, "phone", "two").await;
    let (phone, other) = (
        device_of(&pool, alice, "phone").await,
        device_of(&pool, bob, "phone").await,
    );

    let mut at_once = JoinSet::new();
    for (user, names) in [(alice, ["one", "two"]), (bob, ["two", "one"])] {
        let pool = pool.clone();
        at_once.spawn(async move {
            let mut conn = connect_writer(&pool.connect_options()).await.unwrap();
            for round in 0..60 {
                register(&mut conn, user, "phone", names[round % 2]).await;
                if round % 10 == 9 {
                    tokens::remove(&mut conn, user, "phone").await.unwrap();
                }
            }
            0
        });
    }
    for _ in 0..2 {
        let pool = pool.clone();
        at_once.spawn(async move {
            let mut conn = connect_writer(&pool.connect_options()).await.unwrap();
            let mut taken = 0;
            for _ in 0..60 {
                arm_all(&mut conn, conversation).await;
                for job in take(&mut conn).await {
                    let device = job.held.device.0;
                    let owner = if device == phone { alice } else { bob };
                    assert!(device == phone || device == other);
                    assert_eq!(job.held.user, owner);
                    taken += 1;
                }
            }
            taken
        });
    }
    let taken: usize = at_once.join_all().await.iter().sum();
    assert!(taken > 0, "nobody took a job: nothing was shown");
}
