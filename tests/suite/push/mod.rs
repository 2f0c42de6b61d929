//! The push gateway, from the message to the provider: a real broker, a real Postgres, and
//! providers that are stricter than the real ones.
//!
//! ```text
//!   away, connected, elsewhere   who is woken, and when
//!   rules                        what is not pushed, or later
//!   transfer                     a conversation that changes hands
//!   forms                        what a notification looks like
//!   apps                         several apps and providers side by side
//!   refusals, outages, breaker   what goes wrong at a provider
//!   restarts                     what goes wrong here
//!   metrics                      what is counted
//! ```
//!
//! Nothing waits for hours: [`Stage::pass`] lets them pass in the store. That nothing leaves
//! is known once everything is decided ([`Stage::settle`]).

mod apps;
mod away;
mod breaker;
mod connected;
mod elsewhere;
mod forms;
mod metrics;
mod outages;
mod refusals;
mod restarts;
mod rules;
mod transfer;

use std::{fmt::Write as _, fs};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};
use tempfile::TempDir;

use crate::{
    harness::{Place, TestBroker, until},
    providers::{APP, Accepted, PROJECT, Providers, Subscription},
};

/// What differs from the defaults in every test: who is away is woken at once; whoever is
/// connected has an hour, or two while another device is active.
const SETTINGS: [(&str, &str); 8] = [
    ("push.grace_offline", "20ms"),
    ("push.grace_connected", "1h"),
    ("push.grace_elsewhere", "2h"),
    ("push.repeat_interval", "0s"),
    ("push.poll_interval", "20ms"),
    ("push.retry_min", "50ms"),
    ("push.retry_max", "100ms"),
    ("store.connections_max", "8"),
];

/// A broker that pushes through fake providers, and a conversation of alice, bob and carol.
struct Stage {
    broker: TestBroker,
    providers: Providers,
    pool: PgPool,
    conversation: String,
    /// Of the keys.
    folder: TempDir,
}

/// The providers, and the profile of a broker that pushes through them.
struct Fakes {
    providers: Providers,
    profile: String,
    folder: TempDir,
}

impl Fakes {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let providers = Providers::start(folder.path()).await;
        Self {
            profile: fs::read_to_string(folder.path().join("push.toml")).unwrap(),
            providers,
            folder,
        }
    }
}

impl Stage {
    async fn set(pool: PgPool) -> Self {
        Self::set_with(pool, &[]).await
    }

    async fn set_with(pool: PgPool, settings: &[(&str, &str)]) -> Self {
        Self::of(pool, Fakes::start().await, settings).await
    }

    /// With a profile of the test's making.
    async fn of(pool: PgPool, fakes: Fakes, settings: &[(&str, &str)]) -> Self {
        let settings = [&SETTINGS[..], settings].concat();
        let place = Place::new(&pool, &settings).with_profile(&fakes.profile);
        let broker = place.start().await;
        Self {
            conversation: broker.conversation(&["alice", "bob", "carol"]).await,
            broker,
            providers: fakes.providers,
            pool,
            folder: fakes.folder,
        }
    }

    /// Another broker on the same database.
    async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    /// Another broker on the same database, with settings that were changed meanwhile.
    async fn restart_with(self, change: impl FnOnce(&mut Place)) -> Self {
        let mut place = self.broker.stop().await;
        change(&mut place);
        Self {
            broker: place.start().await,
            ..self
        }
    }

    async fn stop(self) {
        self.broker.stop().await;
    }

    /// A request that must be answered well.
    async fn put(&self, user: &str, path: &str, body: Value) {
        let done = self.broker.request(Method::PUT, user, path, Some(body));
        let (status, body) = done.await;
        assert!(status.is_success(), "{path}: {status} {body}");
    }

    /// Likewise, without a body.
    async fn delete(&self, user: &str, path: &str) {
        let (status, body) = self.broker.request(Method::DELETE, user, path, None).await;
        assert!(status.is_success(), "{path}: {status} {body}");
    }

    /// Where a device can be woken.
    async fn register(&self, user: &str, client_id: &str, token: Value) {
        let path = format!("/v1/devices/{client_id}/push-token");
        self.put(user, &path, token).await;
    }

    /// Registers with APNs; answers the token.
    async fn apns(&self, user: &str, client_id: &str) -> String {
        let token = apns_token(user, client_id);
        self.register(user, client_id, apns(&token)).await;
        token
    }

    /// Registers with FCM; answers the token.
    async fn fcm(&self, user: &str, client_id: &str) -> String {
        let token = format!("{user}-{client_id}");
        let body = json!({"provider": "fcm", "app": PROJECT, "token": token});
        self.register(user, client_id, body).await;
        token
    }

    /// Registers with Web Push; answers what can read it.
    async fn web(&self, user: &str, client_id: &str, locale: &str) -> Subscription {
        let subscription = self.providers.subscribe(&format!("{user}-{client_id}"));
        let body = json!({
            "provider": "webpush", "app": APP, "token": subscription.endpoint,
            "p256dh": subscription.p256dh, "auth": subscription.auth, "locale": locale,
        });
        self.register(user, client_id, body).await;
        subscription
    }

    /// Alice says something; answers its sequence.
    async fn say(&self, id: &str) -> i64 {
        self.say_with(id, json!({})).await
    }

    /// Alice says something with these members; answers its sequence.
    async fn say_with(&self, id: &str, members: Value) -> i64 {
        self.say_in(&self.conversation, id, members).await
    }

    async fn say_in(&self, conversation: &str, id: &str, members: Value) -> i64 {
        let mut message = json!({"id": id, "body": format!("secret {id}")});
        let given = members.as_object().unwrap().clone();
        message.as_object_mut().unwrap().extend(given);
        let path = format!("/{conversation}/messages");
        let sent = self
            .broker
            .rest(Method::POST, "alice", &path, Some(message));
        let (status, body) = sent.await;
        body["seq"]
            .as_i64()
            .unwrap_or_else(|| panic!("{status} {body}"))
    }

    async fn read(&self, user: &str, sequence: i64) {
        let path = format!("/v1/conversations/{}/receipts", self.conversation);
        self.put(user, &path, json!({"read": sequence})).await;
    }

    async fn change_notifications(&self, user: &str, change: Value) {
        let path = format!("/v1/conversations/{}/notifications", self.conversation);
        self.put(user, &path, change).await;
    }

    /// Lets hours pass for everything that is stored. Call it when everything is settled.
    async fn pass(&self, hours: i32) {
        let mut tx = self.pool.begin().await.unwrap();
        for change in [
            "push_jobs set due_at = due_at - $1, committed_at = committed_at - $1,
                 pushed_at = pushed_at - $1, claimed_at = claimed_at - $1,
                 expires_at = expires_at - $1, next_expires_at = next_expires_at - $1,
                 next_committed_at = next_committed_at - $1",
            "push_tokens set registered_at = registered_at - $1, dead_since = dead_since - $1,
                 budget_at = budget_at - $1, background_at = background_at - $1",
            "push_attempts set committed_at = committed_at - $1,
                 claimed_at = claimed_at - $1, decided_at = decided_at - $1",
            "participants set muted_until = muted_until - $1",
            "sessions set connected_at = connected_at - $1",
            "messages set created_at = created_at - $1",
            "outbox set created_at = created_at - $1",
        ] {
            let change = change.replace("$1", "make_interval(hours => $1)");
            let change = sqlx::AssertSqlSafe(format!("update {change}"));
            sqlx::query(change)
                .bind(hours)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Waits until all messages are judged whose grace is over, and no job is due or at work.
    async fn settle(&self) {
        let is_settled =
            "select (select count(*) = 2 from outbox_consumers where name like 'push-%')
            and not exists (
                select from outbox o join outbox_consumers c on (o.xid, o.id) > (c.xid, c.id)
                where c.name = 'push-early'
                   or c.name = 'push-late' and o.created_at < now() - interval '1 hour'
            ) and not exists (select from push_jobs where due_at < now() + interval '1 minute')";
        until("the end of all decisions", async || {
            let settled = sqlx::query_scalar(is_settled).fetch_one(&self.pool).await;
            settled.unwrap()
        })
        .await;
    }

    /// Keeps all passes from what is committed from now on, until the transaction ends: they
    /// never read on beyond one that is open.
    async fn hold(&self) -> Transaction<'static, Postgres> {
        let mut tx = self.pool.begin().await.unwrap();
        let begin = sqlx::query("select pg_current_xact_id()");
        begin.execute(&mut *tx).await.unwrap();
        tx
    }

    /// Waits until so many notifications were accepted for a token; answers them.
    async fn pushed(&self, token: &str, count: usize) -> Vec<Accepted> {
        let what = format!("{count} notifications for {token}");
        self.providers
            .until(&what, |seen| {
                let accepted = of(&seen.accepted, token);
                (accepted.len() >= count).then_some(accepted)
            })
            .await
    }

    /// What was accepted for a token so far.
    fn seen(&self, token: &str) -> Vec<Accepted> {
        of(&self.providers.seen().accepted, token)
    }

    /// What became of a message on the devices of a user, each decision as in
    /// `phone sent`, `phone cancelled read`, `phone waits armed`, `phone own_message`.
    async fn ledger(&self, user: &str, sequence: i64) -> Vec<String> {
        let mut lines = Vec::new();
        for device in self.explain(user, sequence).await {
            let client_id = device["client_id"].as_str().unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            for decision in device["decisions"].as_array().unwrap() {
                let (outcome, reason) = (text(&decision["outcome"]), text(&decision["reason"]));
                let is_clear = decision["kind"] == "clear";
                let kind = if is_clear { "clear " } else { "" };
                let line = format!("{client_id} {kind}{outcome} {reason}");
                lines.push(line.trim_end().to_owned());
            }
            if !device["waiting"].is_null() {
                let state = text(&device["waiting"]["state"]);
                let postponed = text(&device["waiting"]["postponed"]);
                let line = format!("{client_id} waits {state} {postponed}");
                lines.push(line.trim_end().to_owned());
            }
            if !device["silence"].is_null() {
                lines.push(format!("{client_id} {}", text(&device["silence"])));
            }
        }
        lines
    }

    /// What REST says became of a message, for each device.
    async fn explain(&self, user: &str, sequence: i64) -> Vec<Value> {
        let path = format!("/{}/messages/{sequence}/pushes", self.conversation);
        let (status, body) = self.broker.rest(Method::GET, user, &path, None).await;
        let devices = body["devices"].as_array();
        devices.unwrap_or_else(|| panic!("{status} {body}")).clone()
    }
}

fn of(accepted: &[Accepted], token: &str) -> Vec<Accepted> {
    let of_token = accepted.iter().filter(|accepted| accepted.token == token);
    of_token.cloned().collect()
}

/// A registration with APNs.
fn apns(token: &str) -> Value {
    json!({"provider": "apns", "app": APP, "token": token})
}

/// Hexadecimal, the same for the same device.
fn apns_token(user: &str, client_id: &str) -> String {
    let mut hex = String::new();
    for byte in format!("{user}/{client_id}").bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    format!("{hex:0>64}")
}

/// The message that a notification of APNs tells of, and the number on the icon.
fn told(accepted: &Accepted) -> (i64, i64) {
    let payload = &accepted.payload;
    let badge = payload["aps"]["badge"].as_i64().unwrap_or(-1);
    (payload["homing"]["seq"].as_i64().unwrap(), badge)
}
