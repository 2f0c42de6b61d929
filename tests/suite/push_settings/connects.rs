//! A phone that registers over REST before it has ever connected.

use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::{Place, TestBroker};

const APPS: &str = r#"
[[push.fcm]]
app = "my-project"
service_account = "/nowhere.json"
"#;

/// Whether alice's devices are connected, and whether they have a token.
async fn devices(broker: &TestBroker) -> Vec<(String, bool, bool)> {
    let (_, body) = broker
        .request(Method::GET, "alice", "/v1/devices", None)
        .await;
    let devices = body["devices"].as_array().unwrap().iter();
    devices
        .map(|device| {
            (
                device["client_id"].as_str().unwrap().to_owned(),
                device["connected"].as_bool().unwrap(),
                device["push_token"].is_object(),
            )
        })
        .collect()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_phone_registers_then_connects_and_is_one_device(pool: PgPool) {
    let broker = Place::new(&pool, &[]).with_profile(APPS).start().await;
    let token = json!({"provider": "fcm", "app": "my-project", "token": "abc"});
    let path = "/v1/devices/phone/push-token";
    let (status, body) = broker
        .request(Method::PUT, "alice", path, Some(token))
        .await;
    assert_eq!(status, 200, "{body}");
    let phone = |is_connected| vec![("phone".to_owned(), is_connected, true)];
    assert_eq!(devices(&broker).await, phone(false));

    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut wire = broker.listener("alice", "phone").await;
    broker
        .device("bob", "laptop")
        .await
        .say(&conversation, "hello")
        .await;
    assert_eq!(wire.drain(1, 1).await, ["hello"]);
    assert_eq!(devices(&broker).await, phone(true));

    let broker = broker.restart().await;
    assert_eq!(devices(&broker).await, phone(false));
}
