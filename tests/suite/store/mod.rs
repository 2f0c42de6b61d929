//! The contract of each store function, alone and against itself.

mod append;
mod changes;
mod cursors;
mod direct;
mod inbox;
mod inbox_large;
mod inbox_seeking;
mod membership;
mod outbox;
mod plans;
mod read;
mod schema;
mod sessions;
mod signs;
mod standings;
mod unread;
mod users;

use std::time::Duration;

use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId, DeviceId, Subject, UserId},
        message::{Content, NewMessage, Position, Sequence},
    },
    store::{
        StoreError,
        conversations::{self, Kind, NewConversation, Role},
        messages::{self, Appended, Outcome},
        sessions::Closing,
        users::ensure,
    },
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// How long a test waits for a fact.
const PATIENCE: Duration = Duration::from_secs(20);

type User = (UserId, Subject);

/// Closes one session; whether it was still held.
async fn close(
    conn: &mut PgConnection,
    device: DeviceId,
    generation: i64,
    keep: bool,
    expiry_seconds: i64,
    inflight: &[(u16, Position)],
) -> Result<bool, StoreError> {
    let inflight = inflight.to_vec();
    let closing = Closing {
        device,
        generation,
        keep,
        expiry_seconds,
        inflight,
        is_hidden: false,
    };
    Ok(homing::store::sessions::close(conn, &[closing]).await? == 1)
}

async fn user(conn: &mut PgConnection, name: &str) -> User {
    let subject = Subject::new(name).unwrap();
    let id = ensure(conn, std::slice::from_ref(&subject)).await.unwrap()[0];
    (id, subject)
}

/// A group in which all are members.
async fn group(conn: &mut PgConnection, users: &[&User]) -> ConversationId {
    let id = ConversationId::random();
    let participants = users.iter().map(|user| (user.0, Role::Member)).collect();
    let group = NewConversation {
        id,
        kind: Kind::Group,
        title: None,
        history_depth: Some(0),
        participants,
    };
    conversations::create(conn, &group).await.unwrap();
    id
}

fn message(conversation: ConversationId, sender: &User) -> NewMessage {
    message_with_id(conversation, sender, &Uuid::now_v7().to_string())
}

fn message_with_id(conversation: ConversationId, sender: &User, id: &str) -> NewMessage {
    NewMessage {
        conversation,
        sender: sender.0,
        sender_name: sender.1.clone(),
        sender_device: None,
        content: Content::new(
            ClientMessageId::new(id.to_owned()).unwrap(),
            "text",
            "\"hello\"",
        ),
    }
}

/// Appends in one statement, which is one transaction.
async fn append(conn: &mut PgConnection, batch: &[NewMessage]) -> Vec<Outcome> {
    let appended = messages::append_batch(conn, batch).await.unwrap();
    appended
        .into_iter()
        .map(|Appended { outcome, .. }| outcome)
        .collect()
}

/// Appends `count` messages of one sender.
async fn fill(conn: &mut PgConnection, conversation: ConversationId, sender: &User, count: usize) {
    let batch: Vec<_> = (0..count).map(|_| message(conversation, sender)).collect();
    append(conn, &batch).await;
}

fn sequence(number: i64) -> Sequence {
    Sequence::new(number).unwrap()
}

async fn writer(pool: &PgPool) -> PgConnection {
    messages::connect_writer(&pool.connect_options())
        .await
        .unwrap()
}

/// A pool as the product opens it.
fn product_pool(pool: &PgPool) -> PgPool {
    let options = pool.connect_options();
    homing::store::open_pool(options.as_ref().clone(), 16, PATIENCE)
}

pub(crate) async fn server_process(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(conn)
        .await
        .unwrap()
}

/// Until a connection waits for a lock.
pub(crate) async fn until_blocked(pool: &PgPool, process: i32) {
    let blocked = "select cardinality(pg_blocking_pids($1)) > 0";
    until(pool, blocked, process).await;
}

/// Until somebody waits for a lock that a connection holds.
pub(crate) async fn until_blocking(pool: &PgPool, process: i32) {
    let blocking = "select exists (select from pg_stat_activity
                                   where $1 = any (pg_blocking_pids(pid)))";
    until(pool, blocking, process).await;
}

async fn until(pool: &PgPool, query: &'static str, process: i32) {
    let holds = async {
        loop {
            let query = sqlx::query_scalar(query).bind(process);
            if query.fetch_one(pool).await.unwrap() {
                return;
            }
        }
    };
    let held = tokio::time::timeout(PATIENCE, holds).await;
    held.expect("somebody should wait for a lock");
}
