//! Kill -9 of the broker and of its Postgres while people change things over REST.
//!
//! Goal: every change that was acknowledged is there, and each is there once, whatever is killed
//! when: messages, edits, reactions and retractions, participants that come and go, titles,
//! transfers, and conversations that are created under an idempotency key.
//! Method: everybody has something of their own to change, one step after the other, and repeats
//! each until it is answered, as a client does. In the end the log tells the steps in their order, and
//! inboxes and threads are what it leads to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use homing::client::backoff::Backoff;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    DEADLINE, VICTIMS,
    broker::Broker,
    device::{RETRY_MAX, RETRY_MIN},
    from_environment,
    load::token,
    rest::Rest,
    store, strike,
};

const ROUNDS: u32 = 10;
/// Answers between two kills, at most.
const ANSWERS_MAX: u64 = 80;
/// A server that died with a request may keep its key for a minute.
const FINISH: Duration = Duration::from_secs(150);
/// What a client is told to wait is waited for in steps.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Owns the group; the others are who change it, and whom it is about.
const OWNER: &str = "olga";
const GROUP: [&str; 6] = [OWNER, "rita", "ada", "tom", "paul", "emma"];
const HANDED: [&str; 2] = ["xena", "yves"];
const USERS: [&str; 11] = [
    OWNER, "rita", "ada", "tom", "paul", "emma", "cora", "dana", "xena", "yves", "zoe",
];

/// One who changes things.
#[derive(Clone)]
struct Actor {
    rest: Rest,
    user: &'static str,
    token: String,
    group: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    answers: watch::Sender<u64>,
    books: Mutex<Books>,
}

/// What was acknowledged.
#[derive(Default)]
struct Books {
    /// Messages and changes of them: id and sequence.
    sent: Vec<(String, i64)>,
    titles: u64,
    participations: u64,
    transfers: u64,
    /// Titles and ids of conversations.
    created: Vec<(String, String)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_made_once_whatever_is_killed() {
    let seed = from_environment("CRASH_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("CRASH_SEED={seed} CRASH_ROUNDS={rounds} of changes");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut broker = Broker::start().await;
    let shared = Arc::new(Shared::default());
    let mut actors = start(&broker, &shared).await;
    let began = Instant::now();
    for _ in 0..rounds {
        let wanted = *shared.answers.borrow() + rng.random_range(0..=ANSWERS_MAX);
        let mut answers = shared.answers.subscribe();
        let enough = answers.wait_for(|answers| *answers >= wanted);
        tokio::select! {
            enough = timeout(DEADLINE, enough) => drop(enough.unwrap().unwrap()),
            Some(actor) = actors.join_next() => panic!("{actor:?} before the end"),
        }
        let victim = VICTIMS[rng.random_range(0..VICTIMS.len())];
        strike(&mut broker, victim, rng.random()).await;
    }
    let took = began.elapsed() / rounds.max(1);
    shared.is_over.store(true, Ordering::SeqCst);
    let all = async {
        while let Some(actor) = actors.join_next().await {
            actor.unwrap();
        }
    };
    timeout(FINISH, all).await.expect("everything is answered");
    let pool = store::pool(&broker).await;
    let books = std::mem::take(&mut *shared.books.lock().unwrap());
    check(&pool, &books).await;
    pool.close().await;
    store::compare(&broker, &USERS).await;
    let answers = *shared.answers.borrow();
    eprintln!("{rounds} rounds of {took:.1?}: {answers} answers");
    broker.stop().await;
}

async fn start(broker: &Broker, shared: &Arc<Shared>) -> JoinSet<()> {
    let rest = Rest::new(broker.addresses());
    let actor = |user, group: &str| Actor {
        rest: rest.clone(),
        user,
        token: token(broker, user),
        group: group.to_owned(),
        shared: shared.clone(),
    };
    let members = [&GROUP[..], &HANDED[..1]].concat();
    let group = rest.create(&token(broker, OWNER), &members).await;
    let owner = actor(OWNER, &group);
    for admin in ["rita", "ada", "tom"] {
        let path = format!("/conversations/{group}/participants/{admin}");
        owner
            .ask(Method::PUT, &path, None, &json!({"role": "admin"}))
            .await;
    }
    let mut actors = JoinSet::new();
    actors.spawn(rename(actor("rita", &group)));
    actors.spawn(add_and_remove(actor("ada", &group)));
    actors.spawn(hand_over(actor("tom", &group)));
    actors.spawn(post(actor("paul", &group)));
    actors.spawn(say_and_change(actor("emma", &group)));
    actors.spawn(create(actor("cora", &group)));
    actors
}

impl Actor {
    /// Sends a request until it is answered.
    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: &Value) -> Value {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let what = (method.clone(), path);
            match self.rest.ask(what, &self.token, key, body).await {
                Ok(reply) if reply.status < 300 => {
                    self.shared.answers.send_modify(|answers| *answers += 1);
                    return reply.body;
                }
                // It is being worked on, perhaps by a server that is dead; or too fast.
                Ok(reply) if matches!(reply.status, 409 | 429) && reply.retry_after.is_some() => {
                    let wait = reply.retry_after.unwrap_or_default().min(WAIT_MAX);
                    tokio::time::sleep(wait).await;
                }
                Ok(reply) if reply.status < 500 => {
                    panic!("{}: {method} {path} {body}: {reply:?}", self.user)
                }
                Ok(_) | Err(_) => tokio::time::sleep(backoff.wait()).await,
            }
        }
    }

    /// In the group.
    fn path(&self, rest: &str) -> String {
        format!("/conversations/{}{rest}", self.group)
    }

    async fn send(&self, key: Option<&str>, message: &Value) -> i64 {
        let path = self.path("/messages");
        let answer = self.ask(Method::POST, &path, key, message).await;
        let sequence = answer["seq"].as_i64().unwrap();
        let id = message["id"].as_str().unwrap().to_owned();
        self.note(|books| books.sent.push((id, sequence)));
        sequence
    }

    fn note(&self, what: impl FnOnce(&mut Books)) {
        what(&mut self.shared.books.lock().unwrap());
    }

    /// What comes next, until it is over.
    fn steps(&self) -> impl Iterator<Item = u64> {
        let shared = self.shared.clone();
        (1..).take_while(move |_| !shared.is_over.load(Ordering::SeqCst))
    }
}

async fn rename(actor: Actor) {
    for step in actor.steps() {
        let body = json!({"title": format!("title-{step}")});
        actor.ask(Method::PATCH, &actor.path(""), None, &body).await;
        actor.note(|books| books.titles = step);
    }
}

async fn add_and_remove(actor: Actor) {
    let path = actor.path("/participants/zoe");
    for step in actor.steps() {
        let (method, body) = if step % 2 == 1 {
            (Method::PUT, json!({}))
        } else {
            (Method::DELETE, Value::Null)
        };
        actor.ask(method, &path, None, &body).await;
        actor.note(|books| books.participations = step);
    }
}

async fn hand_over(actor: Actor) {
    for step in actor.steps() {
        let (from, to) = handed(step);
        let body = json!({"from": [from], "to": [to]});
        let key = format!("handover-{step}");
        let path = actor.path("/transfer");
        actor.ask(Method::POST, &path, Some(&key), &body).await;
        actor.note(|books| books.transfers = step);
    }
}

fn handed(step: u64) -> (&'static str, &'static str) {
    let [first, second] = HANDED;
    if step % 2 == 1 {
        (first, second)
    } else {
        (second, first)
    }
}

async fn post(actor: Actor) {
    for step in actor.steps() {
        let key = format!("post-{step}");
        let message = json!({"id": format!("paul-{step}"), "body": step});
        let sequence = actor.send(Some(&key), &message).await;
        if step % 4 == 0 {
            assert_eq!(actor.send(Some(&key), &message).await, sequence);
        }
    }
}

/// A message is edited, reacted to, and every other one is retracted.
async fn say_and_change(actor: Actor) {
    for step in actor.steps() {
        let id = |what: &str| format!("emma-{what}-{step}");
        let said = json!({"id": id("say"), "body": format!("secret-{step}"), "mentions": ["paul"]});
        let target = actor.send(None, &said).await;
        let change = |kind: &str, what: &str, body: Value| json!({"id": id(what), "type": kind, "ref": target, "body": body});
        for change in [
            change("edit", "edit", json!(format!("secret again {step}"))),
            change("reaction", "give", json!({"key": "a"})),
            change("reaction", "keep", json!({"key": "b"})),
            change("reaction", "take", json!({"key": "a", "remove": true})),
        ] {
            actor.send(None, &change).await;
        }
        if step % 2 == 0 {
            let retract = json!({"id": id("retract"), "type": "retract", "ref": target});
            actor.send(None, &retract).await;
        }
    }
}

async fn create(actor: Actor) {
    for step in actor.steps() {
        let key = format!("create-{step}");
        let title = format!("made-{step}");
        let body = json!({"participants": ["dana"], "title": title});
        for _ in 0..if step % 4 == 0 { 2 } else { 1 } {
            let path = "/conversations";
            let answer = actor.ask(Method::POST, path, Some(&key), &body).await;
            let made = (title.clone(), answer["id"].as_str().unwrap().to_owned());
            actor.note(|books| books.created.push(made));
        }
    }
}

/// Everything that was acknowledged is there, where that was said, and once.
async fn check(pool: &PgPool, books: &Books) {
    let stored = "select client_message_id as id, seq from messages where type not like 'homing.%'";
    let rows = sqlx::query(stored).fetch_all(pool).await.unwrap();
    let mut stored: Vec<(String, i64)> = rows
        .iter()
        .map(|row| (row.get("id"), row.get("seq")))
        .collect();
    let mut sent = books.sent.clone();
    sent.sort_unstable();
    sent.dedup();
    stored.sort_unstable();
    assert_eq!(stored, sent, "messages and changes of them");

    let notices = "select convert_from(body, 'UTF8')::jsonb as body from messages
                   where type like 'homing.%' order by conversation_id, seq";
    let rows = sqlx::query(notices).fetch_all(pool).await.unwrap();
    let notices: Vec<Value> = rows.iter().map(|row| row.get("body")).collect();
    let told = |change: &str, member: &str| -> Vec<Value> {
        let told = notices.iter().filter(|body| body["change"] == change);
        told.map(|body| body[member].clone()).collect()
    };
    let titles = (1..=books.titles).map(|step| json!(format!("title-{step}")));
    assert_eq!(told("renamed", "title"), titles.collect::<Vec<_>>());
    let zoe = notices.iter().filter(|body| body["user"] == "zoe");
    let zoe: Vec<_> = zoe.map(|body| body["change"].clone()).collect();
    let comings = (1..=books.participations)
        .map(|step| json!(if step % 2 == 1 { "added" } else { "removed" }));
    assert_eq!(zoe, comings.collect::<Vec<_>>());
    let transfers = (1..=books.transfers).map(|step| json!([handed(step).1]));
    assert_eq!(told("transferred", "to"), transfers.collect::<Vec<_>>());

    let rows =
        sqlx::query("select title, conversation_id from conversations where title like 'made-%'");
    let rows = rows.fetch_all(pool).await.unwrap();
    let mut stored: Vec<(String, String)> = rows
        .iter()
        .map(|row| {
            let id = homing::domain::ids::ConversationId(row.get("conversation_id"));
            (row.get("title"), id.to_string())
        })
        .collect();
    let mut created = books.created.clone();
    created.sort_unstable();
    created.dedup();
    stored.sort_unstable();
    assert_eq!(stored, created, "conversations");
}
