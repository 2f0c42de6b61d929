//! Who can be woken: the contract of the store, alone and against itself, and a device that
//! registers with the product.

mod connects;
mod costs;
mod one_device;
mod takeover;
mod worker;

use homing::{
    domain::ids::{ConversationId, Subject, UserId},
    store::{
        push::tokens::{self, NewPushToken, PushToken},
        sessions::{self, OpenSession},
        users::ensure,
    },
};
use sqlx::{PgConnection, PgPool};

const TOKENS_MAX: i64 = 3;

async fn user(conn: &mut PgConnection, name: &str) -> UserId {
    let subject = Subject::new(name).unwrap();
    ensure(conn, &[subject]).await.unwrap()[0]
}

fn fcm(token: &str) -> NewPushToken<'_> {
    NewPushToken {
        provider: "fcm",
        app: "my-project",
        environment: "production",
        token,
        voip_token: None,
        keys: None,
        locale: None,
    }
}

async fn register(
    conn: &mut PgConnection,
    user: UserId,
    client_id: &str,
    token: &str,
) -> PushToken {
    tokens::register(conn, user, client_id, &fcm(token), None, TOKENS_MAX)
        .await
        .unwrap()
        .unwrap()
}

async fn connect(conn: &mut PgConnection, user: UserId, client_id: &str) -> sessions::Opened {
    let session = OpenSession {
        user,
        client_id,
        clean_start: false,
        expiry_seconds: 3600,
        node: "node",
        issued_at: None,
    };
    sessions::open(conn, &session).await.unwrap()
}

/// The device that has a token.
async fn device_of(pool: &PgPool, user: UserId, client_id: &str) -> i64 {
    sqlx::query_scalar("select device_id from devices where user_id = $1 and client_id = $2")
        .bind(user.0)
        .bind(client_id)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// A job of a device that is in this state, due now unless it is done.
async fn job(pool: &PgPool, user: UserId, device: i64, state: &str) -> ConversationId {
    let conversation = ConversationId::random();
    sqlx::query(
        "insert into push_jobs (conversation_id, user_id, device_id, kind, route, state, from_seq,
                                to_seq, committed_at, due_at)
         values ($1, $2, $3, 'wake', 'fcm:my-project:production', $4, 1, 1, now(),
                 case when $4 <> 'done' then now() end)",
    )
    .bind(conversation.0)
    .bind(user.0)
    .bind(device)
    .bind(state)
    .execute(pool)
    .await
    .unwrap();
    conversation
}

/// The states of a device's jobs, in the order in which they were made, with their routes.
async fn jobs(pool: &PgPool, device: i64) -> Vec<(String, bool, String)> {
    sqlx::query_as(
        "select state, due_at is not null, route from push_jobs where device_id = $1
         order by conversation_id",
    )
    .bind(device)
    .fetch_all(pool)
    .await
    .unwrap()
}
