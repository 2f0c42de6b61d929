//! REST, over real sockets: what it does, and how it refuses.

mod attachments;
mod conditions;
mod conversations;
mod documents;
mod events;
mod health;
mod idempotency;
mod limits;
mod links;
mod messages;
mod notifications;
mod push_tokens;
mod pushes;
mod quiet_hours;
mod receipts;
mod refusals;

use std::{
    collections::HashMap,
    io::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use homing::{
    api::{ApiState, Readiness, router},
    bridge::{
        Bridge, Parts,
        attachments::Attachments,
        identity::{Keys, NewToken, Secret, issue},
    },
    config::{Config, MessageConfig, Overrides},
    domain::ids::Subject,
    telemetry::metrics::Metrics,
};
use prometheus_client::registry::Registry;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

const PARTICIPANTS_MAX: usize = 4;

/// The bridge and the router behind a socket of its own; they end with this value.
struct Api {
    base: String,
    app: axum::Router,
    client: reqwest::Client,
    data_dir: TempDir,
    readiness: Readiness,
    _server: JoinSet<()>,
}

impl Api {
    async fn start(pool: PgPool) -> Self {
        Self::start_with(pool, &[]).await
    }

    /// With settings, as the environment would give them.
    async fn start_with(pool: PgPool, settings: &[(&str, &str)]) -> Self {
        let environment: HashMap<String, String> = settings
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let config = Config::load(None, environment, Overrides::default()).unwrap();
        Self::start_as(pool, config).await
    }

    /// With settings, as a profile gives them.
    async fn start_with_profile(pool: PgPool, toml: &str) -> Self {
        let mut profile = tempfile::NamedTempFile::new().unwrap();
        profile.write_all(toml.as_bytes()).unwrap();
        let config = Config::load(Some(profile.path()), HashMap::new(), Overrides::default());
        Self::start_as(pool, config.unwrap()).await
    }

    async fn start_as(pool: PgPool, config: Config) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let readiness = Readiness::default();
        let mut registry = Registry::default();
        let message = MessageConfig {
            participants_max: PARTICIPANTS_MAX,
            ..config.message.clone()
        };
        let parts = Parts {
            options: PgConnectOptions::clone(&pool.connect_options()),
            pool,
            store: config.store.clone(),
            inbox: config.inbox.clone(),
            message,
            conversation: config.conversation,
            attachments: Attachments::new(&config.attachments).unwrap(),
            push: config.push.clone(),
            presence: config.presence.clone(),
            limits: config.limits.clone(),
            metrics: Metrics::register(&mut registry).bridge,
            node: "test".to_owned(),
        };
        let (bridge, tasks) = Bridge::open(parts).await.unwrap();
        let mut server = JoinSet::new();
        let forever = CancellationToken::new();
        tasks.spawn(&forever, &forever, |_, task| drop(server.spawn(task)));
        let keys = Arc::new(Keys::load(&config.auth, data_dir.path()).unwrap());
        let ready = readiness.clone();
        let state = ApiState::new(bridge, keys, registry, ready, &config, forever.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = router(state);
        let routes = app.clone();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            base,
            app,
            client,
            data_dir,
            readiness,
            _server: server,
        }
    }

    /// A token that is good for an hour.
    fn token(&self, user: &str) -> String {
        self.issue(user, now_unix())
    }

    fn issue(&self, user: &str, now_unix: u64) -> String {
        let new = NewToken {
            subject: &Subject::new(user).unwrap(),
            time_to_live: Duration::from_hours(1),
            is_admin: user == "admin",
            issuer: None,
            audience: None,
        };
        issue(&Secret::open(self.data_dir.path()).unwrap(), &new, now_unix)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn get(&self, user: &str, path: &str) -> Answer {
        answer(
            self.request(Method::GET, path)
                .bearer_auth(self.token(user)),
        )
        .await
    }

    async fn delete(&self, user: &str, path: &str) -> Answer {
        answer(
            self.request(Method::DELETE, path)
                .bearer_auth(self.token(user)),
        )
        .await
    }

    async fn put(&self, user: &str, path: &str, body: Value) -> Answer {
        answer(
            self.request(Method::PUT, path)
                .bearer_auth(self.token(user))
                .json(&body),
        )
        .await
    }

    async fn post(&self, user: &str, path: &str, body: Value) -> Answer {
        answer(
            self.request(Method::POST, path)
                .bearer_auth(self.token(user))
                .json(&body),
        )
        .await
    }

    /// Creates a conversation and answers its path.
    async fn conversation(&self, user: &str, body: Value) -> String {
        let created = self.post(user, "/v1/conversations", body).await;
        assert_eq!(created.status, 201, "{}", created.body);
        format!("/v1/conversations/{}", created.body["id"].as_str().unwrap())
    }

    /// Sends one message and answers its sequence.
    async fn say(&self, user: &str, conversation: &str, id: &str) -> i64 {
        let message = json!({"id": id, "body": format!("says {user}")});
        let sent = self
            .post(user, &format!("{conversation}/messages"), message)
            .await;
        sent.body["seq"]
            .as_i64()
            .unwrap_or_else(|| panic!("{}", sent.body))
    }

    /// The sequences on a page of the log, and the page.
    async fn page(&self, user: &str, conversation: &str, query: &str) -> (Vec<i64>, Value) {
        let page = self
            .get(user, &format!("{conversation}/messages{query}"))
            .await;
        assert_eq!(page.status, 200, "{}", page.body);
        let entries = page.body["entries"].as_array().unwrap();
        (
            entries
                .iter()
                .map(|entry| entry["seq"].as_i64().unwrap())
                .collect(),
            page.body,
        )
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server under test looks at the same clock"
)]
fn now_unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What came back; the body is null if it is empty or no JSON.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
    text: String,
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_default();
    Answer {
        status,
        headers,
        body,
        text,
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// A refusal is a complete problem document, and its detail says what is asserted here.
    fn assert_problem(&self, status: u16, kind: &str, says: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:homing:problem:{kind}"));
        assert!(self.body["title"].is_string());
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{detail:?} does not say {says:?}");
    }
}
