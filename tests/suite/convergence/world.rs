//! Users, their devices, their conversations, and what happens to them.

use homing::domain::ids::ConversationId;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{client::Client, truth};
use crate::harness::TestBroker;

const USERS: [&str; 6] = ["ann", "ben", "cleo", "dan", "eve", "fay"];
const DEVICES_EACH: usize = 4;
const CONVERSATIONS: usize = 5;

pub(super) struct World {
    broker: TestBroker,
    rng: StdRng,
    clients: Vec<Client>,
    conversations: Vec<ConversationId>,
    said: usize,
    seed: u64,
}

impl World {
    pub(super) async fn new(pool: &PgPool, mut rng: StdRng, seed: u64) -> Self {
        let broker = TestBroker::start(pool).await;
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
            rng,
            clients: USERS.iter().flat_map(|&user| devices(user)).collect(),
            conversations,
            said: 0,
            seed,
        }
    }

    /// A change of what is stored, and something that happens to some devices.
    pub(super) async fn step(&mut self) {
        self.change().await;
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
            0..10 => (
                Method::POST,
                user,
                messages,
                json!({"id": said, "body": said, "mentions": [other]}),
            ),
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
            }
        }
    }

    pub(super) async fn end(self) {
        drop(self.clients);
        self.broker.stop().await;
    }
}
