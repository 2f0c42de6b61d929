//! Homing as a target: finds it by its data directory, signs tokens, makes conversations.

use std::{fs, io, path::PathBuf, time::Duration};

use anyhow::Context as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde::{Deserialize, Serialize};

use crate::{args::TargetArgs, process};

const TOKEN_LIFETIME: Duration = Duration::from_hours(24);
const ADMINISTRATOR: &str = "load-admin";

#[derive(Debug, thiserror::Error)]
pub(crate) enum HomingError {
    #[error("no broker runs on {}; start `homing serve`, or name another with --data-dir", path.display())]
    NotRunning {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{url} does not answer")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the server refused a request with {status}: {text}")]
    Refused { status: u16, text: String },
}

pub(crate) struct Homing {
    key: EncodingKey,
    http: reqwest::Client,
    url: String,
    admin_token: String,
}

/// Where the broker is.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) mqtt: String,
    pub(crate) pids: Vec<u32>,
}

#[derive(Deserialize)]
struct RunningFile {
    mqtt: String,
    http: String,
    pid: u32,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
}

impl Homing {
    pub(crate) fn open(args: &TargetArgs) -> anyhow::Result<(Self, Running)> {
        let running = running(args)?;
        let path = args.data_dir.join("token.secret");
        let secret = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read; is --data-dir right?", path.display()))?;
        let key = EncodingKey::from_secret(secret.trim().as_bytes());
        let admin_token = sign(&key, ADMINISTRATOR, Some("admin"))?;
        let url = args
            .http
            .as_deref()
            .unwrap_or(&running.http)
            .trim_end_matches('/')
            .to_owned();
        let http = reqwest::Client::new();
        let mqtt = args.mqtt.clone().unwrap_or(running.mqtt);
        let pids = [running.pid]
            .into_iter()
            .chain(process::postmaster(&args.data_dir))
            .collect();
        Ok((
            Self {
                key,
                http,
                url,
                admin_token,
            },
            Running { mqtt, pids },
        ))
    }

    pub(crate) fn token(&self, user: &str) -> anyhow::Result<String> {
        sign(&self.key, user, None)
    }

    /// The id of a new conversation of `users`.
    pub(crate) async fn create_conversation(
        &self,
        users: &[String],
    ) -> Result<String, HomingError> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }

        let body = serde_json::json!({ "participants": users });
        let url = format!("{}/v1/conversations", self.url);
        let request = self.http.post(&url).bearer_auth(&self.admin_token);
        let text = answer(&url, request.json(&body)).await?;
        let created = serde_json::from_str::<Created>(&text);
        created
            .map(|created| created.id)
            .map_err(|_| HomingError::Refused { status: 201, text })
    }

    /// Registers where the device of `user`, which has the same name, is woken.
    pub(crate) async fn put_push_token(
        &self,
        user: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<()> {
        let url = format!("{}/v1/devices/{user}/push-token", self.url);
        let request = self.http.put(&url).bearer_auth(self.token(user)?);
        answer(&url, request.json(body)).await?;
        Ok(())
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> Result<String, HomingError> {
        let url = format!("{}/metrics", self.url);
        answer(&url, self.http.get(&url)).await
    }
}

async fn answer(url: &str, request: reqwest::RequestBuilder) -> Result<String, HomingError> {
    let unreachable = |source| HomingError::Unreachable {
        url: url.to_owned(),
        source,
    };
    let answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    let text = answer.text().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(text);
    }
    Err(HomingError::Refused {
        status: status.as_u16(),
        text,
    })
}

impl std::fmt::Debug for Homing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Homing")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn running(args: &TargetArgs) -> anyhow::Result<RunningFile> {
    let path = args.data_dir.join("running.json");
    let text = fs::read_to_string(&path).map_err(|source| HomingError::NotRunning {
        path: args.data_dir.clone(),
        source,
    })?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what a broker writes", path.display()))
}

fn sign(key: &EncodingKey, user: &str, scope: Option<&'static str>) -> anyhow::Result<String> {
    let iat = get_current_timestamp();
    let claims = Claims {
        sub: user,
        iat,
        exp: iat + TOKEN_LIFETIME.as_secs(),
        scope,
    };
    encode(&Header::new(Algorithm::HS256), &claims, key).context("a token cannot be signed")
}
