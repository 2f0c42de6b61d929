//! Access tokens of Google: a signed assertion is exchanged for one (RFC 7523), and it serves
//! all notifications for about an hour.
//!
//! Whoever needs one while it is being fetched waits for that same fetch.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{
    answer::Answer,
    http::{Failure, Transport},
    keys::ServiceAccount,
};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_LIFETIME_SECONDS: i64 = 3600;
/// A token is not used in its last minutes.
const MARGIN_MILLIS: i64 = 5 * 60 * 1000;
/// After a refusal it is not asked again at once, and refused tokens are not replaced at once.
const PAUSE_MILLIS: i64 = 30_000;

/// Fetches access tokens, seldom. Times are in milliseconds since 1970.
pub(super) struct AccessTokens {
    transport: Arc<Transport>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    token: Option<AccessToken>,
    fetch: Option<Fetch>,
    /// The last refusal, when it came, and whom it concerns.
    refused: Option<(Unavailable, i64, Arc<ServiceAccount>)>,
    /// When a token was last given up that should have been valid.
    forgotten_at: Option<i64>,
}

type Fetch = Shared<BoxFuture<'static, Result<AccessToken, Unavailable>>>;

#[derive(Clone)]
pub(super) struct AccessToken {
    pub(super) text: Arc<str>,
    /// By our clock.
    usable_until: i64,
    account: Arc<ServiceAccount>,
}

/// Why there is no access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// The account is not accepted.
    Refused(String),
    /// The next attempt may succeed.
    Transient {
        reason: String,
        after: Option<std::time::Duration>,
    },
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) | Self::Transient { reason, .. } => {
                write!(f, "no access token: {reason}")
            }
        }
    }
}

impl AccessTokens {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport: Arc::new(transport),
            state: Arc::default(),
        }
    }

    /// The token of now, fetched if there is none.
    pub(super) async fn current(
        &self,
        account: &Arc<ServiceAccount>,
        url: &Url,
        now: i64,
    ) -> Result<AccessToken, Unavailable> {
        let fetch = {
            let mut state = lock(&self.state);
            if let Some(token) = &state.token
                && token.serves(account, now)
            {
                return Ok(token.clone());
            }
            if let Some((refusal, at, whom)) = &state.refused
                && Arc::ptr_eq(whom, account)
                && (now - at).abs() < PAUSE_MILLIS
            {
                return Err(refusal.clone());
            }
            let fetch = state
                .fetch
                .get_or_insert_with(|| self.fetch(account, url, now));
            fetch.clone()
        };
        fetch.await
    }

    /// The provider does not take this token. False if a token was given up just before: then
    /// a new one will not help.
    pub(super) fn forget(&self, refused: &AccessToken, now: i64) -> bool {
        let mut state = lock(&self.state);
        match &state.token {
            Some(token) if token.text == refused.text => {}
            _ => return true,
        }
        let is_early = state
            .forgotten_at
            .is_some_and(|then| (now - then).abs() < PAUSE_MILLIS);
        if !is_early {
            state.forgotten_at = Some(now);
            state.token = None;
        }
        !is_early
    }

    /// A fetch, which leaves its result for everybody, whoever drives it to its end.
    fn fetch(&self, account: &Arc<ServiceAccount>, url: &Url, now: i64) -> Fetch {
        let transport = Arc::clone(&self.transport);
        let state = Arc::clone(&self.state);
        let (account, url) = (Arc::clone(account), url.clone());
        let fetch = async move {
            let result = exchange(&transport, &account, url, now).await;
            let mut state = lock(&state);
            state.fetch = None;
            state.refused = None;
            match &result {
                Ok(token) => state.token = Some(token.clone()),
                Err(refusal @ Unavailable::Refused(_)) => {
                    state.refused = Some((refusal.clone(), now, account));
                }
                Err(Unavailable::Transient { .. }) => {}
            }
            result
        };
        fetch.boxed().shared()
    }
}

impl AccessToken {
    fn serves(&self, account: &Arc<ServiceAccount>, now: i64) -> bool {
        Arc::ptr_eq(&self.account, account) && now < self.usable_until
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// In seconds.
    expires_in: i64,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<String>,
    error_description: Option<String>,
}

async fn exchange(
    transport: &Transport,
    account: &Arc<ServiceAccount>,
    url: Url,
    now: i64,
) -> Result<AccessToken, Unavailable> {
    let claims = Claims {
        iss: &account.email,
        scope: SCOPE,
        aud: account.token_url.as_str(),
        iat: now / 1000,
        exp: now / 1000 + ASSERTION_LIFETIME_SECONDS,
    };
    let assertion = account
        .sign(&claims)
        .map_err(|error| Unavailable::Refused(error.to_string()))?;
    let mut headers = HeaderMap::new();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form);
    // A JSON Web Token has no character that needs escaping.
    let body = format!(
        "grant_type={}&assertion={assertion}",
        GRANT_TYPE.replace(':', "%3A")
    );
    let answer = transport.post(url, headers, body).await;
    let answer = answer.map_err(|failure: Failure| Unavailable::Transient {
        reason: failure.to_string(),
        after: None,
    })?;
    let granted: Granted = match answer.json() {
        Some(granted) if answer.status == 200 => granted,
        _ => return Err(refusal(&answer, now)),
    };
    let lifetime = granted.expires_in.saturating_mul(1000);
    Ok(AccessToken {
        text: granted.access_token.into(),
        usable_until: now.saturating_add(lifetime - MARGIN_MILLIS.min(lifetime / 2)),
        account: Arc::clone(account),
    })
}

fn refusal(answer: &Answer, now: i64) -> Unavailable {
    let mut reason = format!("HTTP {}", answer.status);
    if let Some(told) = answer.json::<Refusal>() {
        for part in [told.error, told.error_description].into_iter().flatten() {
            reason = reason + ", " + &part;
        }
    }
    match answer.status {
        408 | 429 | 500.. | ..400 => Unavailable::Transient {
            reason,
            after: answer.retry_after(now),
        },
        _ => Unavailable::Refused(reason + &answer.skew(now)),
    }
}
