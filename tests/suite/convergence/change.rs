//! What happens to conversations: what users write and set, who comes and goes, time that passes.

use homing::{client::cache::Thread, domain::ids::ConversationId};
use rand::{Rng as _, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{DEVICES_EACH, LATER, USERS, World};

impl World {
    pub(super) async fn change(&mut self) {
        let user = *USERS.choose(&mut self.rng).unwrap();
        let id = *self.conversations.choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..32) {
            0..19 => {
                let envelope = self.envelope(user, id);
                self.write(user, id, envelope).await;
            }
            19..24 => {
                let arguments = self.arguments();
                self.set(user, id, &arguments).await;
            }
            24 | 25 => self.pass_time(id).await,
            _ => self.administer(user, id).await,
        }
    }

    /// A message, or a change of one: most often of the user's own, if a device shows some.
    fn envelope(&mut self, user: &str, id: ConversationId) -> Value {
        let other = *USERS.choose(&mut self.rng).unwrap();
        let theirs = self.clients.iter().filter(|client| client.user == user);
        let threads = theirs.filter_map(|client| client.threads.get(&id));
        let own = threads.flat_map(Thread::messages);
        let own = own.filter(|message| message["from"] == user);
        let own: Vec<_> = own.filter_map(|message| message["seq"].as_i64()).collect();
        let own = own.choose(&mut self.rng).copied();
        let seq = own.filter(|_| self.rng.random_ratio(3, 4));
        let seq = seq.unwrap_or_else(|| self.rng.random_range(1..40));
        let is_so = self.rng.random_bool(0.5);
        self.said += 1;
        let said = format!("m{}", self.said);
        let mut envelope = match self.rng.random_range(0..16) {
            0..9 => json!({"id": said, "body": said, "mentions": [other]}),
            9 => json!({"id": said, "type": "blob", "bytes": "AAEC", "mentions": [other]}),
            10 | 11 => json!({"id": said, "type": "edit", "ref": seq, "body": said}),
            12 => json!({"id": said, "type": "retract", "ref": seq}),
            _ => {
                let key = *["+", "-"].choose(&mut self.rng).unwrap();
                let body = json!({"key": key, "remove": is_so});
                return json!({"id": said, "type": "reaction", "ref": seq, "body": body});
            }
        };
        if envelope["type"] == "edit" {
            match self.rng.random_range(0..4) {
                0 => envelope["mentions"] = json!([other]),
                1 => {
                    envelope.as_object_mut().unwrap().remove("body");
                    envelope["bytes"] = json!("AwQF");
                }
                _ => {}
            }
        } else if envelope["type"] != "retract" && is_so {
            envelope["expires_at"] = LATER.into();
        }
        envelope
    }

    /// On one of the user's devices, or by somebody who uses REST in their name.
    async fn write(&mut self, user: &str, id: ConversationId, envelope: Value) {
        if self.rng.random_ratio(1, 4) {
            let path = format!("/{id}/messages");
            return self.ask(Method::POST, user, &path, Some(envelope)).await;
        }
        let place = self.device(user);
        self.clients[place].write(id, &envelope);
    }

    /// What a user sets of a row of the inbox.
    fn arguments(&mut self) -> Value {
        let is_so = self.rng.random_bool(0.5);
        let until = if is_so { json!("forever") } else { Value::Null };
        match self.rng.random_range(0..5) {
            0 | 1 => json!({"read": self.rng.random_range(1..40)}),
            2 => json!({"pinned": is_so}),
            3 => json!({"archived": is_so}),
            _ => json!({"archived": is_so, "muted_until": until}),
        }
    }

    async fn set(&mut self, user: &str, id: ConversationId, arguments: &Value) {
        if self.rng.random_ratio(1, 4) {
            let path = format!("/{id}/inbox");
            let body = Some(arguments.clone());
            return self.ask(Method::PATCH, user, &path, body).await;
        }
        let place = self.device(user);
        self.clients[place].set(id, arguments);
    }

    fn device(&mut self, user: &str) -> usize {
        let place = USERS.iter().position(|name| *name == user).unwrap();
        place * DEVICES_EACH + self.rng.random_range(0..DEVICES_EACH)
    }

    /// Ann owns everything.
    async fn administer(&mut self, user: &str, id: ConversationId) {
        let other = *USERS[1..].choose(&mut self.rng).unwrap();
        let is_so = self.rng.random_bool(0.5);
        let participant = format!("/{id}/participants/{other}");
        let (method, path, body) = match self.rng.random_range(0..9) {
            0 => {
                let body = json!({"title": format!("t{}", self.said)});
                (Method::PATCH, format!("/{id}"), body)
            }
            1 => (Method::DELETE, participant, Value::Null),
            2 if user != "ann" => {
                let body = json!({"from": [other], "to": [user]});
                (Method::POST, format!("/{id}/transfer"), body)
            }
            3 => {
                let until = [json!(null), json!(LATER), json!("forever")];
                let body = json!({"until": until.choose(&mut self.rng).unwrap()});
                (Method::PUT, participant + "/silence", body)
            }
            4 => {
                let body = json!({"archived": self.rng.random_ratio(1, 3)});
                (Method::PATCH, format!("/{id}"), body)
            }
            5 => return self.block(is_so).await,
            _ => {
                let role = if is_so { "member" } else { "admin" };
                (Method::PUT, participant, json!({"role": role}))
            }
        };
        let body = (!body.is_null()).then_some(body);
        self.ask(method, "ann", &path, body).await;
    }

    /// Of the two who have a direct conversation one blocks the other, or not any more.
    async fn block(&mut self, is_so: bool) {
        let (user, other) = *[("ann", "ben"), ("ben", "ann")]
            .choose(&mut self.rng)
            .unwrap();
        let method = if is_so { Method::PUT } else { Method::DELETE };
        let path = format!("/v1/me/blocks/{other}");
        let (status, answer) = self.broker.request(method, user, &path, None).await;
        assert_eq!(status, 204, "{answer}");
    }

    /// Time is over for something: a message, the oldest entries, a mute, an epoch.
    async fn pass_time(&mut self, id: ConversationId) {
        let seq: i64 = self.rng.random_range(1..40);
        let statement = match self.rng.random_range(0..9) {
            0..5 => {
                "update messages set expires_at = now()
                 where conversation_id = $1 and expires_at is not null and seq <= $2"
            }
            5 => {
                let path = format!("/{id}");
                let body = Some(json!({"retention_seconds": 3600}));
                self.ask(Method::PATCH, "ann", &path, body).await;
                "update messages m set created_at = now() - interval '2 hours'
                 from conversations c where c.conversation_id = m.conversation_id
                   and m.conversation_id = $1 and c.retention_seconds is not null and seq <= $2 / 4"
            }
            6 => {
                "update conversations set epoch = epoch + 1
                 where conversation_id = $1 and $2 > 0"
            }
            _ => {
                "update participants
                 set muted_until = now(), own_version = own_version + 1, changed_at = now()
                 where conversation_id = $1 and muted_until is not null and $2 > 0"
            }
        };
        let update = sqlx::query(statement).bind(id.0).bind(seq);
        update.execute(&self.pool).await.unwrap();
    }

    async fn ask(&self, method: Method, user: &str, path: &str, body: Option<Value>) {
        let (status, answer) = self.broker.rest(method.clone(), user, path, body).await;
        assert!(status.as_u16() < 500, "{method} {path}: {status} {answer}");
    }
}
