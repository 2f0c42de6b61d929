//! What APNs refuses.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Mistake, Sent, Signer, Stage, now_and};
use crate::{
    harness::within,
    providers::{APP, Accepted, KEY_ID, Kind, TEAM_ID},
};

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const HOST: &str = "https://api.push.apple.com";

/// The header for a token that is changed before it is signed.
pub(super) fn bearer(stage: &Stage, change: impl FnOnce(&mut Signer, &mut Value)) -> String {
    let mut signer = Signer::es256(&stage.providers.credentials().apns_key, KEY_ID);
    let mut claims = json!({ "iss": TEAM_ID, "iat": now_and(0) });
    change(&mut signer, &mut claims);
    format!("bearer {}", signer.sign(&claims))
}

pub(super) fn to(stage: &Stage, token: &str) -> Sent {
    let payload = json!({ "aps": { "alert": { "loc-key": "NEW" }, "mutable-content": 1 } });
    Sent::post(format!("{HOST}/3/device/{token}"), payload.to_string())
        .with("authorization", bearer(stage, |_, _| {}))
        .with("apns-topic", APP)
        .with("apns-push-type", "alert")
        .with("apns-priority", "10")
        .with("apns-expiration", now_and(3600).to_string())
        .with("apns-collapse-id", "c".repeat(64))
}

pub(super) fn right(stage: &Stage) -> Sent {
    to(stage, TOKEN)
}

fn payload(sent: &mut Sent, payload: &Value) {
    sent.body = payload.to_string().into_bytes();
}

fn silent(sent: &mut Sent, aps: &Value) {
    sent.set("apns-push-type", "background");
    sent.set("apns-priority", "5");
    payload(sent, &json!({ "aps": aps }));
}

const REQUESTS: [Mistake; 6] = [
    (
        "a path",
        |_, sent| sent.url = format!("{HOST}/4/device/{TOKEN}"),
        404,
        "BadPath",
    ),
    ("a query", |_, sent| sent.url += "?x=1", 404, "BadPath"),
    (
        "a method",
        |_, sent| sent.method = Method::PUT,
        405,
        "MethodNotAllowed",
    ),
    (
        "no token",
        |_, sent| sent.url = format!("{HOST}/3/device/"),
        400,
        "MissingDeviceToken",
    ),
    (
        "not hexadecimal",
        |_, sent| sent.url.replace_range(99.., "z"),
        400,
        "BadDeviceToken",
    ),
    (
        "too short",
        |_, sent| sent.url.truncate(80),
        400,
        "BadDeviceToken",
    ),
];

#[tokio::test]
async fn apns_refuses_paths_and_methods_of_its_own_making() {
    Stage::set().await.refuses(right, &REQUESTS).await;
}

const HEADERS: [Mistake; 14] = [
    (
        "no topic",
        |_, sent| sent.remove("apns-topic"),
        400,
        "MissingTopic",
    ),
    (
        "another app",
        |_, sent| sent.set("apns-topic", "com.other"),
        400,
        "TopicDisallowed",
    ),
    (
        "an unknown suffix",
        |_, sent| sent.set("apns-topic", format!("{APP}.else")),
        400,
        "TopicDisallowed",
    ),
    (
        "no type",
        |_, sent| sent.remove("apns-push-type"),
        400,
        "InvalidPushType",
    ),
    (
        "a type",
        |_, sent| sent.set("apns-push-type", "loud"),
        400,
        "InvalidPushType",
    ),
    (
        "a call to the app",
        |_, sent| sent.set("apns-push-type", "voip"),
        400,
        "BadTopic",
    ),
    (
        "an alert to PushKit",
        |_, sent| sent.set("apns-topic", format!("{APP}.voip")),
        400,
        "BadTopic",
    ),
    (
        "a priority",
        |_, sent| sent.set("apns-priority", "7"),
        400,
        "BadPriority",
    ),
    (
        "silence with priority 10",
        |_, sent| {
            silent(sent, &json!({ "content-available": 1 }));
            sent.set("apns-priority", "10");
        },
        400,
        "BadPriority",
    ),
    (
        "an expiration",
        |_, sent| sent.set("apns-expiration", "-1"),
        400,
        "BadExpirationDate",
    ),
    (
        "a date as expiration",
        |_, sent| sent.set("apns-expiration", "2026-01-01"),
        400,
        "BadExpirationDate",
    ),
    (
        "a collapse id of 65 bytes",
        |_, sent| sent.set("apns-collapse-id", "c".repeat(65)),
        400,
        "BadCollapseId",
    ),
    (
        "an id",
        |_, sent| sent.set("apns-id", "1"),
        400,
        "BadMessageId",
    ),
    (
        "an id without hyphens",
        |_, sent| sent.set("apns-id", "a".repeat(32)),
        400,
        "BadMessageId",
    ),
];

#[tokio::test]
async fn apns_refuses_headers_that_do_not_fit() {
    Stage::set().await.refuses(right, &HEADERS).await;
}

const PAYLOADS: [Mistake; 12] = [
    ("nothing", |_, sent| sent.body.clear(), 400, "PayloadEmpty"),
    (
        "no JSON",
        |_, sent| sent.body.truncate(5),
        400,
        "PayloadEmpty",
    ),
    (
        "no aps",
        |_, sent| payload(sent, &json!({ "a": 1 })),
        400,
        "PayloadEmpty",
    ),
    (
        "4097 bytes",
        |_, sent| fill(sent, 4097),
        413,
        "PayloadTooLarge",
    ),
    (
        "5121 bytes for PushKit",
        |_, sent| {
            call(sent);
            fill(sent, 5121);
        },
        413,
        "PayloadTooLarge",
    ),
    (
        "an unknown key",
        |_, sent| aps(sent, &json!({ "alert": "a", "bagde": 1 })),
        400,
        "strict",
    ),
    (
        "a badge in words",
        |_, sent| aps(sent, &json!({ "badge": "3" })),
        400,
        "strict",
    ),
    (
        "a badge below 0",
        |_, sent| aps(sent, &json!({ "badge": -1 })),
        400,
        "strict",
    ),
    (
        "arguments that are no texts",
        |_, sent| aps(sent, &json!({ "alert": { "loc-args": [1] } })),
        400,
        "strict",
    ),
    (
        "an unknown level",
        |_, sent| aps(sent, &json!({ "alert": "a", "interruption-level": "loud" })),
        400,
        "strict",
    ),
    (
        "an alert that shows nothing",
        |_, sent| aps(sent, &json!({ "mutable-content": 1 })),
        400,
        "strict",
    ),
    (
        "silence with a badge",
        |_, sent| silent(sent, &json!({ "content-available": 1, "badge": 1 })),
        400,
        "strict",
    ),
];

#[tokio::test]
async fn apns_refuses_payloads_that_do_not_fit() {
    Stage::set().await.refuses(right, &PAYLOADS).await;
}

fn aps(sent: &mut Sent, aps: &Value) {
    payload(sent, &json!({ "aps": aps }));
}

fn call(sent: &mut Sent) {
    sent.set("apns-push-type", "voip");
    sent.set("apns-topic", format!("{APP}.voip"));
}

/// A payload of so many bytes.
fn fill(sent: &mut Sent, bytes: usize) {
    let empty = json!({ "aps": { "alert": "" } }).to_string().len();
    aps(sent, &json!({ "alert": "x".repeat(bytes - empty) }));
    assert_eq!(sent.body.len(), bytes);
}

/// Goal: what is accepted can be looked at, and is answered with the id it was sent under.
#[tokio::test]
async fn apns_accepts_what_is_right_up_to_the_limits() {
    let stage = Stage::set().await;
    let id = "EC1BF194-B3B2-424A-89A9-5A918A6E6B5D";
    let mut full = right(&stage).with("apns-id", id);
    fill(&mut full, 4096);
    let mut ringing = right(&stage);
    call(&mut ringing);
    fill(&mut ringing, 5120);
    let mut quiet = right(&stage);
    silent(&mut quiet, &json!({ "content-available": 1 }));

    let began = now_and(0);
    let response = stage.send(full).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["apns-id"], id);
    assert!(response.headers().contains_key("date"));
    let first = within("the first", stage.providers.after(0)).await;
    assert_eq!((first.kind, first.at_unix >= began), (Kind::Apns, true));
    for sent in [ringing, quiet] {
        let response = stage.send(sent).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["apns-id"].len(), 36, "it is given one");
    }

    let accepted = within("them", stage.providers.wait_for(3)).await;
    assert_eq!(types(&accepted), ["alert", "voip", "background"]);
    assert_eq!((&*accepted[0].token, &*accepted[0].id), (TOKEN, id));
    assert_eq!(
        accepted[2].payload,
        json!({ "aps": { "content-available": 1 } })
    );
    assert_eq!(accepted[2].headers[":authority"], "api.push.apple.com");
}

/// How notifications were to be delivered.
pub(super) fn types(accepted: &[Accepted]) -> Vec<&str> {
    accepted
        .iter()
        .map(|one| &*one.headers["apns-push-type"])
        .collect()
}
