//! Web Push: RFC 8030, encrypted (RFC 8291) and signed (RFC 8292).
//!
//! The endpoint is what the device says, so it is judged: https, no private address (see
//! [`addresses`](super::addresses)), no redirect. What answers mean ([`judge`]):
//!
//! | answer | outcome |
//! |---|---|
//! | 200, 201, 202, 204 | accepted |
//! | 404, 410 | dead |
//! | 403, and 400 `VapidPkHashMismatch`: the subscription is for another key | mismatched |
//! | 400, 401, and 403 `BadJwtToken` | a fault of ours |
//! | 429, 5xx, no answer | retry |
//! | any other, 413 and redirects among them | dropped |

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::{
    Url,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;
use web_push_native::{Auth, encrypt, p256::PublicKey};

use super::{
    ProviderError,
    addresses::PublicResolver,
    answer::Answer,
    credentials::Credentials,
    faults::Faults,
    http::{Failure, Settings, Transport, authorities},
    keys::P256Key,
    payload,
    vapid::Vapid,
};
use crate::{
    config::WebApp,
    domain::{address::is_public, push::Route},
    push::notification::{Address, Notification, Outcome},
};

/// Browsers leave the padding away, libraries do not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const AUTH_BYTES: usize = 16;
/// RFC 8030 §5.4.
const TOPIC_CHARACTERS_MAX: usize = 32;

/// One web app: its VAPID key, and any number of push services.
pub struct Web {
    key: Credentials<P256Key>,
    vapid: Vapid,
    private_hosts: Vec<String>,
    /// Reaches public addresses only.
    to_public: Transport,
    /// Reaches `private_hosts`.
    to_private: Transport,
    faults: Faults,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.faults.route)
    }
}

impl Web {
    /// Reads the key and the settings. Connects nowhere.
    ///
    /// # Errors
    ///
    /// [`ProviderError`].
    pub fn open(route: Route, app: &WebApp, timeout: Duration) -> Result<Self, ProviderError> {
        if !["mailto:", "https:"]
            .iter()
            .any(|scheme| app.subject.starts_with(scheme))
        {
            let reason = format!(
                "`subject` is `{}`; write whom push services may turn to, as mailto: or https:",
                app.subject
            );
            return Err(ProviderError::Setting { route, reason });
        }
        let key = Credentials::open(route.clone(), &app.vapid_key, P256Key::from_pem)?;
        let ca = app.ca.as_ref().map(|file| {
            authorities(file).map_err(|reason| ProviderError::File {
                route: route.clone(),
                file: file.clone(),
                reason,
            })
        });
        let to_private = Settings {
            authorities: ca.transpose()?,
            timeout,
            ..Settings::default()
        };
        let to_public = Settings {
            resolver: Some(Arc::new(PublicResolver)),
            ..to_private.clone()
        };
        Ok(Self {
            key,
            vapid: Vapid::new(&app.subject),
            private_hosts: app.private_hosts.clone(),
            to_public: Transport::open(&route, to_public)?,
            to_private: Transport::open(&route, to_private)?,
            faults: Faults::new(route),
        })
    }

    /// The public half of the VAPID key as it was read, base64url.
    #[must_use]
    pub fn application_server_key(&self) -> String {
        self.key.current(0).public.clone()
    }

    /// See [`super::Client::send`].
    pub async fn send(&self, address: &Address, notification: &Notification, now: i64) -> Outcome {
        let dead = |reason: &str| Outcome::Dead {
            reason: reason.to_owned(),
            since_millis: None,
        };
        let Some((url, transport)) = self.place(&address.token) else {
            return dead("the endpoint is not https, or not at a public address");
        };
        let Some(keys) = Keys::read(address) else {
            return dead("the keys of the subscription are none");
        };
        let encrypted = payload::web::payload(notification)
            .and_then(|payload| encrypt(payload, &keys.public, &keys.auth).ok());
        let Some(body) = encrypted else {
            return Outcome::Dropped {
                reason: "the payload is too large".to_owned(),
            };
        };
        let Some(headers) = self.headers(&url, &keys, notification, now) else {
            return self
                .faults
                .wait("the VAPID key cannot sign".to_owned(), now);
        };
        match transport.post(url, headers, body).await {
            Ok(answer) => match judge(&answer, now) {
                Verdict::Told(outcome) => outcome,
                Verdict::OurFault(reason) => self.faults.wait(reason + &answer.skew(now), now),
            },
            Err(failure @ Failure::NotPublic) => Outcome::Dropped {
                reason: failure.to_string(),
            },
            Err(failure) => Outcome::Retry {
                reason: failure.to_string(),
                after: None,
            },
        }
    }

    /// What the endpoint says, if it may be reached, and by which way.
    fn place(&self, endpoint: &str) -> Option<(Url, &Transport)> {
        let url = Url::parse(endpoint).ok()?;
        // They would become an Authorization header.
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let host = url.host_str()?;
        let port = url.port_or_known_default()?;
        let is_listed = |listed: &String| {
            listed == host || listed.strip_prefix(host) == Some(&*format!(":{port}"))
        };
        if matches!(url.scheme(), "http" | "https") && self.private_hosts.iter().any(is_listed) {
            return Some((url, &self.to_private));
        }
        // A URL writes every form of an IPv4 address in the usual one, and IPv6 in brackets.
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_allowed = url.scheme() == "https" && literal.is_none_or(is_public);
        is_allowed.then_some((url, &self.to_public))
    }

    fn headers(
        &self,
        url: &Url,
        keys: &Keys,
        notification: &Notification,
        now: i64,
    ) -> Option<HeaderMap> {
        let origin = url.origin().ascii_serialization();
        let key = self.key.current(now);
        let authorization = self.vapid.authorization(&key, &origin, now / 1000).ok()?;
        let mut authorization = HeaderValue::from_str(&authorization).ok()?;
        authorization.set_sensitive(true);
        let ttl = payload::web::time_to_live(notification, now / 1000);
        let topic = payload::web::topic(&notification.purpose);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        let bytes = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, bytes);
        headers.insert(HeaderName::from_static("ttl"), ttl.into());
        let urgency = payload::web::urgency(&notification.purpose);
        let urgency = HeaderValue::from_static(urgency);
        headers.insert(HeaderName::from_static("urgency"), urgency);
        let topic = keys.hide(&topic)?.try_into().ok()?;
        headers.insert(HeaderName::from_static("topic"), topic);
        Some(headers)
    }
}

/// Of a subscription.
struct Keys {
    public: PublicKey,
    auth: Auth,
}

impl Keys {
    fn read(address: &Address) -> Option<Self> {
        let (public, auth) = address.keys.as_ref()?;
        let auth = BASE64URL.decode(auth).ok()?;
        let public = BASE64URL.decode(public).ok()?;
        Some(Self {
            public: PublicKey::from_sec1_bytes(&public).ok()?,
            auth: <[u8; AUTH_BYTES]>::try_from(auth).ok()?.into(),
        })
    }

    /// Of two devices the push service does not learn that they are in one conversation.
    fn hide(&self, topic: &str) -> Option<String> {
        let secret = EncodingKey::from_secret(&self.auth);
        let mut hidden = crypto::sign(topic.as_bytes(), &secret, Algorithm::HS256).ok()?;
        hidden.truncate(TOPIC_CHARACTERS_MAX);
        Some(hidden)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Told(Outcome),
    OurFault(String),
}

/// Of Apple's push service for browsers; others answer in their own ways.
#[derive(Deserialize)]
struct Body {
    reason: Option<String>,
}

/// What the answer means, whoever asked.
fn judge(answer: &Answer, now: i64) -> Verdict {
    let known = answer.json::<Body>().and_then(|body| body.reason);
    let reason = match &known {
        Some(reason) => format!("HTTP {} {reason}", answer.status),
        None => format!("HTTP {}", answer.status),
    };
    let outcome = match (answer.status, known.as_deref()) {
        (200 | 201 | 202 | 204, _) => Outcome::Accepted,
        (404 | 410, _) => Outcome::Dead {
            reason,
            since_millis: None,
        },
        (400 | 401, Some("VapidPkHashMismatch")) => Outcome::Mismatched { reason },
        (400 | 401, _) | (403, Some("BadJwtToken")) => return Verdict::OurFault(reason),
        (403, _) => Outcome::Mismatched { reason },
        (408 | 429 | 500.., _) => Outcome::Retry {
            reason,
            after: answer.retry_after(now),
        },
        _ => Outcome::Dropped { reason },
    };
    Verdict::Told(outcome)
}
