//! Users, their devices, their conversations, and what happens to them.

use homing::{client::cache::Members, domain::ids::ConversationId};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{client::Client, truth};
use crate::harness::{TestBroker, until};

const USERS: [&str; 6] = ["ann", "ben", "cleo", "dan", "eve", "fay"];
const DEVICES_EACH: usize = 4;
const CONVERSATIONS: usize = 5;

/// Nothing expires before the test says so.
const LATER: i64 = 4_000_000_000_000;
/// What is over now, and what is still to be done about it.
const DUE: &str = "
    select (select count(*) from messages m where m.expires_at <= now() and m.content_format >= 0)
         + (select count(*) from messages m join conversations c using (conversation_id)
            where c.retention_seconds is not null and m.content_format >= 0
              and m.created_at < now() - interval '1 hour')
         + (select count(*) from participants p
            where p.left_seq is null and p.archived_seq is not null and p.muted_until <= now())";

pub(super) struct World {
    broker: TestBroker,
    pool: PgPool,
    rng: StdRng,
    clients: Vec<Client>,
    conversations: Vec<ConversationId>,
    said: usize,
    seed: u64,
}

impl World {
    pub(super) async fn new(pool: &PgPool, mut rng: StdRng, seed: u64) -> Self {
        let settings = [("message.erase_interval", "10ms")];
        let broker = TestBroker::start_with(pool, &settings).await;
        let mut conversations = Vec::new();
        for place in 0..CONVERSATIONS {
            let depth = [None, Some(0), Some(3)].choose(&mut rng).copied().flatten();
            let body = json!({
                "participants": USERS, "kind": "group", "title": format!("{seed}-{place}"),
                "history_depth": depth,
            });
            let (status, created) = broker.rest(Method::POST, "ann", "", Some(body)).await;
            assert_eq!(status, 201, "{created}");
            conversations.push(created["id"].as_str().unwrap().parse().unwrap());
        }
        let devices = |user| (0..DEVICES_EACH).map(move |device| Client::new(user, device));
        Self {
            broker,
            pool: pool.clone(),
            rng,
            clients: USERS.iter().flat_map(|&user| devices(user)).collect(),
            conversations,
            said: 0,
            seed,
        }
    }

    /// A change of what is stored, and something that happens to some devices.
    pub(super) async fn step(&mut self) {
        if self.rng.random_ratio(1, 8) {
            self.pass_time().await;
        } else {
            self.change().await;
        }
        for _ in 0..4 {
            self.disturb().await;
        }
    }

    async fn change(&mut self) {
        let user = *USERS.choose(&mut self.rng).unwrap();
        let id = *self.conversations.choose(&mut self.rng).unwrap();
        let other = *USERS.choose(&mut self.rng).unwrap();
        let seq = self.rng.random_range(1..40);
        let is_so = self.rng.random_bool(0.5);
        self.said += 1;
        let said = format!("m{}", self.said);
        let messages = format!("/{id}/messages");
        let inbox = format!("/{id}/inbox");
        let participant = format!("/{id}/participants/{other}");
        let (method, user, path, body) = match self.rng.random_range(0..24) {
            0..10 => {
                let mut body = json!({"id": said, "body": said, "mentions": [other]});
                if is_so {
                    body["expires_at"] = LATER.into();
                }
                (Method::POST, user, messages, body)
            }
            10 | 11 => (
                Method::POST,
                user,
                messages,
                json!({"id": said, "type": "edit", "ref": seq, "body": said}),
            ),
            12 => (
                Method::POST,
                user,
                messages,
                json!({"id": said, "type": "retract", "ref": seq}),
            ),
            13..16 => {
                let key = *["+", "-"].choose(&mut self.rng).unwrap();
                let body = json!({"id": said, "type": "reaction", "ref": seq, "body": {"key": key, "remove": is_so}});
                (Method::POST, user, messages, body)
            }
            16 | 17 => (
                Method::PUT,
                user,
                format!("/{id}/receipts"),
                json!({"read": seq}),
            ),
            18 => (Method::PATCH, user, inbox, json!({"pinned": is_so})),
            19 => (
                Method::PATCH,
                user,
                inbox,
                json!({"archived": is_so, "muted_until": if is_so { json!("forever") } else { Value::Null }}),
            ),
            20 => (
                Method::PATCH,
                "ann",
                format!("/{id}"),
                json!({"title": said}),
            ),
            21 if other != "ann" => (Method::DELETE, "ann", participant, json!(null)),
            22 if other != "ann" && user != "ann" => {
                let body = json!({"from": [other], "to": [user]});
                (Method::POST, "ann", format!("/{id}/transfer"), body)
            }
            _ if other != "ann" => (
                Method::PUT,
                "ann",
                participant,
                json!({"role": if is_so { "member" } else { "admin" }}),
            ),
            _ => return,
        };
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = self.broker.rest(method.clone(), user, &path, body).await;
        assert!(status.as_u16() < 500, "{method} {path}: {status} {answer}");
    }

    /// Time is over for something: a message, the oldest entries, a mute.
    async fn pass_time(&mut self) {
        let id = *self.conversations.choose(&mut self.rng).unwrap();
        let seq: i64 = self.rng.random_range(1..40);
        let statement = match self.rng.random_range(0..8) {
            0..5 => {
                "update messages set expires_at = now()
                 where conversation_id = $1 and expires_at is not null and seq <= $2"
            }
            5 => {
                "with kept as (
                     update conversations set retention_seconds = 3600 where conversation_id = $1
                 )
                 update messages set created_at = now() - interval '2 hours'
                 where conversation_id = $1 and seq <= $2 / 4"
            }
            _ => {
                "update participants set muted_until = now()
                 where conversation_id = $1 and muted_until is not null and $2 > 0"
            }
        };
        let update = sqlx::query(statement).bind(id.0).bind(seq);
        update.execute(&self.pool).await.unwrap();
    }

    async fn disturb(&mut self) {
        let place = self.rng.random_range(0..self.clients.len());
        let id = *self.conversations.choose(&mut self.rng).unwrap();
        let (client, rng, broker) = (&mut self.clients[place], &mut self.rng, &self.broker);
        match rng.random_range(0..12) {
            0..3 => client.connect(broker).await,
            3 => client.lose_connection(),
            4..7 => client.pull(rng).await,
            7 => client.fetch_inbox(broker).await,
            8 => client.fetch_thread(broker, id).await,
            9 => client.fetch_changes(broker, id).await,
            _ => client.apply_some(rng),
        }
    }

    pub(super) async fn settle(&mut self) {
        until("what is over is erased", async || {
            let due = sqlx::query_scalar::<_, i64>(DUE).fetch_one(&self.pool);
            due.await.unwrap() == 0
        })
        .await;
        for client in &mut self.clients {
            client.settle(&self.broker, &mut self.rng).await;
        }
    }

    /// Compares every device with the tables.
    pub(super) async fn check(&self, pool: &PgPool) {
        for client in &self.clients {
            let place = format!("seed {}, {}", self.seed, client.user);
            let rows = truth::rows(pool, &client.user).await;
            let shown = client.inbox.rows();
            let mut ids: Vec<_> = shown.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            assert_eq!(ids, rows.keys().copied().collect::<Vec<_>>(), "{place}");
            for (id, row) in shown {
                for (name, expected) in &rows[&id] {
                    assert_eq!(
                        row.fields.get(name),
                        Some(expected),
                        "{place}: `{name}` of {id}: {row:?}"
                    );
                }
                let first_seq = row.fields["first_seq"].as_i64().unwrap();
                let thread: Vec<_> = client.threads[&id]
                    .messages()
                    .filter(|message| message["seq"].as_i64() >= Some(first_seq))
                    .cloned()
                    .collect();
                let expected = truth::thread(pool, id, &client.user).await;
                assert_eq!(thread, expected, "{place}: thread of {id}");
                let is_message =
                    |entry: &&Members| !entry["type"].as_str().unwrap().starts_with("homing.");
                let newest = expected.iter().rfind(is_message);
                let last = &row.fields["last_message"];
                for (name, said) in [("seq", "seq"), ("preview", "body"), ("expired", "expired")] {
                    let said = newest.and_then(|newest| newest.get(said));
                    let shown = last
                        .get(name)
                        .filter(|shown| !shown.is_null() && **shown != json!(false));
                    assert_eq!(shown, said, "{place}: `{name}` of the last message of {id}");
                }
            }
        }
    }

    pub(super) async fn end(self) {
        drop(self.clients);
        self.broker.stop().await;
    }
}
