//! What the providers write for a deployment.

use std::collections::HashMap;

use homing::config::{Config, Overrides};

use crate::providers::{APP, PROJECT, Providers};

#[tokio::test]
async fn the_providers_write_a_profile_that_a_broker_takes() {
    let folder = tempfile::tempdir().unwrap();
    let providers = Providers::start(folder.path()).await;

    let profile = folder.path().join("push.toml");
    let overrides = Overrides {
        data_dir: None,
        database_url: None,
    };
    let push = Config::load(Some(&profile), HashMap::new(), overrides)
        .unwrap()
        .push;

    assert!(push.is_on());
    assert_eq!(push.apns.len(), 2, "production and sandbox");
    for app in &push.apns {
        assert_eq!((&*app.app, app.connect), (APP, Some(providers.apns)));
    }
    assert_eq!(
        (&*push.fcm[0].app, push.fcm[0].connect),
        (PROJECT, Some(providers.fcm))
    );
    let [apns, fcm, web] = [&push.apns[0].ca, &push.fcm[0].ca, &push.web[0].ca];
    let files = [apns, fcm, web].map(|ca| ca.as_ref().unwrap());
    let keys = [
        &push.apns[0].key,
        &push.fcm[0].service_account,
        &push.web[0].vapid_key,
    ];
    for file in files.into_iter().chain(keys) {
        assert!(file.is_file(), "{}", file.display());
    }
    assert!(push.web[0].private_hosts[0].starts_with("localhost:"));
}
