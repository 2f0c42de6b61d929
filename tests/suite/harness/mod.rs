//! The product under test, and a device that says exactly what a test wants.
//!
//! ```text
//!   TestBroker   what `homing serve` starts, on free ports, with its own database and directory
//!   Wire         one connection of a device: bytes out, packets in, every wait has a deadline
//! ```

mod connect;
mod received;
mod wire;

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use homing::{
    bridge::identity::{NewToken, Secret, issue},
    config::{Config, Overrides},
    domain::ids::Subject,
    serve::{self, Running},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, PgPool};
use tempfile::TempDir;

pub(crate) use connect::{Connect, frame, text};
pub(crate) use received::{ConnAck, Delivery, Received};
pub(crate) use wire::{Wire, until, within};

/// Longer than anything here takes, even on a busy machine. It is waited out only by a test
/// that fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What differs from the defaults in every test.
const SETTINGS: [(&str, &str); 6] = [
    ("mqtt.listen", "127.0.0.1:0"),
    ("http.listen", "127.0.0.1:0"),
    ("shutdown_timeout", "25s"),
    ("store.connections_max", "4"),
    ("store.flush_interval", "50ms"),
    ("store.retry_max", "200ms"),
];

/// A broker that serves.
pub(crate) struct TestBroker {
    running: Running,
    place: Place,
    client: reqwest::Client,
}

/// What outlives a broker that is stopped and started again.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) settings: Vec<(String, String)>,
    /// A profile (TOML), for what the environment cannot say, such as the apps of `[push]`.
    pub(crate) profile: String,
    pub(crate) data_dir: TempDir,
}

impl Place {
    /// On the database of a test.
    pub(crate) fn new(pool: &PgPool, settings: &[(&str, &str)]) -> Self {
        let url = pool.connect_options().to_url_lossy().to_string();
        Self::at(url, settings)
    }

    pub(crate) fn at(url: String, settings: &[(&str, &str)]) -> Self {
        let settings = SETTINGS
            .iter()
            .chain(settings)
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self {
            url,
            settings,
            profile: String::new(),
            data_dir: tempfile::tempdir().unwrap(),
        }
    }

    /// With a profile, besides the settings.
    pub(crate) fn with_profile(self, toml: &str) -> Self {
        let profile = toml.to_owned();
        Self { profile, ..self }
    }

    /// Starts a broker here.
    pub(crate) async fn start(self) -> TestBroker {
        let start = Box::pin(serve::start(self.config()));
        let running = within("the start", start).await.unwrap();
        TestBroker {
            running,
            place: self,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// What a broker here is started with.
    pub(crate) fn config(&self) -> Config {
        let environment: HashMap<String, String> = self
            .settings
            .iter()
            .map(|(key, value)| {
                let name = key.to_uppercase().replace('.', "__");
                (format!("HOMING__{name}"), value.clone())
            })
            .collect();
        let overrides = Overrides {
            data_dir: Some(self.data_dir.path().to_owned()),
            database_url: Some(self.url.clone().into()),
        };
        let profile = self.data_dir.path().join("profile.toml");
        fs::write(&profile, &self.profile).unwrap();
        Config::load(Some(&profile), environment, overrides).unwrap()
    }
}

impl TestBroker {
    pub(crate) async fn start(pool: &PgPool) -> Self {
        Self::start_with(pool, &[]).await
    }

    /// With settings such as `("mqtt.receive_max", "2")`.
    pub(crate) async fn start_with(pool: &PgPool, settings: &[(&str, &str)]) -> Self {
        Place::new(pool, settings).start().await
    }

    /// Stops in order: in time, without a failure, and without a trace of a running broker.
    pub(crate) async fn stop(self) -> Place {
        let Self { running, place, .. } = self;
        running.stop();
        let deadline = Duration::from_secs(20);
        tokio::time::timeout(deadline, running.stopped())
            .await
            .expect("the stop took until its own deadline")
            .expect("a part failed");
        assert!(!place.data_dir.path().join("running.json").exists());
        place
    }

    pub(crate) async fn restart(self) -> Self {
        self.stop().await.start().await
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.running.mqtt
    }

    pub(crate) fn mqtts(&self) -> SocketAddr {
        self.running.mqtts.unwrap()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.running.http
    }

    /// A token that is good for an hour. `admin` may administrate.
    pub(crate) fn token(&self, user: &str) -> String {
        self.token_at(user, now_unix(), Duration::from_hours(1))
    }

    pub(crate) fn token_at(&self, user: &str, now_unix: u64, time_to_live: Duration) -> String {
        let new = NewToken {
            subject: &Subject::new(user).unwrap(),
            time_to_live,
            is_admin: user == "admin",
            issuer: None,
            audience: None,
        };
        let secret = Secret::open(self.place.data_dir.path()).unwrap();
        issue(&secret, &new, now_unix)
    }

    /// A connection that has said nothing yet.
    pub(crate) async fn open(&self) -> Wire {
        Wire::open(self.mqtt()).await
    }

    /// Connects with a CONNECT of the test's making, which must be accepted.
    pub(crate) async fn connect(&self, connect: Connect) -> (Wire, ConnAck) {
        let mut wire = self.open().await;
        let connack = wire.connect(connect).await;
        assert_eq!(connack.code, 0, "{connack:?}");
        (wire, connack)
    }

    /// A CONNECT of MQTT 5 whose session lasts.
    pub(crate) fn v5(&self, user: &str, client_id: &str) -> Connect {
        Connect::v5(client_id, &self.token(user)).expiry(3600)
    }

    /// A CONNECT of MQTT 3.1.1 whose session lasts.
    pub(crate) fn v3(&self, user: &str, client_id: &str) -> Connect {
        Connect::v3(client_id, user, &self.token(user))
    }

    /// A device of MQTT 5 with a session that lasts.
    pub(crate) async fn device(&self, user: &str, client_id: &str) -> Wire {
        self.connect(self.v5(user, client_id)).await.0
    }

    /// A device that receives all messages that its user may see, and no receipts.
    pub(crate) async fn listener(&self, user: &str, client_id: &str) -> Wire {
        let mut wire = self.device(user, client_id).await;
        assert_eq!(wire.subscribe(&["c/+/messages", "me/#"]).await, [1, 1]);
        wire
    }

    /// A request over REST about conversations: its status and its body, null if it has none.
    pub(crate) async fn rest(
        &self,
        method: Method,
        user: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let path = format!("/v1/conversations{path}");
        self.request(method, user, &path, body).await
    }

    /// A request over REST.
    pub(crate) async fn request(
        &self,
        method: Method,
        user: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.http());
        let mut request = self
            .client
            .request(method, url)
            .bearer_auth(self.token(user));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = within("a response", request.send()).await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Creates a conversation and answers its id.
    pub(crate) async fn conversation(&self, participants: &[&str]) -> String {
        let body = json!({"participants": participants, "kind": "group"});
        let (status, body) = self.rest(Method::POST, "admin", "", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// Adds a participant; answers the sequence of the entry that says so.
    pub(crate) async fn add(&self, conversation: &str, user: &str) -> i64 {
        self.change(Method::PUT, conversation, user).await
    }

    /// Removes a participant; answers the sequence of the entry that says so.
    pub(crate) async fn remove(&self, conversation: &str, user: &str) -> i64 {
        self.change(Method::DELETE, conversation, user).await
    }

    async fn change(&self, method: Method, conversation: &str, user: &str) -> i64 {
        let path = format!("/{conversation}/participants/{user}");
        let (_, body) = self.rest(method, "admin", &path, None).await;
        body["seq"].as_i64().unwrap_or_else(|| panic!("{body}"))
    }

    /// The whole log, as a participant may see it: (sequence, id).
    pub(crate) async fn log(&self, user: &str, conversation: &str) -> Vec<(i64, String)> {
        let path = format!("/{conversation}/messages?after=0&limit=200");
        let (_, body) = self.rest(Method::GET, user, &path, None).await;
        let entries = body["entries"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}"));
        entries
            .iter()
            .map(|entry| {
                (
                    entry["seq"].as_i64().unwrap(),
                    entry["id"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.http());
        let response = within("metrics", self.client.get(url).send()).await;
        response.unwrap().text().await.unwrap()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the broker under test looks at the same clock"
)]
pub(crate) fn now_unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
