//! Where devices can be woken: registered, shown, refused, removed.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Answer, Api, answer, now_unix};

/// No key is read before something is pushed.
const APPS: &str = r#"
[[push.apns]]
app = "com.example.chat"
key = "/nowhere.p8"
key_id = "ABC123DEFG"
team_id = "DEF123GHIJ"

[[push.fcm]]
app = "my-project"
service_account = "/nowhere.json"

[[push.web]]
app = "chat.example.com"
vapid_key = "/nowhere.pem"
subject = "mailto:push@example.com"
private_hosts = ["push.test:8443", "10.0.0.7"]
"#;

const PHONE: &str = "/v1/devices/phone/push-token";
/// The public key and the secret of RFC 8291, appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

async fn api(pool: PgPool) -> Api {
    Api::start_with_profile(pool, APPS).await
}

fn apns(token: &str) -> Value {
    json!({"provider": "apns", "app": "com.example.chat", "token": token})
}

fn fcm(token: &str) -> Value {
    json!({"provider": "fcm", "app": "my-project", "token": token})
}

fn web(endpoint: &str) -> Value {
    json!({
        "provider": "webpush", "app": "chat.example.com", "token": endpoint,
        "p256dh": P256DH, "auth": AUTH,
    })
}

/// The same with another member, or with none if it is null.
fn with(mut body: Value, member: &str, value: Value) -> Value {
    let members = body.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(member)),
        value => drop(members.insert(member.to_owned(), value)),
    }
    body
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_registers_for_each_provider_and_the_token_is_never_told(pool: PgPool) {
    let api = api(pool).await;
    let voip = "AB".repeat(32);
    let phone = with(apns(&"aB".repeat(32)), "voip_token", json!(voip));
    for (device, body) in [
        ("phone", with(phone, "locale", json!("de-DE"))),
        ("pixel", fcm("dGVzdA:APA91b-_x")),
        ("browser", web("https://push.example.com/send/abc")),
        (
            "padded",
            with(
                web("https://push.example.com/2"),
                "auth",
                json!(format!("{AUTH}==")),
            ),
        ),
        ("test browser", web("http://push.test:8443/3")),
        ("test address", web("https://10.0.0.7/4")),
    ] {
        let path = format!("/v1/devices/{device}/push-token");
        let registered = api.put("alice", &path, body.clone()).await;
        assert_eq!(registered.status, 200, "{device}: {}", registered.text);
        assert_eq!(registered.body["provider"], body["provider"]);
        let shown = api.get("alice", &path).await;
        assert_eq!((shown.status, &shown.body), (200, &registered.body));
        let listed = api.get("alice", "/v1/devices").await.text;
        for member in ["token", "voip_token", "p256dh", "auth"] {
            let Some(secret) = body[member].as_str() else {
                continue;
            };
            for text in [&registered.text, &shown.text, &listed] {
                let is_told = text.to_lowercase().contains(&secret.to_lowercase());
                assert!(!is_told, "{device}: {text}");
            }
        }
    }
    let shown = api.get("alice", PHONE).await.body;
    assert_eq!(
        shown,
        json!({
            "provider": "apns", "app": "com.example.chat", "environment": "production",
            // Of the token in small letters, by sha256sum.
            "fingerprint": "271a413b", "voip": true, "locale": "de-DE",
            "registered_at": shown["registered_at"], "dead_since": null, "dead_reason": null,
        })
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_cannot_be_used_is_refused_with_the_reason(pool: PgPool) {
    let api = api(pool).await;
    let token = "ab".repeat(32);
    let point = format!("B{}", &P256DH[1..86]);
    for (body, says) in [
        (
            with(apns(&token), "app", json!("com.example.other")),
            "apns:com.example.chat:production, fcm:my-project:production",
        ),
        (
            with(apns(&token), "environment", json!("sandbox")),
            "apns:com.example.chat:sandbox",
        ),
        (
            with(apns(&token), "environment", json!("test")),
            "unknown variant",
        ),
        (
            with(apns(&token), "provider", json!("gcm")),
            "unknown variant",
        ),
        (
            with(apns(&token), "provider", json!("fcm")),
            "fcm:com.example.chat",
        ),
        (
            with(apns(&token), "app", Value::Null),
            "missing field `app`",
        ),
        (
            with(apns(&token), "token", Value::Null),
            "missing field `token`",
        ),
        (
            with(apns(&token), "color", json!(1)),
            "unknown field `color`",
        ),
        (apns(&"a".repeat(63)), "64 to 200 hexadecimal"),
        (apns(&"a".repeat(201)), "64 to 200 hexadecimal"),
        (apns(&"x".repeat(64)), "64 to 200 hexadecimal"),
        (apns(""), "64 to 200 hexadecimal"),
        (
            with(apns(&token), "voip_token", json!("zz")),
            "`voip_token`",
        ),
        (
            with(fcm("a"), "voip_token", json!(token)),
            "belongs to APNs",
        ),
        (with(fcm("a"), "auth", json!(AUTH)), "belong to Web Push"),
        (
            with(apns(&token), "p256dh", json!(P256DH)),
            "belong to Web Push",
        ),
        (fcm(""), "1 to 2048 visible"),
        (fcm(&"a".repeat(2049)), "1 to 2048 visible"),
        (fcm("a b"), "1 to 2048 visible"),
        (fcm("a\u{0}"), "1 to 2048 visible"),
        (fcm("grüße"), "1 to 2048 visible"),
        (web("push.example.com/1"), "https URL"),
        (web("http://push.example.com/1"), "https URL"),
        (web("ftp://push.test:8443/1"), "https URL"),
        (web("https://user@push.example.com/1"), "https URL"),
        (web("https://push.example.com/1#x"), "https URL"),
        (
            web(&format!("https://push.example.com/{}", "x".repeat(2048))),
            "https URL",
        ),
        (web("https://127.0.0.1/1"), "public internet"),
        (web("https://0x7f.1/1"), "public internet"),
        (web("https://[::1]/1"), "public internet"),
        (web("https://169.254.169.254/latest"), "public internet"),
        (web("https://10.0.0.8/1"), "public internet"),
        (web("https://localhost/1"), "public internet"),
        (web("https://postgres:5432/1"), "public internet"),
        (web("https://push.test.localhost:8443/1"), "public internet"),
        (
            with(web("https://push.example.com/1"), "p256dh", Value::Null),
            "`p256dh`",
        ),
        (
            with(
                web("https://push.example.com/1"),
                "p256dh",
                json!(&P256DH[4..]),
            ),
            "`p256dh`",
        ),
        (
            with(
                web("https://push.example.com/1"),
                "p256dh",
                json!(point + "A"),
            ),
            "`p256dh`",
        ),
        (
            with(web("https://push.example.com/1"), "auth", Value::Null),
            "`auth`",
        ),
        (
            with(web("https://push.example.com/1"), "auth", json!("AAAA")),
            "`auth`",
        ),
        (
            with(web("https://push.example.com/1"), "auth", json!("?")),
            "`auth`",
        ),
        (with(fcm("a"), "locale", json!("")), "`locale`"),
        (with(fcm("a"), "locale", json!("de_DE")), "`locale`"),
        (with(fcm("a"), "locale", json!("de-")), "`locale`"),
        (with(fcm("a"), "locale", json!("d")), "`locale`"),
        (with(fcm("a"), "locale", json!("de\u{0}")), "`locale`"),
        (
            with(fcm("a"), "locale", json!("de-".repeat(12) + "de")),
            "`locale`",
        ),
        (json!([]), "expected a JSON object"),
        (Value::Null, "expected a JSON object"),
    ] {
        let refused = api.put("alice", PHONE, body).await;
        refused.assert_problem(400, "invalid", says);
    }
    for client_id in ["%00", "a%0Ab", &"x".repeat(129)] {
        let path = format!("/v1/devices/{client_id}/push-token");
        for refused in [
            api.put("alice", &path, apns(&token)).await,
            api.get("alice", &path).await,
            api.delete("alice", &path).await,
        ] {
            refused.assert_problem(400, "invalid", "128 bytes");
        }
    }
    assert_eq!(
        api.get("alice", "/v1/devices").await.body,
        json!({"devices": []}),
        "a refusal leaves nothing behind"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn without_apps_nothing_is_registered(pool: PgPool) {
    let api = Api::start(pool).await;
    let refused = api.put("alice", PHONE, fcm("a")).await;
    refused.assert_problem(400, "invalid", "does not push");
    assert_eq!(api.delete("alice", PHONE).await.status, 204);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn putting_a_token_again_changes_nothing(pool: PgPool) {
    let api = api(pool).await;
    let first = api.put("alice", PHONE, fcm("one")).await;
    let again = api.put("alice", PHONE, fcm("one")).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    let listed = api.get("alice", "/v1/devices").await.body;
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        listed["devices"][0],
        json!({
            "client_id": "phone", "connected": false, "activity": "active", "format": "json",
            "connected_at": null, "last_seen": null, "signed_out_at": null,
            "push_token": first.body,
        })
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_token_can_be_removed_and_is_not_missed_twice(pool: PgPool) {
    let api = api(pool).await;
    api.get("alice", PHONE)
        .await
        .assert_problem(404, "not-found", "no push token");
    assert_eq!(api.delete("alice", PHONE).await.status, 204);
    api.put("alice", PHONE, fcm("one")).await;
    for _ in 0..2 {
        let removed = api.delete("alice", PHONE).await;
        assert_eq!((removed.status, removed.text.as_str()), (204, ""));
        api.get("alice", PHONE)
            .await
            .assert_problem(404, "not-found", "no push token");
    }
}

/// The phone is sold: the new owner's messages must not wake the old one's account, and the
/// other way round.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn whoever_registers_a_token_last_has_it_and_users_do_not_see_each_other(pool: PgPool) {
    let api = api(pool).await;
    assert_eq!(api.put("alice", PHONE, fcm("one")).await.status, 200);
    assert_eq!(api.put("bob", PHONE, fcm("one")).await.status, 200);

    assert_eq!(api.get("alice", PHONE).await.status, 404);
    let listed = api.get("alice", "/v1/devices").await.body;
    assert_eq!(listed["devices"][0]["push_token"], Value::Null);
    assert_eq!(api.delete("alice", PHONE).await.status, 204);
    assert_eq!(
        api.get("bob", PHONE).await.status,
        200,
        "alice removes only her own"
    );
    assert_eq!(
        api.get("eve", "/v1/devices").await.body,
        json!({"devices": []})
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_hundred_devices_have_tokens_and_the_next_one_is_told_what_to_do(pool: PgPool) {
    let api = api(pool).await;
    let put = async |device: usize, token: &str| {
        let path = format!("/v1/devices/d{device}/push-token");
        api.put("alice", &path, fcm(token)).await
    };
    for device in 0..100 {
        let registered = put(device, &format!("t{device}")).await;
        assert_eq!(registered.status, 200, "{}", registered.text);
    }
    put(100, "more")
        .await
        .assert_problem(409, "full", "DELETE /v1/devices/{client_id}/push-token");
    assert_eq!(put(7, "rotated").await.status, 200, "it has one already");
    assert_eq!(api.put("bob", PHONE, fcm("bobs")).await.status, 200);
    api.delete("alice", "/v1/devices/d3/push-token").await;
    assert_eq!(put(100, "more").await.status, 200);
}

async fn register(api: &Api, token: &str, push_token: &str) -> Answer {
    let request = api.request(Method::PUT, PHONE).json(&fcm(push_token));
    answer(request.bearer_auth(token)).await
}

async fn sign_out(api: &Api) -> u16 {
    let request = api.request(Method::DELETE, "/v1/devices/phone");
    answer(request.bearer_auth(api.token("alice"))).await.status
}

async fn tokens(pool: &PgPool) -> i64 {
    let count = sqlx::query_scalar("select count(*) from push_tokens");
    count.fetch_one(pool).await.unwrap()
}

/// Goal: whoever has a lost phone and its token is not told of messages any more.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_device_that_was_signed_out_registers_only_with_a_new_token(pool: PgPool) {
    let api = api(pool.clone()).await;
    let old = api.issue("alice", now_unix() - 10);
    assert_eq!(register(&api, &old, "1").await.status, 200);
    assert_eq!(sign_out(&api).await, 204);
    assert_eq!(tokens(&pool).await, 0);
    let refused = register(&api, &old, "1").await;
    refused.assert_problem(403, "forbidden", "signed out");
    assert_eq!(tokens(&pool).await, 0);
    let new = api.issue("alice", now_unix() + 5);
    assert_eq!(register(&api, &new, "1").await.status, 200);
    assert_eq!(tokens(&pool).await, 1);
}

/// Given a sign-out that the store interrupts, then nothing of it has happened.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_sign_out_happens_as_a_whole(pool: PgPool) {
    let api = api(pool.clone()).await;
    assert_eq!(register(&api, &api.token("alice"), "1").await.status, 200);
    for interrupt in [
        "create function interrupt() returns trigger language plpgsql as
             $$ begin raise exception 'interrupted'; end $$",
        "create trigger interrupt before update on devices for each row
             execute function interrupt()",
    ] {
        sqlx::query(interrupt).execute(&pool).await.unwrap();
    }
    assert_eq!(sign_out(&api).await, 500);
    assert_eq!(tokens(&pool).await, 1);
    let end = "drop trigger interrupt on devices";
    sqlx::query(end).execute(&pool).await.unwrap();
    assert_eq!(sign_out(&api).await, 204);
    assert_eq!(tokens(&pool).await, 0);
}
