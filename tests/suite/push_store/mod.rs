//! The push gateway in the store: each rule, and each edge of the state machine.

mod arming;
mod claiming;
mod clearing;
mod explaining;
mod finishing;
mod plans;
mod quieting;
mod showing;
mod upkeep;

use std::time::Duration;

use bytes::Bytes;
use homing::{
    domain::{
        ids::{ClientMessageId, ConversationId, DeviceId, Subject, UserId},
        message::{Content, Format, NewMessage, Sequence},
    },
    store::{
        changes,
        conversations::{self, Kind, NewConversation, Role},
        cursors::{self, Settled},
        messages::{self, Outcome},
        outbox::{self, AgedRow, Place},
        push::{
            arm::{Armed, Graces, Pass, arm},
            finish::{Finished, JobResult, finish},
            jobs::{Claim, Job, claim},
        },
        sessions::{self, Closing, OpenSession},
        users,
    },
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// When everything begins, in milliseconds since 1970: 2033-05-18 03:33:20 UTC, a Wednesday.
const START: i64 = 2_000_000_000_000;
const ROUTE: &str = "apns:com.example.chat:production";
const WEB_ROUTE: &str = "webpush:chat.example.com:production";

const GRACES: Graces = Graces {
    offline: Duration::from_secs(1),
    connected: Duration::from_secs(8),
    elsewhere: Duration::from_secs(15),
    repeat: Duration::from_secs(10),
};
const BURST: u32 = 20;
/// How long a test waits for a fact.
const PATIENCE: Duration = Duration::from_secs(20);

const SENT: JobResult = JobResult::Sent {
    is_background: false,
};

type User = (UserId, Subject);

/// Alice writes to a group in which Bob is, whose phone is away and has a token. Times are in
/// milliseconds after [`START`].
struct Scene {
    conn: PgConnection,
    alice: User,
    bob: User,
    group: ConversationId,
    phone: DeviceId,
}

/// A row of `push_jobs`, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
struct JobRow {
    state: String,
    from_seq: i64,
    to_seq: i64,
    /// In milliseconds after [`START`].
    due: Option<i64>,
    attempts: i32,
    pushed_seq: i64,
    notification_id: Uuid,
}

impl Scene {
    async fn conn(pool: &PgPool) -> PgConnection {
        messages::connect_writer(&pool.connect_options())
            .await
            .unwrap()
    }

    async fn new(pool: &PgPool) -> Self {
        let mut conn = Self::conn(pool).await;
        let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
        let group = group(&mut conn, &[&alice, &bob]).await;
        let mut scene = Self {
            conn,
            alice,
            bob,
            group,
            phone: DeviceId(0),
        };
        scene.phone = scene.device("phone", -1_000_000).await;
        scene.token(scene.phone, ROUTE, "token").await;
        scene
    }

    /// A device of Bob, connected once and away again.
    async fn device(&mut self, client_id: &str, at: i64) -> DeviceId {
        let device = self.connect(client_id, at).await;
        self.disconnect(device, at).await;
        device
    }

    /// Connects a device of Bob.
    async fn connect(&mut self, client_id: &str, at: i64) -> DeviceId {
        let session = OpenSession {
            user: self.bob.0,
            client_id,
            clean_start: false,
            expiry_seconds: 3600,
            node: "node-1",
            issued_at: None,
        };
        let device = sessions::open(&mut self.conn, &session)
            .await
            .unwrap()
            .device;
        let text =
            "update sessions set connected_at = to_timestamp($2 / 1000.0) where device_id = $1";
        sqlx::query(text)
            .bind(device.0)
            .bind(START + at)
            .execute(&mut self.conn)
            .await
            .unwrap();
        device
    }

    async fn disconnect(&mut self, device: DeviceId, _at: i64) {
        let closing = Closing {
            device,
            generation: i64::MAX,
            keep: true,
            expiry_seconds: 3600,
            inflight: Vec::new(),
            is_hidden: false,
        };
        sessions::close(&mut self.conn, &[closing]).await.unwrap();
        // The next connection has a generation above this one.
        self.run("update sessions set generation = 0").await;
    }

    /// A statement of a test.
    async fn run(&mut self, text: &'static str) {
        sqlx::query(text).execute(&mut self.conn).await.unwrap();
    }

    /// Registers a token; for Web Push with keys.
    async fn token(&mut self, device: DeviceId, route: &str, token: &str) {
        let parts: Vec<_> = route.split(':').collect();
        let key = (parts[0] == "webpush").then_some("key");
        sqlx::query(
            "insert into push_tokens (device_id, user_id, provider, app, environment, token, p256dh,
                                      auth, registered_at)
             select $1, d.user_id, $2, $3, $4, $5, $6, $6, to_timestamp($7 / 1000.0)
             from devices d where d.device_id = $1
             on conflict (device_id) do update
             set provider = excluded.provider, app = excluded.app, token = excluded.token,
                 environment = excluded.environment, p256dh = excluded.p256dh, auth = excluded.auth,
                 dead_since = null",
        )
        .bind(device.0)
        .bind(parts[0])
        .bind(parts[1])
        .bind(parts[2])
        .bind(token)
        .bind(key)
        .bind(START - 1_000_000)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }

    /// Alice says something; its sequence.
    async fn say(&mut self, extra: &str, at: i64) -> i64 {
        let (group, alice) = (self.group, self.alice.clone());
        say(&mut self.conn, group, &alice, extra, at).await
    }

    /// Alice takes back what she said.
    async fn retract(&mut self, target: i64) {
        self.change("retract", target, "", Format::Json).await;
    }

    /// Alice changes what she said.
    async fn change(&mut self, kind: &str, target: i64, body: &'static str, format: Format) {
        let content = Content {
            target: Some(Sequence::new(target).unwrap()),
            format,
            ..Content::new(
                ClientMessageId::new(Uuid::now_v7().to_string()).unwrap(),
                kind,
                body,
            )
        };
        let change = NewMessage {
            conversation: self.group,
            sender: self.alice.0,
            sender_name: self.alice.1.clone(),
            sender_device: None,
            content,
        };
        let appended = changes::append_changes(&mut self.conn, &[change], 50)
            .await
            .unwrap();
        assert!(matches!(appended[0].outcome, Outcome::Stored { .. }));
    }

    async fn arm(&mut self, pass: Pass, from: i64, to: i64, at: i64) -> Armed {
        let row = row(self.group, from, to);
        arm_rows(&mut self.conn, &[row], pass, at).await
    }

    /// Says something, and arms it for devices that are away.
    async fn say_and_arm(&mut self, at: i64) -> i64 {
        let seq = self.say("", at).await;
        self.arm(Pass::Early, seq, seq, at + 1000).await;
        seq
    }

    async fn claim(&mut self, at: i64) -> Vec<Job> {
        claim_route(&mut self.conn, ROUTE, at).await
    }

    /// The one job that is due.
    async fn claim_one(&mut self, at: i64) -> Job {
        let jobs = self.claim(at).await;
        let [job] = jobs.try_into().expect("one job should be due");
        job
    }

    async fn finish(&mut self, job: &Job, result: JobResult, at: i64) -> u64 {
        let finished = Finished {
            held: job.held.clone(),
            token: job.address.token.clone(),
            result,
        };
        finish(&mut self.conn, &[finished], GRACES.repeat, Some(START + at))
            .await
            .unwrap()
    }

    /// Says something, and pushes it; the job that was done.
    async fn push(&mut self, at: i64) -> Job {
        self.say_and_arm(at).await;
        let job = self.claim_one(at + 1000).await;
        self.finish(&job, SENT, at + 1000).await;
        job
    }

    /// The phone acknowledges, or Bob reads.
    async fn settle(&mut self, delivered: Option<i64>, read: Option<i64>) {
        let settled = Settled {
            device: delivered.map(|_| self.phone),
            user: self.bob.0,
            conversation: self.group,
            delivered,
            read,
        };
        cursors::settle(&mut self.conn, &[settled]).await.unwrap();
        // settle() takes the time from the clock.
        self.run(
            "update push_jobs set committed_at = to_timestamp(2000000000) where kind = 'clear'",
        )
        .await;
    }

    async fn job(&mut self) -> JobRow {
        let phone = self.phone;
        self.job_of(phone, "wake")
            .await
            .expect("there should be a job")
    }

    async fn job_of(&mut self, device: DeviceId, kind: &str) -> Option<JobRow> {
        sqlx::query_as(
            "select state, from_seq, to_seq, (extract(epoch from due_at) * 1000)::bigint - $4 as due,
                    attempts, pushed_seq, notification_id
             from push_jobs where conversation_id = $1 and device_id = $2 and kind = $3",
        )
        .bind(self.group.0)
        .bind(device.0)
        .bind(kind)
        .bind(START)
        .fetch_optional(&mut self.conn)
        .await
        .unwrap()
    }

    /// The ledger, oldest first: `outcome reason from..to`.
    async fn ledger(&mut self) -> Vec<String> {
        sqlx::query_scalar(
            "select outcome || ' ' || reason || ' ' || from_seq || '..' || to_seq
             from push_attempts order by attempt_id",
        )
        .fetch_all(&mut self.conn)
        .await
        .unwrap()
    }
}

async fn user(conn: &mut PgConnection, name: &str) -> User {
    let subject = Subject::new(name).unwrap();
    let id = users::ensure(conn, std::slice::from_ref(&subject))
        .await
        .unwrap()[0];
    (id, subject)
}

async fn group(conn: &mut PgConnection, users: &[&User]) -> ConversationId {
    let id = ConversationId::random();
    let group = NewConversation {
        id,
        kind: Kind::Group,
        title: Some("Hiking".to_owned()),
        history_depth: Some(0),
        participants: users.iter().map(|user| (user.0, Role::Member)).collect(),
    };
    conversations::create(conn, &group).await.unwrap();
    id
}

async fn say(
    conn: &mut PgConnection,
    conversation: ConversationId,
    sender: &User,
    extra: &str,
    at: i64,
) -> i64 {
    let message = NewMessage {
        conversation,
        sender: sender.0,
        sender_name: sender.1.clone(),
        sender_device: None,
        content: Content {
            extra: Bytes::copy_from_slice(extra.as_bytes()),
            ..Content::new(
                ClientMessageId::new(Uuid::now_v7().to_string()).unwrap(),
                "text",
                "\"hello\"",
            )
        },
    };
    let appended = messages::append_batch(conn, &[message]).await.unwrap();
    let Outcome::Stored { sequence, .. } = appended[0].outcome else {
        panic!("it should be stored");
    };
    sqlx::query(
        "update messages set created_at = to_timestamp($3 / 1000.0)
         where conversation_id = $1 and seq = $2",
    )
    .bind(conversation.0)
    .bind(sequence.get())
    .bind(START + at)
    .execute(conn)
    .await
    .unwrap();
    sequence.get()
}

/// Reads until there are `count` rows: a transaction that runs anywhere in the server, also
/// in another test, holds the readers back.
async fn until_aged(conn: &mut PgConnection, count: usize, at: Option<i64>) -> Vec<AgedRow> {
    let enough = async {
        loop {
            let rows = outbox::read_older_than(conn, "push", 100, GRACES.offline, at);
            let rows = rows.await.unwrap();
            if rows.len() >= count {
                return rows;
            }
        }
    };
    tokio::time::timeout(PATIENCE, enough)
        .await
        .expect("the rows should become readable")
}

fn retry(seconds: u64) -> JobResult {
    JobResult::Retry {
        reason: "HTTP 503".to_owned(),
        after: Duration::from_secs(seconds),
    }
}

/// A row of the outbox.
fn row(conversation: ConversationId, from: i64, to: i64) -> AgedRow {
    AgedRow {
        place: Place { xid: 1, id: 1 },
        conversation,
        from,
        to,
        created_at_millis: START,
    }
}

fn routes() -> Vec<String> {
    vec![ROUTE.to_owned(), WEB_ROUTE.to_owned()]
}

async fn arm_rows(conn: &mut PgConnection, rows: &[AgedRow], pass: Pass, at: i64) -> Armed {
    arm(conn, rows, pass, &GRACES, &routes(), Some(START + at))
        .await
        .unwrap()
}

fn claim_of(route: &str) -> Claim<'_> {
    Claim {
        route,
        limit: 200,
        lease: Duration::from_secs(30),
        graces: GRACES,
        has_badge: true,
        budget_burst: BURST,
        budget_interval: Duration::from_secs(10),
        time_to_live: Duration::from_hours(28 * 24),
    }
}

async fn claim_route(conn: &mut PgConnection, route: &str, at: i64) -> Vec<Job> {
    claim(conn, &claim_of(route), Some(START + at))
        .await
        .unwrap()
}
