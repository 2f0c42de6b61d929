//! Several apps, environments and providers side by side.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Fakes, Stage, told};
use crate::{
    providers::{APP, PROJECT},
    push_fakes::web_push_testing::WebPushTesting,
};

/// Goal: one message wakes each device of its reader, each in its own way; what the browser
/// gets is read by a push service that somebody else wrote.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn each_device_is_woken_by_its_own_provider(pool: PgPool) {
    let service = WebPushTesting::start().await;
    let mut fakes = Fakes::start().await;
    let host = format!("private_hosts = [\"localhost:{}\", ", service.port);
    fakes.profile = fakes.profile.replace("private_hosts = [", &host);
    let stage = Stage::of(pool, fakes, &[]).await;
    let phone = stage.apns("bob", "phone").await;
    let build = super::apns_token("bob", "build");
    let body = json!({"provider": "apns", "app": APP, "environment": "sandbox", "token": build});
    stage.register("bob", "build", body).await;
    let pixel = stage.fcm("bob", "pixel").await;
    let browser = stage.web("bob", "browser", "fr").await;
    let key = &stage.providers.credentials().vapid_public;
    let subscribed = service.subscribe(key).await;
    let body = json!({
        "provider": "webpush", "app": APP, "token": subscribed.endpoint,
        "p256dh": subscribed.p256dh, "auth": subscribed.auth,
    });
    stage.register("bob", "other browser", body).await;

    stage.say("1").await;
    for (token, host) in [
        (&phone, "api.push.apple.com"),
        (&build, "api.sandbox.push.apple.com"),
    ] {
        let pushed = stage.pushed(token, 1).await.remove(0);
        assert_eq!(
            (told(&pushed), &*pushed.headers[":authority"]),
            ((1, 1), host)
        );
    }
    let message = stage.pushed(&pixel, 1).await.remove(0).payload;
    assert_eq!(
        message["data"],
        json!({
            "conversation": stage.conversation, "seq": "1", "class": "alert", "badge": "1",
            "loc_key": "HOMING_NEW_MESSAGE", "sound": "default",
        })
    );
    let sealed = stage.pushed("bob-browser", 1).await.remove(0);
    let expected = |text: &str| {
        json!({
            "conversation": stage.conversation, "seq": 1, "class": "alert", "badge": 1, "text": text,
        })
    };
    let read = |plain: &[u8]| serde_json::from_slice::<Value>(plain).unwrap();
    let plain = browser.decrypt(&sealed).unwrap();
    assert_eq!(read(&plain), expected("Nouveau message"));
    stage.settle().await;
    let notifications = service.notifications(&subscribed).await;
    assert_eq!(notifications.len(), 1);
    assert_eq!(read(notifications[0].as_bytes()), expected("New message"));
    assert_eq!(stage.providers.seen().accepted.len(), 4);
    let mut ledger = stage.ledger("bob", 1).await;
    ledger.sort();
    assert_eq!(
        ledger,
        [
            "browser sent accepted",
            "build sent accepted",
            "other browser sent accepted",
            "phone sent accepted",
            "pixel sent accepted"
        ]
    );
    assert!(message["android"]["priority"] == "HIGH" && PROJECT != APP);

    // A subscription that has ended is dead, and the others are not.
    service.expire(&subscribed).await;
    let second = stage.say("2").await;
    stage.pushed("bob-browser", 2).await;
    stage.settle().await;
    let ledger = stage.ledger("bob", second).await;
    assert!(
        ledger
            .iter()
            .any(|line| line.starts_with("other browser dead")),
        "{ledger:?}"
    );
    stage.stop().await;
}
