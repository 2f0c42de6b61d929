//! What a push service of the web refuses.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use web_push_native::{Auth, WebPushBuilder, p256::PublicKey};

use super::client::{Mistake, Sent, Signer, Stage, now_and};
use crate::providers::Subscription;

fn vapid(stage: &Stage, change: impl FnOnce(&mut Value)) -> String {
    let credentials = stage.providers.credentials();
    let mut signer = Signer::es256(&credentials.vapid_key, "");
    signer.header = json!({ "typ": "JWT", "alg": "ES256" });
    let mut claims = json!({
        "aud": format!("https://localhost:{}", stage.providers.web.port()),
        "exp": now_and(3600),
        "sub": "mailto:push@example.com",
    });
    change(&mut claims);
    let key = URL_SAFE_NO_PAD.encode(&credentials.vapid_public);
    format!("vapid t={}, k={key}", signer.sign(&claims))
}

fn to(stage: &Stage, subscription: &Subscription, text: &str) -> Sent {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let key = PublicKey::from_sec1_bytes(&decode(&subscription.p256dh)).unwrap();
    let auth: [u8; 16] = decode(&subscription.auth).try_into().unwrap();
    let endpoint = subscription.endpoint.parse().unwrap();
    let built = WebPushBuilder::new(endpoint, key, Auth::from(auth))
        .build(text)
        .unwrap();
    Sent::post(&subscription.endpoint, built.into_body())
        .with("authorization", vapid(stage, |_| {}))
        .with("content-encoding", "aes128gcm")
        .with("ttl", "60")
        .with("urgency", "high")
        .with("topic", "t".repeat(32))
}

fn right(stage: &Stage) -> Sent {
    to(stage, &stage.providers.subscribe("browser"), "hello")
}

const AUTHORIZATIONS: [Mistake; 9] = [
    (
        "none",
        |_, sent| sent.remove("authorization"),
        401,
        "no vapid",
    ),
    (
        "a bearer",
        |_, sent| sent.set("authorization", "Bearer x"),
        401,
        "no vapid",
    ),
    (
        "another audience",
        |stage, sent| {
            sent.set(
                "authorization",
                vapid(stage, |claims| claims["aud"] = "https://x".into()),
            );
        },
        403,
        "aud",
    ),
    (
        "past",
        |stage, sent| {
            sent.set(
                "authorization",
                vapid(stage, |claims| claims["exp"] = now_and(-1).into()),
            );
        },
        403,
        "exp",
    ),
    (
        "two days",
        |stage, sent| {
            let token = vapid(stage, |claims| claims["exp"] = now_and(172_800).into());
            sent.set("authorization", token);
        },
        403,
        "exp",
    ),
    (
        "nobody to write to",
        |stage, sent| {
            sent.set(
                "authorization",
                vapid(stage, |claims| claims["sub"] = "me".into()),
            );
        },
        403,
        "sub",
    ),
    (
        "a broken signature",
        |stage, sent| {
            let token = vapid(stage, |_| {}).replacen("t=eyJ", "t=eyI", 1);
            sent.set("authorization", token);
        },
        403,
        "",
    ),
    (
        "signed by another key",
        |stage, sent| {
            let credentials = stage.providers.credentials();
            let other = Signer::es256(&credentials.apns_key, "");
            let key = URL_SAFE_NO_PAD.encode(&credentials.vapid_public);
            let token = other.sign(&json!({}));
            sent.set("authorization", format!("vapid t={token}, k={key}"));
        },
        403,
        "signature",
    ),
    (
        "another key",
        |stage, sent| {
            let token = vapid(stage, |_| {});
            let (token, _) = token.split_once(", k=").unwrap();
            let key = URL_SAFE_NO_PAD.encode([4; 65]);
            sent.set("authorization", format!("{token}, k={key}"));
        },
        403,
        "k is not the key",
    ),
];

#[tokio::test]
async fn web_push_believes_no_vapid_but_the_right_one() {
    Stage::set().await.refuses(right, &AUTHORIZATIONS).await;
}

const MESSAGES: [Mistake; 9] = [
    ("no TTL", |_, sent| sent.remove("ttl"), 400, "TTL"),
    ("a TTL", |_, sent| sent.set("ttl", "1m"), 400, "TTL"),
    (
        "an urgency",
        |_, sent| sent.set("urgency", "loud"),
        400,
        "Urgency",
    ),
    (
        "a topic of 33",
        |_, sent| sent.set("topic", "t".repeat(33)),
        400,
        "Topic",
    ),
    (
        "a topic with a colon",
        |_, sent| sent.set("topic", "a:b"),
        400,
        "Topic",
    ),
    (
        "no encoding",
        |_, sent| sent.remove("content-encoding"),
        415,
        "aes128gcm",
    ),
    (
        "plain text",
        |_, sent| sent.body = b"hello".to_vec(),
        400,
        "one record",
    ),
    (
        "half a record",
        |_, sent| sent.body.truncate(95),
        400,
        "one record",
    ),
    (
        "4097 bytes",
        |_, sent| sent.body.resize(4097, 0),
        413,
        "too large",
    ),
];

#[tokio::test]
async fn web_push_refuses_headers_and_bodies_that_do_not_fit() {
    Stage::set().await.refuses(right, &MESSAGES).await;
}

#[tokio::test]
async fn web_push_takes_what_only_the_subscription_can_read() {
    let stage = Stage::set().await;
    let (mine, other) = (
        stage.providers.subscribe("mine"),
        stage.providers.subscribe("other"),
    );
    let response = stage.send(to(&stage, &mine, "hello")).await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.headers().contains_key("location"));

    let accepted = stage.providers.wait_for(1).await;
    assert_eq!(accepted[0].token, "mine");
    assert_eq!(
        mine.decrypt(&accepted[0]).as_deref(),
        Some(b"hello".as_slice())
    );
    assert_eq!(other.decrypt(&accepted[0]), None);
}
