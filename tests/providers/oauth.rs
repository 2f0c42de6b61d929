//! Google's token endpoint: RFC 7523 as
//! <https://developers.google.com/identity/protocols/oauth2/service-account> has it.

use std::{collections::HashMap, sync::PoisonError};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Answer, Call, Judged},
    credentials::{SERVICE_ACCOUNT, SERVICE_KEY_ID, TOKEN_URI},
    fake::World,
    jwt::Jwt,
    script::{OAUTH, Refusal},
};

pub(super) const PATH: &str = "/token";

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
];
const ASSERTION_SECONDS_MAX: i64 = 3600;
/// How far the clock of a client may go wrong.
const LEEWAY_SECONDS: i64 = 60;
const TOKEN_SECONDS: i64 = 3599;

pub(super) fn judge(world: &World, call: &Call) -> Judged {
    Judged {
        token: OAUTH.to_owned(),
        id: String::new(),
        verdict: request(world, call).map(|()| Value::Null),
    }
}

/// A token that the other half of the fake believes.
pub(super) fn granted(world: &World) -> Answer {
    let token = format!("ya29.{}", Uuid::now_v7().simple());
    let mut tokens = world
        .access_tokens
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    tokens.insert(token.clone(), world.clock.now_unix() + TOKEN_SECONDS);
    let body = json!({
        "access_token": token,
        "expires_in": TOKEN_SECONDS,
        "token_type": "Bearer",
    });
    Answer::json(200, &body)
}

/// `reason` is the code of RFC 6749 §5.2, then a colon and the description.
pub(super) fn refused(refusal: &Refusal) -> Answer {
    let (error, description) = refusal
        .reason
        .split_once(": ")
        .unwrap_or((&refusal.reason, "it is so scripted"));
    let body = json!({ "error": error, "error_description": description });
    Answer::json(refusal.status, &body)
}

fn request(world: &World, call: &Call) -> Result<(), Refusal> {
    if call.method != "POST" {
        return Err(Refusal::new(405, "method_not_allowed: use POST"));
    }
    let content_type = call.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::new(400, "invalid_request: the body is not a form"));
    }
    let form = form(&call.body);
    if form.get("grant_type").is_none_or(|grant| grant != GRANT) {
        return Err(Refusal::new(
            400,
            "unsupported_grant_type: Invalid grant_type",
        ));
    }
    let assertion = form
        .get("assertion")
        .map(String::as_str)
        .unwrap_or_default();
    let grant = |why: &str| Refusal::new(400, format!("invalid_grant: {why}"));
    let jwt = Jwt::read(assertion).map_err(|why| grant(&format!("Invalid JWT: {why}.")))?;
    let key_id = &jwt.header["kid"];
    if jwt.claims["iss"] != SERVICE_ACCOUNT || !(key_id.is_null() || *key_id == SERVICE_KEY_ID) {
        return Err(grant("Invalid grant: account not found"));
    }
    if !jwt.is_signed(Algorithm::RS256, &world.credentials.service_public) {
        return Err(grant("Invalid JWT Signature."));
    }
    if jwt.claims["aud"] != TOKEN_URI {
        return Err(grant(
            "Invalid JWT: the audience is not the token endpoint.",
        ));
    }
    let now = world.clock.now_unix();
    let (Some(issued), Some(expires)) = (jwt.seconds("iat"), jwt.seconds("exp")) else {
        return Err(grant("Invalid JWT: iat and exp must be there, in seconds."));
    };
    let is_short = (1..=ASSERTION_SECONDS_MAX).contains(&(expires - issued));
    if !is_short || issued > now + LEEWAY_SECONDS || expires < now - LEEWAY_SECONDS {
        return Err(grant(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable \
             timeframe. Check your iat and exp values in the JWT claim.",
        ));
    }
    let scopes = jwt.claims["scope"].as_str().unwrap_or_default();
    if !scopes.split(' ').any(|scope| SCOPES.contains(&scope)) {
        return Err(Refusal::new(
            400,
            "invalid_scope: Invalid OAuth scope or ID token audience",
        ));
    }
    Ok(())
}

/// The fields of a form; what is not UTF-8 is lost.
fn form(body: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(body);
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (unescaped(name), unescaped(value)))
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or(b'0'));
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}
