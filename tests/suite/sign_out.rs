//! A device that is signed out: lost, sold, or left at a friend's.

use std::time::Duration;

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::{
    harness::{Connect, TestBroker, now_unix},
    requests::ask,
};

/// Given a connected phone and a tablet, when the phone is signed out, then it is told and
/// disconnected, its token does not connect it any more, and the tablet goes on.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_that_is_signed_out_needs_a_new_token(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let old = broker.token_at("alice", now_unix() - 10, Duration::from_hours(1));
    let (mut phone, _) = broker
        .connect(Connect::v5("phone", &old).expiry(3600))
        .await;
    phone.subscribe(&["c/+/messages", "me/device"]).await;
    let mut tablet = broker.listener("alice", "tablet").await;

    let path = "/v1/devices/phone";
    let (status, _) = broker.request(Method::DELETE, "alice", path, None).await;
    assert_eq!(status, 204);
    let told = phone.delivery().await;
    assert_eq!(told.topic, "me/device");
    assert_eq!(told.json()["event"], "signed_out");
    phone.assert_disconnected(0x98).await;

    for (connect, code) in [
        (Connect::v5("phone", &old), 0x87),
        (Connect::v3("phone", "alice", &old), 5),
    ] {
        let refused = broker.open().await.connect(connect).await;
        assert_eq!(refused.code, code);
    }
    broker
        .open()
        .await
        .connect(Connect::v5("other", &old))
        .await;

    let mut bob = broker.device("bob", "bob").await;
    bob.say(&conversation, "1").await;
    assert_eq!(tablet.delivery().await.json()["id"], "1");

    let (_, devices) = broker
        .request(Method::GET, "alice", "/v1/devices", None)
        .await;
    let devices = devices["devices"].as_array().unwrap();
    let phone = devices.iter().find(|device| device["client_id"] == "phone");
    let phone = phone.unwrap();
    assert!(
        phone["signed_out_at"].is_i64() && phone["last_seen"].is_i64(),
        "{phone}"
    );
    assert_eq!(
        (&phone["connected"], &phone["format"]),
        (&false.into(), &"json".into())
    );

    let new = broker.token_at("alice", now_unix() + 5, Duration::from_hours(1));
    let (_, connack) = broker
        .connect(Connect::v5("phone", &new).expiry(3600))
        .await;
    assert!(!connack.is_present, "its session is gone");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn only_ones_own_devices_are_signed_out(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.listener("alice", "phone").await;
    for (user, path, status) in [
        ("bob", "/v1/devices/phone", 404),
        ("alice", "/v1/devices/none", 404),
        ("alice", "/v1/devices/%00", 400),
    ] {
        let (answered, body) = broker.request(Method::DELETE, user, path, None).await;
        assert_eq!(answered, status, "{user} {path} {body}");
    }
    phone.assert_quiet().await;
    broker.stop().await;
}

/// Given a device that was signed out, when its old token speaks for it, over REST or from another
/// connection, then nothing is set; with a new token it is.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_old_token_speaks_no_more_for_a_device_that_was_signed_out(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let old = broker.token_at("alice", now_unix() - 10, Duration::from_hours(1));
    let new = broker.token_at("alice", now_unix() + 5, Duration::from_hours(1));
    broker.connect(Connect::v5("phone", &old)).await;
    let (mut other, _) = broker.connect(Connect::v5("other", &old)).await;
    other.subscribe(&["me/device"]).await;
    let rest = async |token: &str| {
        let url = format!("http://{}/v1/devices/phone/format", broker.http());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.put(url).bearer_auth(token);
        let request = request.json(&json!({"format": "cbor"}));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(rest(&old).await.0, 200);
    let path = "/v1/devices/phone";
    let (status, _) = broker.request(Method::DELETE, "alice", path, None).await;
    assert_eq!(status, 204);

    let (status, text) = rest(&old).await;
    assert!(status == 403 && text.contains("signed out"), "{text}");
    let arguments = json!({"client_id": "phone", "format": "cbor"});
    let answer = ask(&mut other, "devices/format", &arguments).await;
    assert_eq!(answer["status"], 403, "{answer}");
    // For itself the other device goes on.
    let answer = ask(&mut other, "devices/format", &json!({"format": "json"})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(rest(&new).await.0, 200);
    broker.stop().await;
}
