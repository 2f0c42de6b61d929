//! A client that does what a test says, wrong or right.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::{Certificate, Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{now_unix, within},
    providers::{Options, Providers},
};

/// The providers, and HTTP/2 to them by the names of the real ones.
pub(super) struct Stage {
    pub(super) providers: Providers,
    pub(super) http: reqwest::Client,
    _folder: TempDir,
}

/// A request, to be made wrong in one place.
pub(super) struct Sent {
    pub(super) method: Method,
    pub(super) url: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// One thing that is wrong, and what is answered.
pub(super) type Mistake = (&'static str, fn(&Stage, &mut Sent), u16, &'static str);

impl Stage {
    pub(super) async fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::of(Providers::start(folder.path()).await, folder)
    }

    pub(super) async fn set_with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::of(Providers::start_with(folder.path(), options).await, folder)
    }

    fn of(providers: Providers, folder: TempDir) -> Self {
        Self {
            http: connect(&providers),
            providers,
            _folder: folder,
        }
    }

    pub(super) async fn send(&self, sent: Sent) -> reqwest::Result<Response> {
        let mut request = self.http.request(sent.method, sent.url).body(sent.body);
        for (name, value) in sent.headers {
            request = request.header(name, value);
        }
        within("an answer", request.send()).await
    }

    /// Makes each mistake in a request that is right, and looks at the status and the answer.
    pub(super) async fn refuses(&self, right: fn(&Self) -> Sent, mistakes: &[Mistake]) {
        for (name, mistake, status, reason) in mistakes {
            let mut sent = right(self);
            mistake(self, &mut sent);
            let response = self.send(sent).await.unwrap();
            let found = response.status().as_u16();
            let text = response.text().await.unwrap();
            assert!(
                found == *status && text.contains(reason),
                "{name}: {found} {text}"
            );
        }
        assert!(self.providers.seen().accepted.is_empty());
        let response = self.send(right(self)).await.unwrap();
        assert!(
            response.status().is_success(),
            "nothing is wrong: {response:?}"
        );
    }
}

/// Speaks HTTP/2 from the first byte, and believes the authority of these providers alone.
pub(super) fn connect(providers: &Providers) -> reqwest::Client {
    let authority = std::fs::read(&providers.credentials().ca).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .tls_certs_only([Certificate::from_pem(&authority).unwrap()])
        .resolve("api.push.apple.com", providers.apns)
        .resolve("fcm.googleapis.com", providers.fcm)
        .resolve("oauth2.googleapis.com", providers.fcm)
        .resolve("localhost", providers.web)
        .build()
        .unwrap()
}

impl Sent {
    pub(super) fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            url: url.into(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.add(name, value);
    }

    pub(super) fn add(&mut self, name: &str, value: impl Into<String>) {
        self.headers.push((name.to_owned(), value.into()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(its, _)| its != name);
    }
}

/// How a token is signed.
pub(super) struct Signer {
    pub(super) key: EncodingKey,
    pub(super) algorithm: Algorithm,
    pub(super) header: Value,
}

impl Signer {
    pub(super) fn es256(pem: &Path, key_id: &str) -> Self {
        Self {
            key: EncodingKey::from_ec_pem(&std::fs::read(pem).unwrap()).unwrap(),
            algorithm: Algorithm::ES256,
            header: json!({ "alg": "ES256", "kid": key_id }),
        }
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&self.header), part(claims));
        let signature = crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}

/// The time, and so many seconds.
pub(super) fn now_and(seconds: i64) -> i64 {
    i64::try_from(now_unix()).unwrap() + seconds
}
