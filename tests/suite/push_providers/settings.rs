//! Settings and keys that cannot be right are found at the start, and named.

use std::fs;

use homing::push::provider::{check, open};

use super::Stage;
use crate::providers::{APP, PROJECT};

/// What is wrong, one line for each app.
fn faults(stage: &Stage) -> Vec<String> {
    let faults = check(&stage.config).into_iter();
    faults
        .filter_map(|(_, result)| result.err())
        .map(|error| error.to_string())
        .collect()
}

#[tokio::test]
async fn every_configured_app_has_its_client() {
    let stage = Stage::new().await;
    let clients = open(&stage.config).unwrap();
    let routes: Vec<_> = clients.iter().map(|(route, _)| route.to_string()).collect();
    let expected = [
        format!("apns:{APP}:production"),
        format!("apns:{APP}:sandbox"),
        format!("fcm:{PROJECT}:production"),
        format!("webpush:{APP}:production"),
    ];
    assert_eq!(routes, expected);
    assert!(faults(&stage).is_empty());
    let shown = format!("{clients:?}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[tokio::test]
async fn all_apps_are_checked_and_each_fault_is_named() {
    let stage = Stage::new().await;
    let credentials = stage.providers.credentials();
    fs::write(&credentials.vapid_key, "no key").unwrap();
    fs::write(&credentials.service_account, "{}").unwrap();
    fs::remove_file(&credentials.apns_key).unwrap();
    let faults_found = faults(&stage);
    assert_eq!(faults_found.len(), 4);
    for (fault, told) in faults_found.iter().zip([
        ("apns", "No such file"),
        ("apns", "No such file"),
        ("fcm", "no `client_email`"),
        ("webpush", "no private key in PEM form"),
    ]) {
        assert!(
            fault.starts_with(told.0) && fault.contains(told.1),
            "{fault}"
        );
    }
    assert!(open(&stage.config).is_err());
}

#[tokio::test]
async fn settings_that_cannot_be_right_are_named() {
    let mut stage = Stage::new().await;
    let folder = stage.providers.credentials().folder.clone();
    stage.config.apns[0].key_id = "AuthKey_1.p8".to_owned();
    stage.config.apns[1].url = Some("api.push.apple.com".to_owned());
    stage.config.fcm[0].ca = Some(folder.join("push.toml"));
    stage.config.web[0].subject = "push@example.com".to_owned();
    let told = [
        "`key_id` is not what Apple gives",
        "`url` is `api.push.apple.com`; write it as https://host",
        "push.toml: it holds no certificate",
        "`subject` is `push@example.com`; write whom",
    ];
    let faults = faults(&stage);
    assert_eq!(faults.len(), told.len(), "{faults:?}");
    for (fault, told) in faults.iter().zip(told) {
        assert!(fault.contains(told), "{fault}");
    }
}
