//! Google.

use std::time::Duration;

use homing::{
    domain::{ids::ConversationId, message::Sequence, push::Provider},
    push::notification::{Class, Outcome, Purpose},
};
use serde_json::json;

use super::{
    LIFETIME_SECONDS, Stage, address, dead, dropped, long_preview, mismatched, notification, now,
    our_fault, retry, send, send_to_many, token, wake,
};
use crate::providers::{Fault, OAUTH};

#[tokio::test]
async fn a_message_has_data_and_something_for_each_system() {
    let stage = Stage::new().await;
    let mut wake = wake(Class::Alert);
    wake.is_urgent = true;
    let conversation = wake.conversation.to_string();
    let notification = notification(Purpose::Wake(wake));
    let client = stage.client(Provider::Fcm);
    let now = (notification.expires_at_unix - LIFETIME_SECONDS) * 1000;
    let outcome = client.send(&address(&token(1)), &notification, now).await;
    assert_eq!(outcome, Outcome::Accepted);

    let mut message = stage.providers.wait_for(1).await[0].payload.clone();
    let collapse_key = message["android"]["collapse_key"].take();
    assert!(["c0", "c1", "c2"].contains(&collapse_key.as_str().unwrap()));
    let expected = json!({
        "token": token(1),
        "data": {
            "conversation": conversation,
            "seq": "7",
            "class": "alert",
            "urgent": "1",
            "badge": "3",
            "sound": "default",
            "loc_key": "HOMING_NEW_MESSAGE",
        },
        "android": { "priority": "HIGH", "ttl": "86400s", "collapse_key": null },
        "apns": {
            "headers": {
                "apns-push-type": "alert",
                "apns-priority": "10",
                "apns-expiration": notification.expires_at_unix.to_string(),
                "apns-collapse-id": conversation,
            },
            "payload": {
                "aps": {
                    "alert": { "loc-key": "HOMING_NEW_MESSAGE" },
                    "badge": 3,
                    "sound": "default",
                    "mutable-content": 1,
                    "thread-id": conversation,
                    "interruption-level": "time-sensitive",
                },
                "homing": { "conversation": conversation, "seq": 7 },
            },
        },
        "webpush": { "headers": { "TTL": "86400", "Urgency": "high", "Topic": conversation } },
    });
    assert_eq!(message, expected);
}

#[tokio::test]
async fn every_kind_of_notification_is_taken() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Fcm);
    let cleared = (ConversationId::random(), Sequence::new(9).unwrap());
    let sent = [
        notification(Purpose::Wake(wake(Class::Background))),
        notification(Purpose::Wake(wake(Class::Voip))),
        notification(Purpose::Clear(vec![cleared])),
        long_preview(Class::Alert),
    ];
    for notification in &sent {
        let outcome = client.send(&address(&token(1)), notification, now()).await;
        assert_eq!(outcome, Outcome::Accepted, "{notification:?}");
    }
    let accepted = stage.providers.wait_for(sent.len()).await;
    let seen: Vec<_> = accepted
        .iter()
        .map(|accepted| {
            let (android, apns) = (&accepted.payload["android"], &accepted.payload["apns"]);
            let push_type = &apns["headers"]["apns-push-type"];
            (
                android["priority"].as_str().unwrap(),
                push_type.as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("NORMAL", "background"),
        ("HIGH", "alert"),
        ("NORMAL", "alert"),
        ("HIGH", "alert"),
    ];
    assert_eq!(seen, expected);
    assert_eq!(accepted[2].payload["android"]["collapse_key"], "clear");
    let (conversation, sequence) = cleared;
    let expected = json!([[conversation, sequence]]).to_string();
    assert_eq!(accepted[2].payload["data"]["cleared"], expected);
    let data = &accepted[3].payload["data"];
    assert_eq!(data["title"], "Zoë");
    assert!(data["body"].as_str().unwrap().ends_with('…'));
    assert!((4096 - 16..=4096).contains(&accepted[3].body.len()));
}

#[tokio::test]
async fn what_google_answers_decides_what_becomes_of_it() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Fcm);
    let wait = |seconds| Some(Duration::from_secs(seconds));
    let cases = [
        (
            Fault::refuse(404, "UNREGISTERED"),
            dead("UNREGISTERED", None),
        ),
        // Without the code of FCM it is no word about the token.
        (Fault::refuse(404, "NOT_FOUND"), our_fault("HTTP 404")),
        (
            Fault::refuse(403, "SENDER_ID_MISMATCH"),
            mismatched("SENDER_ID_MISMATCH"),
        ),
        (
            Fault::refuse(403, "PERMISSION_DENIED"),
            our_fault("HTTP 403"),
        ),
        (
            Fault::refuse(400, "INVALID_ARGUMENT"),
            dropped("INVALID_ARGUMENT"),
        ),
        (
            Fault::refuse(
                400,
                "INVALID_ARGUMENT: The registration token is not a valid FCM registration token",
            ),
            mismatched("INVALID_ARGUMENT"),
        ),
        (
            Fault::refuse(429, "QUOTA_EXCEEDED"),
            retry("QUOTA_EXCEEDED", wait(60)),
        ),
        (
            Fault::retry_after(429, "QUOTA_EXCEEDED", "5"),
            retry("QUOTA_EXCEEDED", wait(5)),
        ),
        (
            Fault::retry_after(503, "UNAVAILABLE", "7"),
            retry("UNAVAILABLE", wait(7)),
        ),
        (Fault::refuse(500, "INTERNAL"), retry("INTERNAL", None)),
        (Fault::refuse(502, "Bad Gateway"), retry("HTTP 502", None)),
        (
            Fault::refuse(401, "THIRD_PARTY_AUTH_ERROR"),
            our_fault("THIRD_PARTY_AUTH_ERROR"),
        ),
    ];
    for (number, (fault, expected)) in cases.into_iter().enumerate() {
        stage.providers.script(&token(number), [fault]);
        assert_eq!(send(&client, &token(number)).await, expected);
        assert_eq!(send(&client, &token(number)).await, Outcome::Accepted);
    }
    assert_eq!(stage.providers.seen().token_fetches(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_fetch_one_access_token() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Fcm);
    send_to_many(&client, 50).await;
    assert_eq!(stage.providers.seen().token_fetches(), 1);

    stage.providers.revoke_access_tokens();
    send_to_many(&client, 50).await;
    assert_eq!(stage.providers.seen().token_fetches(), 2);
}

#[tokio::test]
async fn an_access_token_is_renewed_before_it_ends() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Fcm);
    let start = now();
    let fetches = async |seconds: i64| {
        stage.providers.set_clock_skew_seconds(seconds);
        let address = address(&token(1));
        let outcome = client
            .send(&address, &super::alert(), start + seconds * 1000)
            .await;
        assert_eq!(outcome, Outcome::Accepted);
        stage.providers.seen().token_fetches()
    };
    assert_eq!(fetches(0).await, 1);
    assert_eq!(fetches(3599 - 301).await, 1);
    assert_eq!(fetches(3599 - 300).await, 2);
}

#[tokio::test]
async fn a_token_that_stays_refused_is_not_fetched_again_and_again() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Fcm);
    stage
        .providers
        .script_always(&token(1), Fault::refuse(401, "UNAUTHENTICATED"));
    for _ in 0..3 {
        assert_eq!(send(&client, &token(1)).await, our_fault("HTTP 401"));
    }
    assert_eq!(stage.providers.seen().token_fetches(), 2);
    assert_eq!(send(&client, &token(2)).await, Outcome::Accepted);
}

/// Goal: an account that Google refuses loses nothing, and is not asked about at every turn.
#[tokio::test]
async fn without_an_access_token_notifications_wait() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Fcm);
    let start = now();
    let at = async |seconds: i64| {
        let (address, alert) = (address(&token(1)), super::alert());
        client.send(&address, &alert, start + seconds * 1000).await
    };
    let away = Fault::retry_after(503, "backend_error", "9");
    let refused = Fault::refuse(400, "invalid_grant: Invalid JWT Signature.");
    stage.providers.script(OAUTH, [away, refused]);
    let Outcome::Retry { reason, after } = at(0).await else {
        panic!("no access token is no end");
    };
    assert!(reason.starts_with("no access token: HTTP 503"), "{reason}");
    assert_eq!(after, Some(Duration::from_secs(9)));
    let refusal = "no access token: HTTP 400, invalid_grant, Invalid JWT Signature.";
    assert_eq!(at(0).await, our_fault(refusal));
    assert_eq!(at(29).await, our_fault(refusal));
    assert_eq!(at(30).await, Outcome::Accepted);
    assert_eq!(stage.providers.seen().token_fetches(), 1);
}

#[tokio::test]
async fn a_wrong_clock_is_told_of() {
    let stage = Stage::new().await;
    stage.providers.set_clock_skew_seconds(7200);
    let client = stage.client(Provider::Fcm);
    let Outcome::Retry { reason, .. } = send(&client, &token(1)).await else {
        panic!("a fault of ours is waited out");
    };
    assert!(reason.contains("s behind theirs"), "{reason}");
}
