//! REST: conversations, messages sent without MQTT, and the log as it is stored.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::broker::Addresses;

const PAGE_ENTRIES: usize = 200;

#[derive(Clone)]
pub(crate) struct Rest {
    client: reqwest::Client,
    addresses: watch::Receiver<Addresses>,
}

/// An entry of the log, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sequence: i64,
    pub(crate) id: String,
}

/// An answer, whatever it says.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<std::time::Duration>,
    pub(crate) body: Value,
}

impl Rest {
    pub(crate) fn new(addresses: watch::Receiver<Addresses>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, addresses }
    }

    pub(crate) async fn create(&self, token: &str, users: &[&str]) -> String {
        let body = json!({ "participants": users, "kind": "group" }).to_string();
        let request = self.client.post(self.url("")).bearer_auth(token);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["id"]
            .as_str()
            .unwrap_or_else(|| panic!("an id, not {answer}"))
            .to_owned()
    }

    /// Registers where a device is woken.
    pub(crate) async fn put_push_token(&self, token: &str, device: &str, body: &Value) {
        let http = self.addresses.borrow().http;
        let url = format!("http://{http}/v1/devices/{device}/push-token");
        let request = self
            .client
            .put(url)
            .bearer_auth(token)
            .body(body.to_string());
        let request = request.header("content-type", "application/json");
        let answer = request.send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// The status and the sequence.
    pub(crate) async fn post(
        &self,
        token: &str,
        conversation: &str,
        message: &str,
    ) -> reqwest::Result<(u16, Option<i64>)> {
        let url = self.url(&format!("/{conversation}/messages"));
        let request = self
            .client
            .post(url)
            .bearer_auth(token)
            .body(message.to_owned());
        let answer = request
            .header("content-type", "application/json")
            .send()
            .await?;
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await?;
        Ok((status, answer["seq"].as_i64()))
    }

    /// What a GET of `/v1…` answers.
    pub(crate) async fn get(&self, token: &str, path: &str) -> reqwest::Result<Value> {
        let http = self.addresses.borrow().http;
        let request = self.client.get(format!("http://{http}/v1{path}"));
        let answer = request.bearer_auth(token).send().await?;
        answer.error_for_status()?.json().await
    }

    /// What is answered now, whatever it is.
    pub(crate) async fn ask(
        &self,
        (method, path): (reqwest::Method, &str),
        token: &str,
        key: Option<&str>,
        body: &Value,
    ) -> reqwest::Result<Reply> {
        let http = self.addresses.borrow().http;
        let url = format!("http://{http}/v1{path}");
        let mut request = self.client.request(method, url).bearer_auth(token);
        if !body.is_null() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let text = answer.text().await?;
        Ok(Reply {
            status,
            retry_after: retry_after.map(std::time::Duration::from_secs),
            body: serde_json::from_str(&text).unwrap_or_default(),
        })
    }

    /// All entries after a sequence.
    pub(crate) async fn log_after(
        &self,
        token: &str,
        conversation: &str,
        after: i64,
    ) -> reqwest::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut after = Some(after);
        while let Some(sequence) = after {
            let page = format!("/{conversation}/messages?after={sequence}&limit={PAGE_ENTRIES}");
            let request = self.client.get(self.url(&page)).bearer_auth(token);
            let page: Value = request.send().await?.error_for_status()?.json().await?;
            entries.extend(page["entries"].as_array().into_iter().flatten().map(entry));
            after = page["next_after"].as_i64();
        }
        Ok(entries)
    }

    fn url(&self, path: &str) -> String {
        let http = self.addresses.borrow().http;
        format!("http://{http}/v1/conversations{path}")
    }
}

fn entry(entry: &Value) -> Entry {
    Entry {
        sequence: entry["seq"].as_i64().unwrap(),
        id: entry["id"].as_str().unwrap().to_owned(),
    }
}
