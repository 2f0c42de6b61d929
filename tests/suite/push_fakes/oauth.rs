//! What the token endpoint refuses.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::client::{Mistake, Sent, Signer, Stage, now_and};

const ENDPOINT: &str = "https://oauth2.googleapis.com/token";
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// Claims are changed by the mistakes.
fn request(stage: &Stage, algorithm: &str, change: impl FnOnce(&mut Value)) -> Sent {
    let file = std::fs::read(&stage.providers.credentials().service_account).unwrap();
    let account: Value = serde_json::from_slice(&file).unwrap();
    let pem = account["private_key"].as_str().unwrap();
    let signer = Signer {
        key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        algorithm: Algorithm::RS256,
        header: json!({ "alg": algorithm, "typ": "JWT", "kid": account["private_key_id"] }),
    };
    let mut claims = json!({
        "iss": account["client_email"],
        "aud": ENDPOINT,
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "iat": now_and(0),
        "exp": now_and(3600),
    });
    change(&mut claims);
    let assertion = signer.sign(&claims);
    Sent::post(
        ENDPOINT,
        format!("grant_type={GRANT}&assertion={assertion}"),
    )
    .with("content-type", "application/x-www-form-urlencoded")
}

pub(super) fn right(stage: &Stage) -> Sent {
    request(stage, "RS256", |_| {})
}

/// An access token, and for how many seconds.
pub(super) async fn fetch(stage: &Stage) -> (String, i64) {
    let body = stage
        .send(right(stage))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let token = body["access_token"].as_str().unwrap().to_owned();
    (token, body["expires_in"].as_i64().unwrap())
}

const MISTAKES: [Mistake; 10] = [
    (
        "JSON",
        |_, sent| sent.set("content-type", "application/json"),
        400,
        "invalid_request",
    ),
    (
        "another grant",
        |_, sent| drop(sent.body.drain(..12)),
        400,
        "unsupported_grant_type",
    ),
    (
        "no assertion",
        |_, sent| sent.body.truncate(65),
        400,
        "invalid_grant",
    ),
    (
        "a stranger",
        |stage, sent| *sent = request(stage, "RS256", |claims| claims["iss"] = "eve".into()),
        400,
        "account not found",
    ),
    (
        "another algorithm",
        |stage, sent| *sent = request(stage, "RS384", |_| {}),
        400,
        "Invalid JWT Signature",
    ),
    (
        "a broken signature",
        |_, sent| {
            let place = sent.body.len() - 20;
            sent.body[place] = if sent.body[place] == b'x' { b'y' } else { b'x' };
        },
        400,
        "Invalid JWT Signature",
    ),
    (
        "another audience",
        |stage, sent| *sent = request(stage, "RS256", |claims| claims["aud"] = "x".into()),
        400,
        "audience",
    ),
    (
        "two hours",
        |stage, sent| {
            *sent = request(stage, "RS256", |claims| {
                claims["exp"] = now_and(7200).into();
            });
        },
        400,
        "short-lived",
    ),
    (
        "yesterday's",
        |stage, sent| {
            *sent = request(stage, "RS256", |claims| {
                claims["iat"] = now_and(-86_400).into();
                claims["exp"] = now_and(-82_800).into();
            });
        },
        400,
        "short-lived",
    ),
    (
        "another scope",
        |stage, sent| *sent = request(stage, "RS256", |claims| claims["scope"] = "x".into()),
        400,
        "invalid_scope",
    ),
];

#[tokio::test]
async fn oauth_believes_no_assertion_but_the_right_one() {
    let stage = Stage::set().await;
    stage.refuses(right, &MISTAKES).await;
    assert_eq!(stage.providers.seen().token_fetches(), 1);
}
