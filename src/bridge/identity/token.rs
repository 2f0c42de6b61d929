//! What a token claims, and what of it is believed.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Secret, TokenError};
use crate::domain::ids::Subject;

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8192;
/// The word of `scope` that allows administration.
const SCOPE_ADMIN: &str = "admin";

/// Who a token speaks for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub subject: Subject,
    /// May act on every conversation and for every user.
    pub is_admin: bool,
    /// In seconds since 1970. A token without an end is refused: it could not be withdrawn.
    pub expires_at: u64,
    /// In seconds since 1970: a device that is signed out needs a later one.
    pub issued_at: Option<u64>,
}

/// What is checked in every token besides its signature.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) leeway: Duration,
}

/// The claims that matter here (RFC 7519 §4.1); all others are the application's.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    #[serde(default, deserialize_with = "numeric_date")]
    exp: Option<u64>,
    #[serde(default, deserialize_with = "numeric_date")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "numeric_date")]
    iat: Option<u64>,
    iss: Option<String>,
    aud: Option<Audience>,
    scope: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// Seconds since 1970, possibly with a fraction; what lies before is 1970.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and years beyond u64 are as good as its maximum"
)]
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    Ok(number.map(|number| {
        number
            .as_u64()
            .unwrap_or_else(|| number.as_f64().map_or(0, |seconds| seconds as u64))
    }))
}

impl Rules {
    /// Judges claims whose signature is good.
    pub(super) fn identity(&self, claims: Claims, now_unix: u64) -> Result<Identity, TokenError> {
        let leeway = self.leeway.as_secs();
        let expires_at = claims.exp.ok_or(TokenError::NoExpiry)?;
        if now_unix >= expires_at.saturating_add(leeway) {
            return Err(TokenError::Expired);
        }
        let latest = now_unix.saturating_add(leeway);
        if [claims.nbf, claims.iat]
            .into_iter()
            .flatten()
            .any(|begin| begin > latest)
        {
            return Err(TokenError::NotYetValid);
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(TokenError::WrongIssuer);
        }
        if let Some(audience) = &self.audience
            && !claims.aud.is_some_and(|claimed| claimed.contains(audience))
        {
            return Err(TokenError::WrongAudience);
        }
        let subject = claims.sub.ok_or(TokenError::BadSubject)?;
        Ok(Identity {
            subject: Subject::new(&subject).map_err(|_| TokenError::BadSubject)?,
            is_admin: claims
                .scope
                .is_some_and(|scope| scope.split_whitespace().any(|word| word == SCOPE_ADMIN)),
            expires_at,
            issued_at: claims.iat,
        })
    }
}

/// A token to be signed with the secret of the data directory.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    pub subject: &'a Subject,
    pub time_to_live: Duration,
    pub is_admin: bool,
    /// `auth.issuer` and `auth.audience`, if the broker asks for them.
    pub issuer: Option<&'a str>,
    pub audience: Option<&'a str>,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Signs a token; `now_unix` is in seconds since 1970.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "it cannot: see the expectation")]
pub fn issue(secret: &Secret, token: &NewToken<'_>, now_unix: u64) -> String {
    let claims = NewClaims {
        sub: token.subject.as_str(),
        iat: now_unix,
        exp: now_unix.saturating_add(token.time_to_live.as_secs()),
        scope: token.is_admin.then_some(SCOPE_ADMIN),
        iss: token.issuer,
        aud: token.audience,
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .expect("these claims are plain JSON, and HMAC takes every key")
}
