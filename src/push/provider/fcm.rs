//! Firebase Cloud Messaging, HTTP v1.
//!
//! What its answers mean ([`judge`]). The `errorCode` in the details counts, not the status:
//!
//! | answer | outcome |
//! |---|---|
//! | 200 | accepted |
//! | `UNREGISTERED` | dead |
//! | `SENDER_ID_MISMATCH`; `INVALID_ARGUMENT` about the token | mismatched |
//! | `QUOTA_EXCEEDED`, 429 | retry, after a minute unless it says otherwise |
//! | `UNAVAILABLE`, `INTERNAL`, 5xx, no answer | retry |
//! | `THIRD_PARTY_AUTH_ERROR`, 401 (after a new access token), 403, 404 | a fault of ours |
//! | any other | dropped |

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use reqwest::{
    Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Deserialize;

use super::{
    ProviderError,
    access_token::{AccessToken, AccessTokens, Unavailable},
    answer::Answer,
    credentials::Credentials,
    faults::Faults,
    http::{Failure, Place, Settings, Transport, reached},
    keys::ServiceAccount,
    payload,
};
use crate::{
    config::FcmApp,
    domain::push::Route,
    push::notification::{Address, Notification, Outcome},
};

const GOOGLE: &str = "https://fcm.googleapis.com";
/// Google: the default wait after a 429.
const QUOTA_WAIT: Duration = Duration::from_mins(1);

/// One Firebase project.
pub struct Fcm {
    url: Url,
    connect: Option<SocketAddr>,
    account: Credentials<ServiceAccount>,
    tokens: AccessTokens,
    transport: Transport,
    faults: Faults,
}

impl fmt::Debug for Fcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.faults.route)
    }
}

impl Fcm {
    /// Reads the service account and the settings. Connects nowhere.
    ///
    /// # Errors
    ///
    /// [`ProviderError`].
    pub fn open(route: Route, app: &FcmApp, timeout: Duration) -> Result<Self, ProviderError> {
        let project = app.app.clone();
        let read = move |json: &[u8]| ServiceAccount::from_json(json, &project);
        let account = Credentials::open(route.clone(), &app.service_account, read)?;
        let place = Place {
            url: app.url.as_deref().unwrap_or(GOOGLE),
            connect: app.connect,
            ca: app.ca.as_deref(),
        };
        let mut url = place.url(&route)?;
        let settings = Settings {
            is_http2_only: true,
            timeout,
            ..Settings::default()
        };
        let transport = place.transport(&route, &[&url], settings)?;
        let token_url = account.current(0).token_url.clone();
        let settings = Settings {
            timeout,
            ..Settings::default()
        };
        let to_tokens = place.transport(&route, &[&token_url], settings)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(["v1", "projects", &app.app, "messages:send"]);
        }
        Ok(Self {
            url,
            connect: app.connect,
            account,
            tokens: AccessTokens::new(to_tokens),
            transport,
            faults: Faults::new(route),
        })
    }

    /// See [`super::Client::send`].
    pub async fn send(&self, address: &Address, notification: &Notification, now: i64) -> Outcome {
        let Some(message) = payload::fcm::message(notification, &address.token, now / 1000) else {
            return Outcome::Dropped {
                reason: "the payload is too large".to_owned(),
            };
        };
        match self.send_authorized(message.into(), now).await {
            Ok(answer) => match judge(&answer, now) {
                Verdict::Told(outcome) => outcome,
                Verdict::OurFault(reason) => self.faults.wait(reason + &answer.skew(now), now),
            },
            Err(Unsent::NoToken(refusal @ Unavailable::Refused(_))) => {
                self.faults.wait(refusal.to_string(), now)
            }
            Err(Unsent::NoToken(Unavailable::Transient { reason, after })) => Outcome::Retry {
                reason: format!("no access token: {reason}"),
                after,
            },
            Err(Unsent::Failed(failure)) => Outcome::Retry {
                reason: failure.to_string(),
                after: None,
            },
        }
    }

    /// With the access token of now and, if that is refused, with a new one.
    async fn send_authorized(&self, message: Bytes, now: i64) -> Result<Answer, Unsent> {
        let account = self.account.current(now);
        let url = reached(account.token_url.clone(), self.connect);
        let token = self.tokens.current(&account, &url, now).await?;
        let answer = self.post(&token, message.clone()).await?;
        let is_ours = answer.status == 401 && error_code(&answer).is_none();
        if !is_ours || !self.tokens.forget(&token, now) {
            return Ok(answer);
        }
        let token = self.tokens.current(&account, &url, now).await?;
        self.post(&token, message).await
    }

    async fn post(&self, token: &AccessToken, message: Bytes) -> Result<Answer, Unsent> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let authorization = HeaderValue::try_from(format!("Bearer {}", token.text));
        let mut authorization = authorization.map_err(|_| {
            let reason = "the access token cannot stand in a header".to_owned();
            Unsent::NoToken(Unavailable::Refused(reason))
        })?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        let answer = self.transport.post(self.url.clone(), headers, message);
        answer.await.map_err(Unsent::Failed)
    }
}

enum Unsent {
    NoToken(Unavailable),
    Failed(Failure),
}

impl From<Unavailable> for Unsent {
    fn from(unavailable: Unavailable) -> Self {
        Self::NoToken(unavailable)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Told(Outcome),
    OurFault(String),
}

#[derive(Deserialize)]
struct Body {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

/// A google.firebase.fcm.v1.FcmError, or a google.rpc.BadRequest, or another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    error_code: Option<String>,
    #[serde(default)]
    field_violations: Vec<FieldViolation>,
}

#[derive(Deserialize)]
struct FieldViolation {
    field: Option<String>,
}

fn error_code(answer: &Answer) -> Option<String> {
    let details = answer.json::<Body>()?.error.details;
    details.into_iter().find_map(|detail| detail.error_code)
}

/// What the answer means, whoever asked.
fn judge(answer: &Answer, now: i64) -> Verdict {
    let known = error_code(answer);
    let reason = known
        .clone()
        .unwrap_or_else(|| format!("HTTP {}", answer.status));
    let after = answer.retry_after(now);
    let outcome = match (answer.status, known.as_deref()) {
        (200, _) => Outcome::Accepted,
        (_, Some("UNREGISTERED")) => Outcome::Dead {
            reason,
            since_millis: None,
        },
        (_, Some("SENDER_ID_MISMATCH")) => Outcome::Mismatched { reason },
        (_, Some("INVALID_ARGUMENT")) if is_about_token(answer) => Outcome::Mismatched { reason },
        (_, Some("QUOTA_EXCEEDED")) | (429, _) => Outcome::Retry {
            reason,
            after: after.or(Some(QUOTA_WAIT)),
        },
        (_, Some("UNAVAILABLE" | "INTERNAL")) | (500.., _) => Outcome::Retry { reason, after },
        (_, Some("THIRD_PARTY_AUTH_ERROR")) | (401 | 403 | 404, _) => {
            return Verdict::OurFault(reason);
        }
        _ => Outcome::Dropped { reason },
    };
    Verdict::Told(outcome)
}

/// Google says `INVALID_ARGUMENT` of what is no token at all, too, and has no code for that.
fn is_about_token(answer: &Answer) -> bool {
    let Some(Body { error }) = answer.json() else {
        return false;
    };
    let mut fields = error
        .details
        .into_iter()
        .flat_map(|detail| detail.field_violations)
        .filter_map(|violation| violation.field);
    error.message.contains("not a valid FCM registration token")
        || fields.any(|field| field == "message.token")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, details: &str) -> Verdict {
        let body = format!(r#"{{"error":{{"code":{status},"details":{details}}}}}"#);
        judge(&Answer::of(status, &[], &body), 0)
    }

    #[test]
    fn the_code_counts_not_the_status() {
        let unregistered = r#"[{"@type":"x"},{"@type":"y","errorCode":"UNREGISTERED"}]"#;
        let dead = Outcome::Dead {
            reason: "UNREGISTERED".to_owned(),
            since_millis: None,
        };
        for status in [400, 404, 410] {
            assert_eq!(judged(status, unregistered), Verdict::Told(dead.clone()));
        }
        for status in [401, 403, 404] {
            let fault = Verdict::OurFault(format!("HTTP {status}"));
            assert_eq!(judged(status, "[]"), fault);
        }
        let dropped = Outcome::Dropped {
            reason: "HTTP 400".to_owned(),
        };
        assert_eq!(judged(400, "[]"), Verdict::Told(dropped));
    }

    #[test]
    fn an_invalid_argument_may_be_the_token() {
        let of = |field: &str| {
            let violations = format!(r#"[{{"field":"{field}"}}]"#);
            judged(
                400,
                &format!(
                    r#"[{{"errorCode":"INVALID_ARGUMENT"}},{{"fieldViolations":{violations}}}]"#
                ),
            )
        };
        let reason = || "INVALID_ARGUMENT".to_owned();
        let mismatched = Outcome::Mismatched { reason: reason() };
        assert_eq!(of("message.token"), Verdict::Told(mismatched));
        let dropped = Outcome::Dropped { reason: reason() };
        assert_eq!(of("message.android.ttl"), Verdict::Told(dropped));
    }
}
