//! What providers get, as JSON: what the tests against the fake providers do not show.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    CLEARED_MAX,
    apns::{Form, PushType},
    fcm, web,
};
use crate::{
    domain::{ids::ConversationId, message::Sequence},
    push::notification::{Class, Notification, Preview, Purpose, Text, Wake},
};

const NOW_UNIX: i64 = 1_800_000_000;

fn wake(class: Class, change: impl FnOnce(&mut Wake)) -> Notification {
    let mut wake = Wake {
        class,
        conversation: ConversationId(Uuid::from_u128(1)),
        sequence: Sequence::FIRST,
        is_urgent: false,
        text: Text {
            loc_key: None,
            generic: "New message".to_owned(),
            preview: None,
        },
        sound: String::new(),
    };
    change(&mut wake);
    notification(Purpose::Wake(wake))
}

fn notification(purpose: Purpose) -> Notification {
    Notification {
        id: Uuid::from_u128(2),
        purpose,
        badge: None,
        expires_at_unix: NOW_UNIX + 60,
    }
}

fn preview(title: &str) -> Preview {
    Preview {
        title: title.to_owned(),
        body: "Hello".to_owned(),
    }
}

fn to_apple(notification: &Notification) -> Value {
    let form = Form::new(PushType::of(notification));
    serde_json::from_slice(&form.payload(notification).unwrap()).unwrap()
}

fn to_google(notification: &Notification) -> Value {
    let message = fcm::message(notification, "token", NOW_UNIX).unwrap();
    serde_json::from_slice::<Value>(&message).unwrap()["message"].take()
}

fn to_browser(notification: &Notification) -> Value {
    serde_json::from_slice(&web::payload(notification).unwrap()).unwrap()
}

#[test]
fn without_a_key_of_the_app_the_generic_text_is_sent() {
    let plain = wake(Class::Alert, |_| {});
    let aps = json!({
        "alert": { "body": "New message" },
        "mutable-content": 1,
        "thread-id": "AAAAAAAAAAAAAAAAAAAAAQ",
    });
    assert_eq!(to_apple(&plain)["aps"], aps);
    let data = json!({
        "conversation": "AAAAAAAAAAAAAAAAAAAAAQ",
        "seq": "1",
        "class": "alert",
        "text": "New message",
    });
    assert_eq!(to_google(&plain)["data"], data);
}

#[test]
fn a_preview_takes_the_place_of_the_key() {
    let shown = wake(Class::Alert, |wake| {
        wake.text.loc_key = Some("KEY".to_owned());
        wake.text.preview = Some(preview("Alice"));
    });
    let alert = json!({ "title": "Alice", "body": "Hello" });
    assert_eq!(to_apple(&shown)["aps"]["alert"], alert);
    let data = &to_google(&shown)["data"];
    assert_eq!(
        (&data["title"], &data["body"]),
        (&json!("Alice"), &json!("Hello"))
    );
    assert_eq!(data["loc_key"], Value::Null);
    let content = to_browser(&shown);
    assert_eq!(
        (&content["title"], &content["body"]),
        (&json!("Alice"), &json!("Hello"))
    );

    let untitled = wake(Class::Alert, |wake| wake.text.preview = Some(preview("")));
    assert_eq!(
        to_apple(&untitled)["aps"]["alert"],
        json!({ "body": "Hello" })
    );
}

#[test]
fn what_nobody_sees_says_nothing() {
    let silent = wake(Class::Background, |wake| {
        wake.text.preview = Some(preview("Alice"));
        wake.sound = "default".to_owned();
    });
    assert_eq!(to_apple(&silent)["aps"], json!({ "content-available": 1 }));
    let data = json!({
        "conversation": "AAAAAAAAAAAAAAAAAAAAAQ",
        "seq": "1",
        "class": "background",
    });
    assert_eq!(to_google(&silent)["data"], data);
}

#[test]
fn google_sees_four_collapse_keys_of_a_device() {
    let mut keys: Vec<_> = (0..100)
        .map(|number| {
            wake(Class::Alert, |wake| {
                wake.conversation = ConversationId(Uuid::from_u128(number));
            })
        })
        .chain([notification(Purpose::Clear(Vec::new()))])
        .map(|notification| to_google(&notification)["android"]["collapse_key"].to_string())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys, [r#""c0""#, r#""c1""#, r#""c2""#, r#""clear""#]);
}

#[test]
fn what_is_cleared_at_once_is_bounded_and_fits() {
    let position = (ConversationId::random(), Sequence::new(i64::MAX).unwrap());
    let many = notification(Purpose::Clear(vec![position; 100]));
    let cleared = &to_apple(&many)["homing"]["cleared"];
    assert_eq!(cleared.as_array().unwrap().len(), CLEARED_MAX);
    let cleared = to_browser(&many)["cleared"].clone();
    assert_eq!(cleared.as_array().unwrap().len(), CLEARED_MAX);
    assert!(to_google(&many)["data"]["cleared"].is_string());
}

#[test]
fn what_is_past_is_tried_once() {
    let mut late = wake(Class::Alert, |_| {});
    late.expires_at_unix = NOW_UNIX - 1;
    assert_eq!(to_google(&late)["android"]["ttl"], "0s");
    assert_eq!(web::time_to_live(&late, NOW_UNIX), 0);
    late.expires_at_unix = i64::MAX;
    assert_eq!(to_google(&late)["android"]["ttl"], "2419200s");
    assert_eq!(web::time_to_live(&late, NOW_UNIX), 2_419_200);
}

#[test]
fn a_text_that_cannot_be_shortened_is_not_sent() {
    let large = wake(Class::Alert, |wake| wake.text.generic = "x".repeat(5000));
    assert_eq!(Form::new(PushType::Alert).payload(&large), None);
    assert_eq!(fcm::message(&large, "token", NOW_UNIX), None);
    assert_eq!(web::payload(&large), None);
}
