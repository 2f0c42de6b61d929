//! What a fresh device transfers until it shows its inbox and a thread, however large the account.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use homing::{
    domain::{
        cbor::{self, Document},
        ids::{ClientMessageId, ConversationId, Subject, UserId},
        message::{Content, NewMessage},
    },
    store::{
        MIGRATOR,
        conversations::{self, Kind, NewConversation, Role},
        messages,
        users::ensure,
    },
};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::harness::{Delivery, TestBroker, Wire, text, within};

/// Rows of a page, and messages of a thread.
const SHOWN: usize = 50;
/// 54 characters.
const BODY: &str = "\"Shall we meet at the station at nine, or a bit later?\"";

/// Passes bytes on and counts them, both ways.
struct Meter {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Meter {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let counted = bytes.clone();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(target).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                ways.spawn(pass(near.0, far.1, counted.clone()));
                ways.spawn(pass(far.0, near.1, counted.clone()));
            }
        });
        Self {
            address,
            bytes,
            _tasks: tasks,
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(count as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Requests, and bytes both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    requests: u64,
    bytes: u64,
}

/// A user with so many conversations of two messages each, both unread; the newest has a long
/// thread.
async fn account(pool: &PgPool, name: &str, conversation_count: usize) -> ConversationId {
    let mut tx = pool.begin().await.unwrap();
    let names = [name, "bob"].map(|name| Subject::new(name).unwrap());
    let users = ensure(&mut tx, &names).await.unwrap();
    let bob = (users[1], names[1].clone());
    let mut newest = ConversationId::random();
    for batch in (0..conversation_count).collect::<Vec<_>>().chunks(250) {
        let mut said = Vec::new();
        for _ in batch {
            newest = ConversationId::random();
            let new = NewConversation {
                id: newest,
                kind: Kind::Group,
                title: Some("Trip to Rome".to_owned()),
                history_depth: Some(0),
                participants: users.iter().map(|user| (*user, Role::Member)).collect(),
            };
            conversations::create(&mut tx, &new).await.unwrap();
            said.extend((0..2).map(|number| message(newest, &bob, number)));
        }
        messages::append_batch(&mut tx, &said).await.unwrap();
    }
    let thread: Vec<_> = (2..100)
        .map(|number| message(newest, &bob, number))
        .collect();
    messages::append_batch(&mut tx, &thread).await.unwrap();
    // Long ago: nobody is to be told of it.
    sqlx::query("delete from outbox")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    newest
}

fn message(conversation: ConversationId, sender: &(UserId, Subject), number: u32) -> NewMessage {
    let id = format!("0198f3c2-0000-7000-8000-{number:012}");
    NewMessage {
        conversation,
        sender: sender.0,
        sender_name: sender.1.clone(),
        sender_device: None,
        content: Content::new(ClientMessageId::new(id).unwrap(), "text", BODY),
    }
}

fn check(inbox: &Value, thread: &Value, conversation_count: usize) {
    let rows = inbox["conversations"].as_array().unwrap();
    assert_eq!(rows.len(), conversation_count.min(SHOWN));
    assert_eq!(rows[1]["unread"], 2, "{}", rows[1]);
    assert_eq!(thread["messages"].as_array().unwrap().len(), SHOWN);
}

/// CONNECT, SUBSCRIBE, and a request for each of the two, all of it acknowledged.
async fn over_mqtt(
    broker: &TestBroker,
    user: &str,
    open: ConversationId,
    conversation_count: usize,
    format: &str,
) -> Cost {
    let meter = Meter::to(broker.mqtt()).await;
    let property = [&[0x26][..], &text("format"), &text(format)].concat();
    let mut wire = Wire::open(meter.address).await;
    let connack = wire
        .connect(broker.v5(user, "phone-0001").property(&property))
        .await;
    assert_eq!(connack.properties.user("format"), Some(format));
    assert_eq!(wire.subscribe(&["c/#", "me/#"]).await, [1, 1]);
    let inbox = ask(&mut wire, "q/inbox", &json!({}), format).await;
    let wanted = json!({"conversation": open});
    let thread = ask(&mut wire, "q/thread", &wanted, format).await;
    check(&inbox, &thread, conversation_count);
    Cost {
        requests: 4,
        bytes: meter.bytes(),
    }
}

async fn ask(wire: &mut Wire, topic: &str, arguments: &Value, format: &str) -> Value {
    let mut payload = arguments.to_string().into_bytes();
    if format == "cbor" {
        payload = cbor::from_json(&payload, Document::on(topic));
    }
    wire.publish(topic, &payload).await;
    let answer = wire.delivery().await;
    wire.puback().await;
    let answer = read(&answer, format);
    assert_eq!(answer["status"], 200, "{answer}");
    answer["body"].clone()
}

fn read(delivery: &Delivery, format: &str) -> Value {
    if format == "json" {
        return delivery.json();
    }
    let json = cbor::to_json(&delivery.payload, Document::on(&delivery.topic)).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// Two requests over one connection.
async fn over_rest(
    broker: &TestBroker,
    user: &str,
    open: ConversationId,
    conversation_count: usize,
) -> Cost {
    let meter = Meter::to(broker.http()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut bodies = Vec::new();
    for path in ["inbox".to_owned(), format!("conversations/{open}/thread")] {
        let request = client
            .get(format!("http://{}/v1/{path}", meter.address))
            .header(ACCEPT_ENCODING, "gzip")
            .bearer_auth(broker.token(user));
        let answer = within("an answer", request.send()).await.unwrap();
        assert_eq!(answer.status(), 200);
        // What is asked for over REST is as long as it is; a proxy may compress it.
        assert_eq!(answer.headers().get(CONTENT_ENCODING), None);
        bodies.push(serde_json::from_str(&answer.text().await.unwrap()).unwrap());
    }
    check(&bodies[0], &bodies[1], conversation_count);
    Cost {
        requests: 2,
        bytes: meter.bytes(),
    }
}

/// Goal: what a fresh device needs has a bound, and is the same for an account of any size.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_fresh_device_costs_the_same_whatever_the_account_holds(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut costs = Vec::new();
    // Names of one length.
    for (user, count) in [("alice", 10), ("alina", SHOWN + 1), ("alfie", 5_000)] {
        let open = account(&pool, user, count).await;
        let cost = [
            over_mqtt(&broker, user, open, count, "json").await,
            over_mqtt(&broker, user, open, count, "cbor").await,
            over_rest(&broker, user, open, count).await,
        ];
        eprintln!("{count} conversations: MQTT with JSON, with CBOR, REST: {cost:?}");
        costs.push(cost);
    }
    let [small, page, large] = costs[..] else {
        panic!("{costs:?}")
    };
    for (place, bytes_max) in [(0, 41_000), (1, 18_500), (2, 41_500)] {
        assert_eq!(large[place], page[place]);
        assert_eq!(small[place].requests, large[place].requests);
        assert!(small[place].bytes < large[place].bytes);
        assert!(large[place].bytes <= bytes_max, "{:?}", large[place]);
    }
    broker.stop().await;
}
