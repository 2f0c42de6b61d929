//! What a notification looks like: as the templates of the deployment say.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Fakes, Stage, apns_token, told};
use crate::providers::APP;

const TEMPLATES: &str = r#"
[push]
templates = [
    { app = "", type = "typing", class = "none", loc_key = "", sound = "", preview = false },
    { app = "", type = "position", class = "background", loc_key = "", sound = "", preview = false },
    { app = "", type = "call", class = "voip", loc_key = "CALL", sound = "", preview = false },
    { app = "", type = "silent", class = "alert", loc_key = "", sound = "", preview = false },
    { app = "", type = "", class = "alert", loc_key = "NEW", sound = "ping.caf", preview = true },
]
"#;

async fn stage(pool: PgPool) -> Stage {
    let mut fakes = Fakes::start().await;
    fakes.profile.insert_str(0, TEMPLATES);
    Stage::of(pool, fakes, &[]).await
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_type_that_is_not_pushed_wakes_nobody(pool: PgPool) {
    let stage = stage(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let first = stage.say_with("1", json!({"type": "typing"})).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", first).await,
        ["phone suppressed template"]
    );
    let second = stage.say("2").await;
    assert_eq!(told(&stage.pushed(&phone, 1).await[0]), (second, 2));
    stage.stop().await;
}

/// Goal: Apple allows two or three such notifications an hour; urgent ones do not wait.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn background_notifications_are_rare_unless_urgent(pool: PgPool) {
    let stage = stage(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let position = json!({"type": "position"});
    stage.say_with("1", position.clone()).await;
    let first = stage.pushed(&phone, 1).await.remove(0);
    assert_eq!(first.payload["aps"], json!({"content-available": 1}));
    assert_eq!(
        (
            &*first.headers["apns-push-type"],
            &*first.headers["apns-priority"]
        ),
        ("background", "5")
    );
    stage.settle().await;

    let second = stage.say_with("2", position).await;
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", second).await,
        [
            "phone postponed background_interval",
            "phone waits armed background_interval"
        ]
    );
    assert_eq!(stage.seen(&phone).len(), 1);
    let urgent = json!({"type": "position", "urgent": true});
    stage.say_with("3", urgent).await;
    assert_eq!(told(&stage.pushed(&phone, 2).await[1]).0, 3);
    stage.settle().await;

    let fourth = stage.say_with("4", json!({"type": "position"})).await;
    stage.settle().await;
    assert_eq!(stage.seen(&phone).len(), 2);
    stage.pass(1).await;
    assert_eq!(told(&stage.pushed(&phone, 3).await[2]).0, fourth);
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_call_goes_to_the_token_for_calls(pool: PgPool) {
    let stage = stage(pool).await;
    let (token, calls) = (apns_token("bob", "phone"), apns_token("bob", "calls"));
    let both = json!({"provider": "apns", "app": APP, "token": token, "voip_token": calls});
    stage.register("bob", "phone", both).await;
    let plain = stage.apns("carol", "phone").await;
    let call = json!({"type": "call", "urgent": true});
    stage.say_with("1", call).await;
    let rings = stage.pushed(&calls, 1).await.remove(0);
    assert_eq!(rings.headers["apns-topic"], format!("{APP}.voip"));
    assert_eq!(rings.headers["apns-push-type"], "voip");
    assert_eq!(rings.payload["aps"]["alert"], json!({"loc-key": "CALL"}));
    let shows = stage.pushed(&plain, 1).await.remove(0);
    assert_eq!(shows.headers["apns-topic"], APP);
    assert_eq!(shows.headers["apns-push-type"], "alert");
    stage.say_with("2", json!({"type": "silent"})).await;
    stage.pushed(&token, 1).await;
    stage.settle().await;
    assert_eq!(stage.seen(&calls).len(), 1);
    stage.stop().await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_preview_shows_text_and_never_ciphertext(pool: PgPool) {
    let stage = stage(pool).await;
    let phone = stage.apns("bob", "phone").await;
    let pixel = stage.fcm("bob", "pixel").await;
    let browser = stage.web("bob", "browser", "de-AT").await;
    let decrypted = |count: usize| {
        let seen = stage.seen("bob-browser");
        let plain = browser.decrypt(&seen[count - 1]).unwrap();
        serde_json::from_slice::<Value>(&plain).unwrap()
    };

    stage.say("1").await;
    let shown = stage.pushed(&phone, 1).await.remove(0);
    let text = json!({"title": "alice", "body": "secret 1"});
    assert_eq!(shown.payload["aps"]["alert"], text);
    assert_eq!(shown.payload["aps"]["sound"], "ping.caf");
    let shown = stage.pushed(&pixel, 1).await.remove(0);
    assert_eq!(shown.payload["data"]["body"], "secret 1");
    stage.pushed("bob-browser", 1).await;
    assert_eq!(decrypted(1)["body"], "secret 1");

    stage.settle().await;
    stage.say_with("2", json!({"type": "encrypted"})).await;
    let hidden = stage.pushed(&phone, 2).await.remove(1);
    assert_eq!(hidden.payload["aps"]["alert"], json!({"loc-key": "NEW"}));
    let hidden = stage.pushed(&pixel, 2).await.remove(1);
    assert_eq!(hidden.payload["data"]["loc_key"], "NEW");
    stage.pushed("bob-browser", 2).await;
    for hidden in [hidden.payload.to_string(), decrypted(2).to_string()] {
        assert!(
            !hidden.contains("secret") && !hidden.contains("alice"),
            "{hidden}"
        );
    }
    assert_eq!(decrypted(2)["text"], "Neue Nachricht");

    // Without a key of the app's own the text is written here.
    stage.settle().await;
    let long = "grüße ".repeat(2_000);
    stage.say_with("3", json!({"body": long})).await;
    let shown = stage.pushed(&phone, 3).await.remove(2);
    let text = shown.payload["aps"]["alert"]["body"].as_str().unwrap();
    assert!(
        text.starts_with("grüße") && shown.body.len() <= 4096,
        "{text}"
    );
    stage.stop().await;
}
