//! Users, their devices, their conversations, and how they end up.

use homing::{
    client::cache::{Members, Row, Thread},
    domain::ids::ConversationId,
};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{client::Client, settle::Catching, stored, truth};
use crate::harness::{TestBroker, until};

pub(super) const USERS: [&str; 6] = ["ann", "ben", "cleo", "dan", "eve", "fay"];
pub(super) const DEVICES_EACH: usize = 4;
const CONVERSATIONS: usize = 5;
/// Changes that devices sleep through before they get in step.
const LAST_CHANGES: usize = 12;

/// Nothing expires before the test says so.
pub(super) const LATER: i64 = 4_000_000_000_000;
/// What is over now, and what is still to be done about it.
const DUE: &str = "
    select (select count(*) from messages m where m.expires_at <= now() and m.content_format >= 0)
         + (select count(*) from messages m join conversations c using (conversation_id)
            where c.retention_seconds is not null and m.content_format >= 0
              and m.created_at < now() - interval '1 hour')
         + (select count(*) from participants p
            where p.left_seq is null and p.archived_seq is not null and p.muted_until <= now())";

pub(super) struct World {
    pub(super) broker: TestBroker,
    pub(super) pool: PgPool,
    pub(super) rng: StdRng,
    pub(super) clients: Vec<Client>,
    pub(super) conversations: Vec<ConversationId>,
    pub(super) said: usize,
    seed: u64,
}

impl World {
    pub(super) async fn new(pool: &PgPool, mut rng: StdRng, seed: u64) -> Self {
        let settings = [
            ("message.erase_interval", "10ms"),
            ("limits.requests_per_second", "0"),
        ];
        let broker = TestBroker::start_with(pool, &settings).await;
        let mut bodies = vec![json!({"participants": ["ben"]})];
        for place in 0..CONVERSATIONS {
            let depth = [None, Some(0), Some(3)].choose(&mut rng).copied().flatten();
            bodies.push(json!({
                "participants": USERS, "kind": "group", "title": format!("{seed}-{place}"),
                "history_depth": depth,
            }));
        }
        let mut conversations = Vec::new();
        for body in bodies {
            let (status, created) = broker.rest(Method::POST, "ann", "", Some(body)).await;
            // Of ann and ben there is one direct conversation, which an earlier run has left.
            assert!(status == 201 || created["created"] == false, "{created}");
            conversations.push(created["id"].as_str().unwrap().parse().unwrap());
        }
        let devices = |user| (0..DEVICES_EACH).map(move |device| Client::new(user, device));
        Self {
            broker,
            pool: pool.clone(),
            rng,
            clients: USERS.iter().flat_map(|&user| devices(user)).collect(),
            conversations,
            // Other ids than those of the runs before: who repeats one says nothing new.
            said: usize::try_from(seed).unwrap() * 10_000,
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

    async fn disturb(&mut self) {
        let place = self.rng.random_range(0..self.clients.len());
        let id = *self.conversations.choose(&mut self.rng).unwrap();
        let (client, rng, broker) = (&mut self.clients[place], &mut self.rng, &self.broker);
        match rng.random_range(0..14) {
            0..3 => client.connect(broker).await,
            3 => client.lose_connection(),
            4..7 => client.pull(rng).await,
            7 => client.fetch_inbox(broker).await,
            8 => client.fetch_thread(broker, id).await,
            9 => client.fetch_changes(broker, id).await,
            10 | 11 => client.send_some(broker, rng).await,
            _ => client.apply_some(rng),
        }
    }

    /// Everything that was written is sent, time is over for what expires, and devices get in step.
    pub(super) async fn settle(&mut self) {
        for client in &mut self.clients {
            client.flush(&self.broker).await;
        }
        for _ in 0..LAST_CHANGES {
            self.change().await;
        }
        for client in &mut self.clients {
            client.flush(&self.broker).await;
        }
        let (catching, now_millis) = match self.seed % 2 {
            0 => (Catching::All, 0),
            _ => (Catching::Named, LATER),
        };
        if catching == Catching::Named {
            self.end_retention().await;
        }
        let expire = "update messages set expires_at = now()
                      where expires_at <= to_timestamp($1 / 1000.0)";
        sqlx::query(expire)
            .bind(now_millis)
            .execute(&self.pool)
            .await
            .unwrap();
        until("what is over is erased", async || {
            let due = sqlx::query_scalar::<_, i64>(DUE).fetch_one(&self.pool);
            due.await.unwrap() == 0
        })
        .await;
        for client in &mut self.clients {
            let (broker, rng) = (&self.broker, &mut self.rng);
            client.settle(broker, rng, catching, now_millis).await;
        }
        if catching == Catching::Named {
            self.begin_epoch().await;
        }
    }

    /// All but the newest of some entries is erased: devices that slept through them have a gap.
    async fn end_retention(&mut self) {
        let id = *self.conversations[1..].choose(&mut self.rng).unwrap();
        for body in [
            json!({"archived": false}),
            json!({"retention_seconds": 3600}),
            json!({"title": "one"}),
            json!({"title": "two"}),
        ] {
            let path = format!("/{id}");
            let changed = self.broker.rest(Method::PATCH, "ann", &path, Some(body));
            assert!(changed.await.0.is_success());
        }
        let age = "update messages m set created_at = now() - interval '2 hours'
                   from conversations c where c.conversation_id = m.conversation_id
                     and m.conversation_id = $1 and m.seq < c.last_seq";
        sqlx::query(age)
            .bind(id.0)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// The log begins a new epoch: no version tells, only reconciliation does.
    async fn begin_epoch(&mut self) {
        sqlx::query("update conversations set epoch = epoch + 1 where conversation_id = $1")
            .bind(self.conversations[0].0)
            .execute(&self.pool)
            .await
            .unwrap();
        for client in &mut self.clients {
            if ["ann", "ben"].contains(&client.user.as_str()) {
                let (broker, rng) = (&self.broker, &mut self.rng);
                client.settle(broker, rng, Catching::Named, LATER).await;
            }
        }
    }

    /// Compares every device with the tables.
    pub(super) async fn check(&self, pool: &PgPool) {
        for client in &self.clients {
            let place = format!("seed {}, {}", self.seed, client.name);
            let rows = truth::rows(pool, &client.user).await;
            let shown = client.inbox.rows();
            let ids: Vec<_> = shown.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, stored::order(pool, &client.user).await, "{place}");
            for (id, row) in shown {
                let mut fields = row.fields.clone();
                assert!(fields.remove("last_message").is_some(), "{place}: {id}");
                assert_eq!(fields, rows[&id], "{place}: {id}");
                let thread = truth::thread(pool, id, &client.user).await;
                check_thread(
                    &client.threads[&id],
                    row,
                    &thread,
                    &format!("{place}: {id}"),
                );
            }
            check_written(client, pool, &place).await;
        }
    }

    pub(super) async fn end(self) {
        drop(self.clients);
        for (user, other) in [("ann", "ben"), ("ben", "ann")] {
            let path = format!("/v1/me/blocks/{other}");
            let unblocked = self.broker.request(Method::DELETE, user, &path, None).await;
            assert_eq!(unblocked.0, 204, "{}", unblocked.1);
        }
        self.broker.stop().await;
    }
}

fn check_thread(thread: &Thread, row: &Row, expected: &[Members], place: &str) {
    assert_eq!(thread.gap(), None, "{place}");
    let first_seq = row.fields["first_seq"].as_i64().unwrap();
    let shown: Vec<_> = thread
        .messages()
        .filter(|message| message["seq"].as_i64() >= Some(first_seq))
        .cloned()
        .collect();
    assert_eq!(shown, expected, "{place}: thread");
    let is_message = |entry: &&Members| !entry["type"].as_str().unwrap().starts_with("homing.");
    let newest = expected.iter().rfind(is_message);
    let last = &row.fields["last_message"];
    let names = ["seq", "from", "at", "type", "retracted", "expired"].map(|name| (name, name));
    for (name, said) in names.into_iter().chain([("preview", "body")]) {
        let said = newest.and_then(|newest| newest.get(said));
        let shown = last.get(name);
        let shown = shown.filter(|shown| !shown.is_null() && **shown != json!(false));
        assert_eq!(shown, said, "{place}: `{name}` of the last message");
    }
}

/// What was written is stored, or shows as refused; a reaction may change nothing.
async fn check_written(client: &Client, pool: &PgPool, place: &str) {
    client.assert_done();
    for written in &client.written {
        let stored = stored::is_stored(pool, written.conversation, &client.user, &written.id);
        let has_failed = client.has_failed(&written.id);
        let is_right = stored.await != has_failed || (written.is_reaction && !has_failed);
        assert!(
            is_right,
            "{place}: {} of {}: shown as refused: {has_failed}",
            written.id, written.conversation
        );
    }
}
