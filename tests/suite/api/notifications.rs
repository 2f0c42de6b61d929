//! Muted conversations.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Api, now_unix};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_absent_stays_and_null_is_the_default(pool: PgPool) {
    let api = Api::start(pool).await;
    let cid = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let path = format!("{cid}/notifications");
    let later = i64::try_from(now_unix()).unwrap() * 1000 + 3_600_123;
    let default = json!({"muted_until": null, "mentions": true});
    assert_eq!(api.get("bob", &path).await.body, default);

    for (change, muted_until, mentions) in [
        (json!({"muted_until": later}), json!(later), true),
        (json!({"mentions": false}), json!(later), false),
        (json!({}), json!(later), false),
        (json!({"mentions": null}), json!(later), true),
        (
            json!({"muted_until": "forever", "mentions": false}),
            json!("forever"),
            false,
        ),
        (json!({"muted_until": "forever"}), json!("forever"), false),
        (json!({"muted_until": null}), Value::Null, false),
        (
            json!({"muted_until": null, "mentions": null}),
            Value::Null,
            true,
        ),
        (
            json!({"muted_until": 253_402_300_799_999_i64}),
            json!(253_402_300_799_999_i64),
            true,
        ),
    ] {
        let expected = json!({"muted_until": muted_until, "mentions": mentions});
        let changed = api.put("bob", &path, change.clone()).await;
        assert_eq!(
            (changed.status, &changed.body),
            (200, &expected),
            "{change}"
        );
        assert_eq!(api.get("bob", &path).await.body, expected, "{change}");
    }
    assert_eq!(
        api.get("alice", &path).await.body,
        default,
        "hers are her own"
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_mute_that_is_over_is_none(pool: PgPool) {
    let api = Api::start(pool).await;
    let cid = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let path = format!("{cid}/notifications");
    let changed = api.put("bob", &path, json!({"muted_until": 0})).await;
    assert_eq!(
        (changed.status, &changed.body["muted_until"]),
        (200, &Value::Null)
    );
    assert_eq!(api.get("bob", &path).await.body["muted_until"], Value::Null);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_no_setting_is_refused(pool: PgPool) {
    let api = Api::start(pool).await;
    let cid = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let path = format!("{cid}/notifications");
    for (change, says) in [
        (json!({"muted_until": "tomorrow"}), "forever"),
        (json!({"muted_until": true}), "forever"),
        (json!({"muted_until": 1.5}), "forever"),
        (json!({"muted_until": -1}), "milliseconds since 1970"),
        (json!({"muted_until": i64::MAX}), "milliseconds since 1970"),
        (json!({"muted_until": u64::MAX}), "forever"),
        (json!({"mentions": 1}), "boolean"),
        (json!({"mention": true}), "unknown field"),
        (json!([]), "expected a JSON object"),
        (Value::Null, "expected a JSON object"),
    ] {
        let refused = api.put("bob", &path, change).await;
        refused.assert_problem(400, "invalid", says);
    }
    let unchanged = json!({"muted_until": null, "mentions": true});
    assert_eq!(api.get("bob", &path).await.body, unchanged);
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_participants_have_settings(pool: PgPool) {
    let api = Api::start(pool).await;
    let cid = api
        .conversation("alice", json!({"participants": ["bob", "carol"]}))
        .await;
    let path = format!("{cid}/notifications");
    api.put(
        "carol",
        &path,
        json!({"muted_until": "forever", "mentions": false}),
    )
    .await;
    api.delete("carol", &format!("{cid}/participants/carol"))
        .await;

    for user in ["eve", "carol", "admin"] {
        api.get(user, &path)
            .await
            .assert_problem(404, "not-found", "no such conversation");
        api.put(user, &path, json!({"muted_until": null}))
            .await
            .assert_problem(404, "not-found", "no such conversation");
    }
    let nowhere = "/v1/conversations/AZjzwgAAcACAAAAAAAAAAQ/notifications";
    api.get("alice", nowhere)
        .await
        .assert_problem(404, "not-found", "no such conversation");

    let added = api
        .put("alice", &format!("{cid}/participants/carol"), json!({}))
        .await;
    assert_eq!(added.status, 200);
    assert_eq!(
        api.get("carol", &path).await.body,
        json!({"muted_until": null, "mentions": true}),
        "who comes back begins anew"
    );
}
