//! The REST side of a broker, as the commands use it.

use std::time::Duration;

use homing::{config::Config, domain::ids::Subject, lifecycle::Exit};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{
    failure::Failure,
    output,
    target::{Target, TargetArgs},
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Who an administrator is, unless --token says otherwise; it appears in the log.
const OPERATOR: &str = "operator";
const NEEDS_ADMIN: &str = "this needs a token of `homing token --admin`";
const NEEDS_USER: &str = "this needs a token of `homing token --user`";

/// The REST side of the broker.
pub(super) struct Rest {
    client: reqwest::Client,
    url: Url,
    token: String,
    /// What to do if the token is not good enough.
    token_hint: &'static str,
}

/// The body of an error (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
}

impl Rest {
    /// Acts as an administrator.
    pub(super) fn as_operator(args: TargetArgs, settings: Config) -> Result<Self, Failure> {
        let operator = Subject::new(OPERATOR).map_err(|error| Failure::new(error.to_string()))?;
        let target = Target::new(args, settings);
        let url = url(&target)?;
        Self::new(url, target.admin_token(&operator)?, NEEDS_ADMIN)
    }

    /// Acts as a user.
    pub(super) fn as_user(
        args: TargetArgs,
        settings: Config,
        user: &Subject,
    ) -> Result<Self, Failure> {
        let target = Target::new(args, settings);
        let url = url(&target)?;
        Self::new(url, target.user_token(user)?, NEEDS_USER)
    }

    fn new(url: Url, token: String, token_hint: &'static str) -> Result<Self, Failure> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self {
            client,
            url,
            token,
            token_hint,
        })
    }

    /// Sends a request; the answer is null if it has no body.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.client.request(method, self.at(path));
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(request).await
    }

    /// Reads something.
    pub(super) async fn query(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        let mut url = self.at(path);
        url.query_pairs_mut().extend_pairs(query);
        self.send(self.client.get(url)).await
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = request
            .bearer_auth(&self.token)
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(refused(status, &body, self.token_hint));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|_| not_ours(&Value::from(String::from_utf8_lossy(&body))))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let reason = if error.is_timeout() {
            "no answer in time"
        } else {
            "nobody answers"
        };
        Failure::new(format!("REST at {}: {reason}", self.url))
            .exit(Exit::Unavailable)
            .hint("start the broker with `homing serve`, or name another one with --http")
    }
}

fn url(target: &Target) -> Result<Url, Failure> {
    let url = target.http()?;
    Url::parse(&url)
        .ok()
        .filter(|url| url.scheme() == "http" && url.has_host())
        .ok_or_else(|| {
            Failure::new(format!("`{url}` is no address of the REST side"))
                .exit(Exit::Usage)
                .hint("write it as in http://127.0.0.1:8080")
        })
}

fn refused(status: StatusCode, body: &[u8], token_hint: &'static str) -> Failure {
    let text = match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title, detail }) => detail.unwrap_or(title),
        Err(_) => format!("the server answered {status}"),
    };
    let failure = Failure::new(output::printable(&text));
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => failure
            .exit(Exit::Unavailable)
            .hint("try again; /readyz says what the broker waits for"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            failure.exit(Exit::Refused).hint(token_hint)
        }
        _ if status.is_client_error() => failure.exit(Exit::Refused),
        _ => failure.hint("the broker's log says more"),
    }
}

/// An answer that Homing would not give.
pub(super) fn not_ours(answer: &Value) -> Failure {
    Failure::new(format!(
        "this is no answer of Homing: {}",
        output::printable(&answer.to_string())
    ))
    .hint("is --http the address of a broker?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_server_becomes_the_exit_code() {
        let problem = br#"{"title":"Not found","detail":"no such conversation","status":404}"#;
        let expected = Failure::new("no such conversation").exit(Exit::Refused);
        assert_eq!(
            refused(StatusCode::NOT_FOUND, problem, NEEDS_ADMIN),
            expected
        );
        let outage = refused(StatusCode::SERVICE_UNAVAILABLE, b"<html>", NEEDS_ADMIN);
        assert!(format!("{outage:?}").contains("Unavailable"), "{outage:?}");
    }
}
