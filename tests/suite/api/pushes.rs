//! Why a message woke a device, or did not.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::Api;

const FCM: &str = r#"
[[push.fcm]]
app = "my-project"
service_account = "/nowhere.json"
"#;

/// The row of the ledger that a worker writes, half a second after the commit.
async fn decide(pool: &PgPool) {
    sqlx::query(
        "insert into push_attempts (conversation_id, user_id, device_id, kind, from_seq, to_seq,
                                    outcome, reason, route, notification_id, committed_at,
                                    claimed_at, decided_at)
         select m.conversation_id, u.user_id, d.device_id, 'wake', 1, 1, 'retry', 'HTTP 503',
                'fcm:my-project:production', '0198f3c2-0000-7000-8000-000000000001', m.created_at,
                m.created_at + interval '300 milliseconds',
                m.created_at + interval '500 milliseconds'
         from messages m, users u join devices d on d.user_id = u.user_id
         where u.subject = 'bob' and m.seq = 1",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn users_ask_about_their_devices_and_administrators_about_all(pool: PgPool) {
    let api = Api::start_with_profile(pool.clone(), FCM).await;
    let cid = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let token = json!({"provider": "fcm", "app": "my-project", "token": "abc"});
    api.put("bob", "/v1/devices/phone/push-token", token).await;
    api.say("alice", &cid, "1").await;
    let pushes = format!("{cid}/messages/1/pushes");

    let quiet = api.get("bob", &pushes).await;
    assert_eq!(quiet.status, 200, "{}", quiet.text);
    let phone = &quiet.body["devices"][0];
    assert_eq!(
        (&phone["decisions"], &phone["waiting"], &phone["silence"]),
        (&json!([]), &Value::Null, &json!("not_armed"))
    );

    decide(&pool).await;
    let own = api.get("bob", &pushes).await.body;
    let committed_at = own["committed_at"].as_i64().unwrap();
    assert_eq!(
        own,
        json!({
            "user": "bob", "seq": 1, "committed_at": committed_at,
            "devices": [{
                "client_id": "phone", "route": "fcm:my-project:production",
                "decisions": [{
                    "kind": "wake", "from": 1, "to": 1, "outcome": "retry", "reason": "HTTP 503",
                    "route": "fcm:my-project:production",
                    "notification_id": "0198f3c2-0000-7000-8000-000000000001",
                    "decided_at": committed_at + 500, "after_millis": 500, "took_millis": 200,
                }],
                "waiting": null, "silence": null,
            }],
        })
    );
    let of_bob = format!("{pushes}?user=bob");
    assert_eq!(api.get("admin", &of_bob).await.body, own);
    assert_eq!(api.get("bob", &of_bob).await.body, own);

    api.get("alice", &of_bob)
        .await
        .assert_problem(403, "forbidden", "only an administrator");
    let none = api.get("alice", &pushes).await.body;
    assert_eq!(none["devices"], json!([]), "alice has no devices");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn nobody_learns_of_messages_that_they_may_not_see(pool: PgPool) {
    let api = Api::start(pool).await;
    let cid = api
        .conversation("alice", json!({"participants": ["bob", "carol"]}))
        .await;
    api.say("alice", &cid, "1").await;
    api.delete("carol", &format!("{cid}/participants/carol"))
        .await;
    api.say("alice", &cid, "2").await;
    let pushes = |sequence: &str| format!("{cid}/messages/{sequence}/pushes");

    assert_eq!(api.get("carol", &pushes("1")).await.status, 200);
    for (user, sequence, says) in [
        ("carol", "3", "no such message"),
        ("bob", "4", "no such message"),
        ("eve", "1", "no such conversation"),
        ("admin", "1", "no such conversation"),
    ] {
        api.get(user, &pushes(sequence))
            .await
            .assert_problem(404, "not-found", says);
    }
    let seen = api
        .get("admin", &format!("{}?user=carol", pushes("3")))
        .await;
    assert_eq!((seen.status, &seen.body["user"]), (200, &json!("carol")));
    api.get("admin", &format!("{}?user=eve", pushes("1")))
        .await
        .assert_problem(404, "not-found", "never taken part");
    for (sequence, says) in [
        ("0", "starts at 1"),
        ("-1", "starts at 1"),
        ("x", "an integer"),
    ] {
        api.get("bob", &pushes(sequence))
            .await
            .assert_problem(400, "invalid", says);
    }
    api.get("admin", &format!("{}?user=a%2Fb", pushes("1")))
        .await
        .assert_problem(400, "invalid", "user name");
    api.get("admin", &format!("{}?name=bob", pushes("1")))
        .await
        .assert_problem(400, "invalid", "unknown field");
    let nowhere = "/v1/conversations/AZjzwgAAcACAAAAAAAAAAQ/messages/1/pushes?user=bob";
    api.get("admin", nowhere)
        .await
        .assert_problem(404, "not-found", "no such conversation");
}
