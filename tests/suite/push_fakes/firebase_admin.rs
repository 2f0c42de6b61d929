//! firebase-admin: a client of FCM that Google wrote, unmodified, by way of a proxy.

use serde_json::json;
use tokio::process::Command;

use super::{client::Stage, installed, play, script_path};
use crate::providers::{ConnectProxy, Fault, Kind};

/// Goal: the fake refuses nothing of its messages, and it maps the fake's errors as Google's.
#[tokio::test]
async fn firebase_admin_lives_with_the_fake() {
    let stage = Stage::set().await;
    let providers = &stage.providers;
    let ways = ["fcm.googleapis.com:443", "oauth2.googleapis.com:443"];
    let proxy = ConnectProxy::start(&ways.map(|name| (name, providers.fcm))).await;
    let faults = [
        (404, "UNREGISTERED"),
        (403, "SENDER_ID_MISMATCH"),
        (429, "QUOTA_EXCEEDED"),
        (401, "THIRD_PARTY_AUTH_ERROR"),
    ];
    for (status, code) in faults {
        providers.script_always(code, Fault::refuse(status, code));
    }
    for (status, code) in [(500, "INTERNAL"), (503, "UNAVAILABLE")] {
        providers.script_always(code, Fault::retry_after(status, code, "1"));
    }
    let credentials = providers.credentials();
    let setting = json!({ "account": credentials.service_account });
    let mut command = Command::new(installed("venv/bin/python"));
    command
        .arg(script_path("firebase_admin_story.py"))
        .arg(setting.to_string());
    command
        .env("HTTPS_PROXY", format!("http://{}", proxy.address))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    command
        .env("REQUESTS_CA_BUNDLE", &credentials.ca)
        .env("SSL_CERT_FILE", &credentials.ca);
    command.kill_on_drop(true);
    play(command).await;

    let seen = providers.seen();
    let tokens: Vec<_> = seen.accepted.iter().map(|one| &*one.token).collect();
    assert_eq!(tokens, ["device-1", "device-2", "device-3", "device-4"]);
    let message = &seen.accepted[0].payload;
    assert_eq!(message["android"]["ttl"], "2419200s");
    assert_eq!(message["data"]["seq"], "7");
    assert_eq!(
        (seen.count(Kind::Fcm, 404), seen.count(Kind::Fcm, 503)),
        (1, 5)
    );
}
