//! Apple.

use std::{fs, time::Duration};

use homing::{
    domain::{ids::ConversationId, message::Sequence, push::Provider},
    push::notification::{Address, Class, Outcome, Purpose},
};
use rcgen::KeyPair;
use serde_json::json;

use super::{
    LIFETIME_SECONDS, Stage, address, alert, dead, dropped, long_preview, mismatched, notification,
    now, our_fault, retry, send, send_to_many, token, wake,
};
use crate::providers::{APP, Fault};

#[tokio::test]
async fn an_alert_arrives_as_apple_wants_it() {
    let stage = Stage::new().await;
    let mut wake = wake(Class::Alert);
    wake.is_urgent = true;
    let conversation = wake.conversation.to_string();
    let notification = notification(Purpose::Wake(wake));
    let client = stage.client(Provider::Apns);
    let outcome = client.send(&address(&token(1)), &notification, now()).await;
    assert_eq!(outcome, Outcome::Accepted);

    let accepted = &stage.providers.wait_for(1).await[0];
    let expected = json!({
        "aps": {
            "alert": { "loc-key": "HOMING_NEW_MESSAGE" },
            "badge": 3,
            "sound": "default",
            "mutable-content": 1,
            "thread-id": conversation,
            "interruption-level": "time-sensitive",
        },
        "homing": { "conversation": conversation, "seq": 7 },
    });
    assert_eq!(accepted.payload, expected);
    assert_eq!(accepted.token, token(1));
    assert_eq!(accepted.id, notification.id.to_string());
    for (name, value) in [
        ("apns-topic", APP),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-collapse-id", &conversation),
        ("apns-expiration", &notification.expires_at_unix.to_string()),
        (":authority", "api.push.apple.com"),
    ] {
        assert_eq!(accepted.headers[name], value, "{name}");
    }
}

#[tokio::test]
async fn every_kind_of_notification_is_taken() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    let phone = Address {
        voip_token: Some(token(2)),
        ..address(&token(1))
    };
    let cleared = (ConversationId::random(), Sequence::new(9).unwrap());
    let mut silent = notification(Purpose::Clear(vec![cleared]));
    silent.badge = None;
    let sent = [
        (notification(Purpose::Wake(wake(Class::Background))), &phone),
        (notification(Purpose::Wake(wake(Class::Voip))), &phone),
        (
            notification(Purpose::Wake(wake(Class::Voip))),
            &address(&token(3)),
        ),
        (notification(Purpose::Clear(vec![cleared])), &phone),
        (silent, &phone),
        (long_preview(Class::Alert), &phone),
        (long_preview(Class::Voip), &phone),
    ];
    for (notification, address) in &sent {
        let outcome = client.send(address, notification, now()).await;
        assert_eq!(outcome, Outcome::Accepted, "{notification:?}");
    }
    let accepted = stage.providers.wait_for(sent.len()).await;
    let seen: Vec<_> = accepted
        .iter()
        .map(|accepted| {
            let header = |name: &str| accepted.headers[name].as_str();
            (
                header("apns-push-type"),
                header("apns-priority"),
                header("apns-topic"),
            )
        })
        .collect();
    let voip = format!("{APP}.voip");
    let expected = [
        ("background", "5", APP),
        ("voip", "10", &voip),
        ("alert", "10", APP),
        ("alert", "5", APP),
        ("background", "5", APP),
        ("alert", "10", APP),
        ("voip", "10", &voip),
    ];
    assert_eq!(seen, expected);
    assert_eq!(accepted[1].token, token(2));
    assert_eq!(accepted[2].token, token(3));
    assert_eq!(accepted[3].headers["apns-collapse-id"], "clear");
    let (conversation, sequence) = cleared;
    let expected = json!({
        "aps": { "badge": 3, "content-available": 1 },
        "homing": { "cleared": [[conversation, sequence]] },
    });
    assert_eq!(accepted[3].payload, expected);
    // The limit is used, but for the rest of a character.
    assert!((4096 - 5..=4096).contains(&accepted[5].body.len()));
    assert!((5120 - 5..=5120).contains(&accepted[6].body.len()));
}

/// Goal: a PushKit token that is dead takes neither the call nor the device's other token along.
#[tokio::test]
async fn a_call_that_cannot_ring_is_shown() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    let phone = Address {
        voip_token: Some(token(2)),
        ..address(&token(1))
    };
    let call = notification(Purpose::Wake(wake(Class::Voip)));
    for fault in [
        Fault::gone("Unregistered", 1),
        Fault::refuse(400, "BadDeviceToken"),
    ] {
        stage.providers.script(&token(2), [fault]);
        assert_eq!(client.send(&phone, &call, now()).await, Outcome::Accepted);
    }
    stage
        .providers
        .script(&token(2), [Fault::refuse(503, "Shutdown")]);
    let outcome = client.send(&phone, &call, now()).await;
    assert_eq!(outcome, retry("Shutdown", None));
    let seen = stage.providers.seen();
    let tokens: Vec<_> = seen
        .accepted
        .iter()
        .map(|accepted| accepted.token.clone())
        .collect();
    assert_eq!(tokens, [token(1), token(1)]);
}

#[tokio::test]
async fn what_apple_answers_decides_what_becomes_of_it() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    let wait = |seconds| Some(Duration::from_secs(seconds));
    let cases = [
        (
            Fault::gone("Unregistered", 17),
            dead("Unregistered", Some(17)),
        ),
        (
            Fault::gone("ExpiredToken", 18),
            dead("ExpiredToken", Some(18)),
        ),
        (
            Fault::refuse(400, "BadDeviceToken"),
            mismatched("BadDeviceToken"),
        ),
        (
            Fault::refuse(400, "DeviceTokenNotForTopic"),
            mismatched("DeviceTokenNotForTopic"),
        ),
        (
            Fault::retry_after(429, "TooManyRequests", "17"),
            retry("TooManyRequests", wait(17)),
        ),
        (
            Fault::refuse(503, "ServiceUnavailable"),
            retry("ServiceUnavailable", None),
        ),
        (
            Fault::refuse(500, "InternalServerError"),
            retry("InternalServerError", None),
        ),
        (Fault::refuse(403, "Forbidden"), our_fault("Forbidden")),
        (
            Fault::refuse(403, "InvalidProviderToken"),
            our_fault("InvalidProviderToken"),
        ),
        (
            Fault::refuse(400, "TopicDisallowed"),
            our_fault("TopicDisallowed"),
        ),
        (
            Fault::refuse(400, "BadCollapseId"),
            dropped("BadCollapseId"),
        ),
    ];
    for (number, (fault, expected)) in cases.into_iter().enumerate() {
        stage.providers.script(&token(number), [fault]);
        assert_eq!(send(&client, &token(number)).await, expected);
        assert_eq!(send(&client, &token(number)).await, Outcome::Accepted);
    }
    assert_eq!(stage.providers.seen().provider_tokens.len(), 1);
}

/// Goal: a provider token that is refused as too old is replaced, once, for everybody.
#[tokio::test]
async fn an_expired_provider_token_is_signed_anew_once() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    let expired = || Fault::refuse(403, "ExpiredProviderToken");
    for number in 0..50 {
        stage.providers.script(&token(number), [expired()]);
    }
    send_to_many(&client, 50).await;
    assert_eq!(stage.providers.seen().provider_tokens.len(), 2);

    stage.providers.script_always(&token(0), expired());
    let outcome = send(&client, &token(0)).await;
    assert_eq!(outcome, our_fault("ExpiredProviderToken"));
    assert_eq!(send(&client, &token(1)).await, Outcome::Accepted);
    assert_eq!(stage.providers.seen().provider_tokens.len(), 2);
}

#[tokio::test]
async fn with_a_wrong_clock_the_token_is_dated_by_apples() {
    for skew in [-7200, 7200] {
        let stage = Stage::new().await;
        stage.providers.set_clock_skew_seconds(skew);
        let client = stage.client(Provider::Apns);
        assert_eq!(send(&client, &token(1)).await, Outcome::Accepted);
        assert_eq!(send(&client, &token(2)).await, Outcome::Accepted);
        assert_eq!(stage.providers.seen().provider_tokens.len(), 1);

        stage
            .providers
            .script(&token(3), [Fault::refuse(403, "Forbidden")]);
        let Outcome::Retry { reason, .. } = send(&client, &token(3)).await else {
            panic!("a fault of ours is waited out");
        };
        let told = if skew < 0 {
            "s ahead of theirs"
        } else {
            "s behind theirs"
        };
        assert!(reason.contains(told), "{reason}");
    }
}

/// Goal: a wrong key loses nothing, and is replaced without a restart.
#[tokio::test]
async fn a_replaced_key_is_used() {
    let stage = Stage::new().await;
    let file = &stage.providers.credentials().apns_key;
    let right = fs::read(file).unwrap();
    fs::write(file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let client = stage.client(Provider::Apns);
    let start = now();
    let at = async |seconds: i64| {
        let address = address(&token(1));
        client
            .send(&address, &alert(), start + seconds * 1000)
            .await
    };
    assert_eq!(at(0).await, our_fault("InvalidProviderToken"));

    fs::write(file, "no key").unwrap();
    assert_eq!(at(30).await, our_fault("InvalidProviderToken"));
    fs::write(file, right).unwrap();
    assert_eq!(at(60).await, Outcome::Accepted);
}

#[tokio::test]
async fn apple_keeps_a_notification_for_thirty_days_at_most() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    let mut notification = alert();
    notification.expires_at_unix += 100 * LIFETIME_SECONDS;
    let now = now();
    let outcome = client.send(&address(&token(1)), &notification, now).await;
    assert_eq!(outcome, Outcome::Accepted);
    let accepted = &stage.providers.wait_for(1).await[0];
    let expected = now / 1000 + 30 * LIFETIME_SECONDS;
    assert_eq!(accepted.headers["apns-expiration"], expected.to_string());
}

#[tokio::test]
async fn a_token_stays_one_part_of_the_path() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    for (token, expected) in [
        ("../../x", mismatched("BadDeviceToken")),
        ("a/b?c#d", mismatched("BadDeviceToken")),
        ("%2e%2e", mismatched("BadDeviceToken")),
        ("", dropped("MissingDeviceToken")),
        ("..", dropped("BadPath")),
    ] {
        assert_eq!(send(&client, token).await, expected, "{token}");
    }
}
