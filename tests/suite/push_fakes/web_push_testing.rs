//! web-push-testing (npm): a push service and a browser that somebody else wrote; it decrypts.

use std::process::Stdio;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use super::{client::Stage, node, play};
use crate::harness::within;

/// Its server, until it is dropped; on plain HTTP, at `localhost`.
pub(crate) struct WebPushTesting {
    pub(crate) port: u16,
    http: reqwest::Client,
    _server: Child,
}

/// As a browser hands it to a web app.
pub(crate) struct Subscribed {
    pub(crate) endpoint: String,
    /// base64url, as `auth`.
    pub(crate) p256dh: String,
    pub(crate) auth: String,
    client_hash: String,
}

impl WebPushTesting {
    pub(crate) async fn start() -> Self {
        let mut server = node(
            "web_push_testing_server.js",
            "web-push-testing",
            &Value::Null,
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let line = within("the port", lines.next_line()).await.unwrap();
        Self {
            port: line.expect("it starts").parse().unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _server: server,
        }
    }

    /// With the public half of the key of the application server: 65 bytes.
    pub(crate) async fn subscribe(&self, vapid_public: &[u8]) -> Subscribed {
        let options = json!({
            "userVisibleOnly": "true",
            "applicationServerKey": URL_SAFE_NO_PAD.encode(vapid_public),
        });
        let data = self.ask("subscribe", &options).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Subscribed {
            endpoint: text(&data["endpoint"]),
            p256dh: text(&data["keys"]["p256dh"]),
            auth: text(&data["keys"]["auth"]),
            client_hash: text(&data["clientHash"]),
        }
    }

    /// The plain texts of what has come, in order.
    pub(crate) async fn notifications(&self, of: &Subscribed) -> Vec<String> {
        let data = self
            .ask(
                "get-notifications",
                &json!({ "clientHash": of.client_hash }),
            )
            .await;
        let texts = data["messages"].as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    /// From now on it answers 410.
    pub(crate) async fn expire(&self, subscribed: &Subscribed) {
        let path = format!("expire-subscription/{}", subscribed.client_hash);
        let request = self
            .http
            .post(format!("http://localhost:{}/{path}", self.port));
        let response = within(&path, request.send()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    async fn ask(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://localhost:{}/{path}", self.port);
        let response = within(path, self.http.post(url).json(body).send())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body: Value = response.json().await.unwrap();
        body["data"].clone()
    }
}

/// Goal: what a client by others sends, a service by others reads; and it tells a dead
/// subscription from a living one.
#[tokio::test]
async fn web_push_of_npm_is_read_by_web_push_testing() {
    let stage = Stage::set().await;
    let service = WebPushTesting::start().await;
    let key = &stage.providers.credentials().vapid_public;
    let (living, dead) = (service.subscribe(key).await, service.subscribe(key).await);
    service.expire(&dead).await;

    assert_eq!(
        send(&stage, &living.to_setting(), "hello, grüße").await,
        "201"
    );
    assert_eq!(send(&stage, &dead.to_setting(), "hello").await, "410");
    assert_eq!(service.notifications(&living).await, ["hello, grüße"]);
    assert!(service.notifications(&dead).await.is_empty());
}

/// Goal: the fake, strict as it is, refuses nothing that a client by others sends.
#[tokio::test]
async fn web_push_of_npm_is_read_by_the_fake() {
    let stage = Stage::set().await;
    let subscription = stage.providers.subscribe("browser");
    let setting = json!({
        "endpoint": subscription.endpoint,
        "keys": { "p256dh": subscription.p256dh, "auth": subscription.auth },
    });
    assert_eq!(send(&stage, &setting, "hello").await, "201");
    let accepted = stage.providers.wait_for(1).await;
    assert_eq!(
        subscription.decrypt(&accepted[0]).as_deref(),
        Some(b"hello".as_slice())
    );
    assert_eq!(
        (
            &*accepted[0].headers["urgency"],
            &*accepted[0].headers["topic"]
        ),
        ("high", "talk")
    );

    let gone = stage.providers.subscribe("fault-410-gone");
    let setting = json!({
        "endpoint": gone.endpoint,
        "keys": { "p256dh": gone.p256dh, "auth": gone.auth },
    });
    assert_eq!(send(&stage, &setting, "hello").await, "410");
}

impl Subscribed {
    fn to_setting(&self) -> Value {
        json!({
            "endpoint": self.endpoint,
            "keys": { "p256dh": self.p256dh, "auth": self.auth },
        })
    }
}

/// With web-push, and the VAPID key of the fake; the status of the answer.
async fn send(stage: &Stage, subscription: &Value, text: &str) -> String {
    let setting = json!({
        "subscription": subscription,
        "text": text,
        "vapidKey": stage.providers.credentials().vapid_key,
    });
    let mut command = node("web_push_story.js", "web-push", &setting);
    command.env("NODE_EXTRA_CA_CERTS", &stage.providers.credentials().ca);
    play(command).await.trim().to_owned()
}
