//! Apple Push Notification service.
//!
//! What its answers mean ([`judge`]):
//!
//! | answer | outcome |
//! |---|---|
//! | 200 | accepted |
//! | 410 `Unregistered`, `ExpiredToken` | dead, since `timestamp` |
//! | 400 `BadDeviceToken`, `DeviceTokenNotForTopic`; 410 without a known reason | mismatched |
//! | 403, except that an old token is replaced and the request repeated, once | a fault of ours |
//! | 400 `BadTopic`, `MissingTopic`, `TopicDisallowed`; 404 and 405 without a reason | a fault of ours |
//! | 400 `IdleTimeout`, 429, 5xx, no answer | retry |
//! | any other | dropped |

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;

use super::{
    ProviderError,
    answer::Answer,
    credentials::Credentials,
    faults::Faults,
    fingerprint,
    http::{self, Failure, Settings, Transport},
    keys::P256Key,
    payload::apns::{Form, PushType},
    provider_token::{ProviderToken, ProviderTokens},
};
use crate::{
    config::ApnsApp,
    domain::push::{Environment, Route},
    push::notification::{Address, Notification, Outcome},
};

const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// One app (bundle id) in one of Apple's environments.
pub struct Apns {
    app: String,
    url: Url,
    key: Credentials<P256Key>,
    tokens: ProviderTokens,
    transport: Transport,
    faults: Faults,
}

impl fmt::Debug for Apns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.faults.route)
    }
}

impl Apns {
    /// Reads the key and the settings. Connects nowhere.
    ///
    /// # Errors
    ///
    /// [`ProviderError`].
    pub fn open(route: Route, app: &ApnsApp, timeout: Duration) -> Result<Self, ProviderError> {
        for (name, value) in [("key_id", &app.key_id), ("team_id", &app.team_id)] {
            if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric()) {
                let reason = format!(
                    "`{name}` is not what Apple gives: ten letters and digits, shown in the \
                     developer account beside the key and under Membership"
                );
                return Err(ProviderError::Setting { route, reason });
            }
        }
        let key = Credentials::open(route.clone(), &app.key, P256Key::from_pem)?;
        let default = match route.environment {
            Environment::Production => PRODUCTION,
            Environment::Sandbox => SANDBOX,
        };
        let place = http::Place {
            url: app.url.as_deref().unwrap_or(default),
            connect: app.connect,
            ca: app.ca.as_deref(),
        };
        let settings = Settings {
            is_http2_only: true,
            timeout,
            ..Settings::default()
        };
        let (url, transport) = place.open(&route, settings)?;
        Ok(Self {
            app: app.app.clone(),
            url,
            key,
            tokens: ProviderTokens::new(&app.key_id, &app.team_id),
            transport,
            faults: Faults::new(route),
        })
    }

    /// See [`super::Client::send`].
    ///
    /// A call becomes an alert if there is no PushKit token, or if Apple refuses that: it does
    /// not speak of the other token.
    pub async fn send(&self, address: &Address, notification: &Notification, now: i64) -> Outcome {
        let push_type = match (PushType::of(notification), &address.voip_token) {
            (PushType::Voip, None) => PushType::Alert,
            (PushType::Voip, Some(token)) => {
                let outcome = self.send_as(PushType::Voip, token, notification, now).await;
                if !matches!(outcome, Outcome::Dead { .. } | Outcome::Mismatched { .. }) {
                    return outcome;
                }
                tracing::debug!(
                    token = fingerprint(token),
                    ?outcome,
                    "the call is sent as an alert"
                );
                PushType::Alert
            }
            (push_type, _) => push_type,
        };
        self.send_as(push_type, &address.token, notification, now)
            .await
    }

    async fn send_as(
        &self,
        push_type: PushType,
        token: &str,
        notification: &Notification,
        now: i64,
    ) -> Outcome {
        let form = Form::new(push_type);
        let Some(payload) = form.payload(notification) else {
            return Outcome::Dropped {
                reason: "PayloadTooLarge".to_owned(),
            };
        };
        let Some(headers) = self.headers(form, notification, now) else {
            return self.faults.wait("BadTopic".to_owned(), now);
        };
        let request = Request {
            url: self.device_url(token),
            headers,
            payload: payload.into(),
        };
        match self.send_signed(&request, now).await {
            Ok(answer) => self.outcome(&answer, now),
            Err(Unsent::Unsigned(reason)) => self.faults.wait(reason, now),
            Err(Unsent::Failed(failure)) => Outcome::Retry {
                reason: failure.to_string(),
                after: None,
            },
        }
    }

    /// Signed with the token of now and, if that is refused, with a new one.
    async fn send_signed(&self, request: &Request, now: i64) -> Result<Answer, Unsent> {
        let key: Arc<P256Key> = self.key.current(now);
        let token = self
            .tokens
            .current(&key, now / 1000)
            .map_err(|error| Unsent::Unsigned(format!("no provider token: {error}")))?;
        let answer = self.post(request, &token).await?;
        let theirs = answer.skewed_clock(now);
        let is_too_old = match (answer.status, reason(&answer).as_deref()) {
            (403, Some("ExpiredProviderToken")) => true,
            (403, Some("InvalidProviderToken")) => theirs.is_some(),
            _ => false,
        };
        if !is_too_old {
            return Ok(answer);
        }
        let issued_at = theirs.unwrap_or(now / 1000);
        match self.tokens.instead_of(&token, now / 1000, issued_at) {
            None => Ok(answer),
            Some(token) => {
                tracing::warn!(
                    app = self.app,
                    skew = answer.skew(now),
                    "the provider token was refused as too old; a new one is used"
                );
                self.post(request, &token).await
            }
        }
    }

    async fn post(&self, request: &Request, token: &ProviderToken) -> Result<Answer, Unsent> {
        let mut headers = request.headers.clone();
        let authorization = HeaderValue::try_from(format!("bearer {}", token.text));
        let mut authorization =
            authorization.map_err(|error| Unsent::Unsigned(error.to_string()))?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        self.transport
            .post(request.url.clone(), headers, request.payload.clone())
            .await
            .map_err(Unsent::Failed)
    }

    fn outcome(&self, answer: &Answer, now: i64) -> Outcome {
        match judge(answer, now) {
            Verdict::Told(outcome) => outcome,
            Verdict::OurFault(reason) => self.faults.wait(reason + &answer.skew(now), now),
        }
    }

    /// None if the app's name cannot stand in a header.
    fn headers(&self, form: Form, notification: &Notification, now: i64) -> Option<HeaderMap> {
        let topic = match form.push_type {
            PushType::Voip => format!("{}.voip", self.app),
            PushType::Alert | PushType::Background => self.app.clone(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let named = form.headers(notification, now / 1000);
        let id = ("apns-id", notification.id.to_string());
        for (name, value) in named.into_iter().chain([id, ("apns-topic", topic)]) {
            headers.insert(HeaderName::from_static(name), value.try_into().ok()?);
        }
        Some(headers)
    }

    /// Whatever the token holds, it stays one segment of the path.
    fn device_url(&self, token: &str) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["3", "device", token]);
        }
        url
    }
}

struct Request {
    url: Url,
    headers: HeaderMap,
    payload: bytes::Bytes,
}

enum Unsent {
    Unsigned(String),
    Failed(Failure),
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Told(Outcome),
    OurFault(String),
}

#[derive(Default, Deserialize)]
struct Body {
    reason: Option<String>,
    /// Of a 410, in milliseconds since 1970: when the token was last known to be invalid.
    timestamp: Option<i64>,
}

fn reason(answer: &Answer) -> Option<String> {
    answer.json::<Body>()?.reason
}

/// What the answer means, whoever asked.
fn judge(answer: &Answer, now: i64) -> Verdict {
    let Body { reason, timestamp } = answer.json().unwrap_or_default();
    let known = reason.clone();
    let reason = reason.unwrap_or_else(|| format!("HTTP {}", answer.status));
    let outcome = match (answer.status, known.as_deref()) {
        (200, _) => Outcome::Accepted,
        (410, Some("Unregistered" | "ExpiredToken")) => Outcome::Dead {
            reason,
            since_millis: timestamp,
        },
        (400, Some("BadDeviceToken" | "DeviceTokenNotForTopic")) | (410, _) => {
            Outcome::Mismatched { reason }
        }
        (400, Some("IdleTimeout")) | (429 | 500.., _) => Outcome::Retry {
            reason,
            after: answer.retry_after(now),
        },
        (401 | 403, _)
        | (400, Some("BadTopic" | "MissingTopic" | "TopicDisallowed"))
        | (404 | 405, None) => return Verdict::OurFault(reason),
        _ => Outcome::Dropped { reason },
    };
    Verdict::Told(outcome)
}

#[cfg(test)]
mod tests {
    use reqwest::header::RETRY_AFTER;

    use super::*;

    fn judged(status: u16, body: &str) -> Verdict {
        judge(&Answer::of(status, &[(RETRY_AFTER, "9")], body), 0)
    }

    /// What no fake of Apple says, but something between us and Apple may.
    #[test]
    fn without_a_known_reason_nothing_is_dead() {
        let reason = || "HTTP 410".to_owned();
        let mismatched = Verdict::Told(Outcome::Mismatched { reason: reason() });
        assert_eq!(judged(410, ""), mismatched);
        assert_eq!(judged(410, "<html>gone</html>"), mismatched);
        for status in [401, 403, 404, 405] {
            let fault = Verdict::OurFault(format!("HTTP {status}"));
            assert_eq!(judged(status, "{}"), fault);
        }
        for status in [429, 500, 502, 504] {
            let retry = Outcome::Retry {
                reason: format!("HTTP {status}"),
                after: Some(Duration::from_secs(9)),
            };
            assert_eq!(judged(status, "no JSON"), Verdict::Told(retry));
        }
        for status in [301, 400, 413] {
            let reason = format!("HTTP {status}");
            assert_eq!(
                judged(status, ""),
                Verdict::Told(Outcome::Dropped { reason })
            );
        }
    }

    #[test]
    fn the_reason_counts_with_its_status_only() {
        let dropped = |reason: &str| {
            Verdict::Told(Outcome::Dropped {
                reason: reason.to_owned(),
            })
        };
        assert_eq!(
            judged(400, r#"{"reason":"Unregistered"}"#),
            dropped("Unregistered")
        );
        assert_eq!(judged(404, r#"{"reason":"BadPath"}"#), dropped("BadPath"));
        let idle = Outcome::Retry {
            reason: "IdleTimeout".to_owned(),
            after: Some(Duration::from_secs(9)),
        };
        assert_eq!(
            judged(400, r#"{"reason":"IdleTimeout"}"#),
            Verdict::Told(idle)
        );
    }
}
