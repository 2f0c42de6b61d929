//! What FCM refuses.

use serde_json::{Value, json};

use super::{
    client::{Sent, Stage},
    oauth,
};
use crate::providers::PROJECT;

fn url(project: &str) -> String {
    format!("https://fcm.googleapis.com/v1/projects/{project}/messages:send")
}

pub(super) fn to(access: &str, token: &str) -> Sent {
    request(access, &json!({ "message": right(token) }))
}

fn request(access: &str, body: &Value) -> Sent {
    Sent::post(url(PROJECT), body.to_string())
        .with("content-type", "application/json")
        .with("authorization", format!("Bearer {access}"))
}

fn right(token: &str) -> Value {
    json!({
        "token": token,
        "data": { "conversation": "c", "seq": "7" },
        "android": { "priority": "high", "ttl": "2419200s", "collapse_key": "c" },
        "apns": { "headers": { "apns-priority": "10" }, "payload": { "aps": { "badge": 1 } } },
        "webpush": { "headers": { "TTL": "60" } },
    })
}

async fn answer(stage: &Stage, sent: Sent) -> (u16, Value) {
    let response = stage.send(sent).await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap(),
    )
}

/// One thing that is wrong with a message, and what the answer speaks of.
type Mistake = (&'static str, fn(&mut Value), &'static str);

const MISTAKES: [Mistake; 14] = [
    (
        "no target",
        |message| drop(message.as_object_mut().unwrap().remove("token")),
        "Exactly one",
    ),
    (
        "two targets",
        |message| message["topic"] = "t".into(),
        "Exactly one",
    ),
    (
        "a token",
        |message| message["token"] = "a b".into(),
        "valid FCM registration token",
    ),
    (
        "a number in data",
        |message| message["data"]["seq"] = 7.into(),
        "'message.data'",
    ),
    (
        "a reserved key",
        |message| message["data"]["from"] = "x".into(),
        "data payload key",
    ),
    (
        "Google's key",
        |message| message["data"]["google.x"] = "x".into(),
        "data payload key",
    ),
    (
        "a field",
        |message| message["prioriti"] = "x".into(),
        "Cannot find field",
    ),
    (
        "a field of android",
        |message| message["android"]["x"] = 1.into(),
        "Cannot find field",
    ),
    (
        "a priority",
        |message| message["android"]["priority"] = "max".into(),
        "android.priority",
    ),
    (
        "a ttl in numbers",
        |message| message["android"]["ttl"] = 60.into(),
        "android.ttl",
    ),
    (
        "a ttl without unit",
        |message| message["android"]["ttl"] = "60".into(),
        "android.ttl",
    ),
    (
        "a ttl of 29 days",
        |message| message["android"]["ttl"] = "2505600s".into(),
        "android.ttl",
    ),
    (
        "4097 bytes",
        |message| message["data"]["x"] = "x".repeat(4060).into(),
        "too big",
    ),
    (
        "a header of APNs that is no text",
        |message| message["apns"]["headers"]["apns-priority"] = 10.into(),
        "apns.headers",
    ),
];

#[tokio::test]
async fn fcm_refuses_messages_that_are_not_as_documented() {
    let stage = Stage::set().await;
    let (access, _) = oauth::fetch(&stage).await;
    for (name, mistake, reason) in MISTAKES {
        let mut message = right("device-1");
        mistake(&mut message);
        let sent = request(&access, &json!({ "message": message }));
        let (status, body) = answer(&stage, sent).await;
        assert_eq!(status, 400, "{name}: {body}");
        assert!(
            body["error"]["message"].as_str().unwrap().contains(reason),
            "{name}: {body}"
        );
        assert_eq!(
            body["error"]["details"][0]["errorCode"], "INVALID_ARGUMENT",
            "{name}"
        );
    }
    let (status, body) = answer(&stage, to(&access, "device-1")).await;
    assert_eq!(status, 200, "nothing is wrong: {body}");
    assert!(
        body["name"]
            .as_str()
            .unwrap()
            .starts_with("projects/homing-fake/messages/")
    );
    let accepted = stage.providers.wait_for(1).await;
    assert_eq!(accepted[0].payload, right("device-1"));
}

#[tokio::test]
async fn fcm_lets_nobody_in_without_a_fresh_access_token() {
    let stage = Stage::set().await;
    let (access, seconds) = oauth::fetch(&stage).await;
    let sent = || to(&access, "device-1");

    let (status, body) = answer(&stage, to("made-up", "device-1")).await;
    assert_eq!(
        (status, &body["error"]["status"]),
        (401, &"UNAUTHENTICATED".into())
    );
    let mut elsewhere = sent();
    elsewhere.url = url("other-project");
    let (status, body) = answer(&stage, elsewhere).await;
    assert_eq!(
        (status, &body["error"]["status"]),
        (403, &"PERMISSION_DENIED".into())
    );
    assert_eq!(answer(&stage, sent()).await.0, 200);

    stage.providers.set_clock_skew_seconds(seconds + 1);
    assert_eq!(answer(&stage, sent()).await.0, 401, "it has ended");
    stage.providers.set_clock_skew_seconds(0);
    assert_eq!(answer(&stage, sent()).await.0, 200);
    stage.providers.revoke_access_tokens();
    assert_eq!(answer(&stage, sent()).await.0, 401, "it is revoked");
}
