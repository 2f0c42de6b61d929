//! Conversations and who takes part in them.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::Api;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn who_creates_a_conversation_owns_it(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"], "kind": "group"}))
        .await;

    let seen = api.get("alice", &path).await;
    assert_eq!(seen.status, 200);
    assert_eq!(seen.body["id"], path.rsplit('/').next().unwrap());
    for (member, value) in [
        ("kind", json!("group")),
        ("title", Value::Null),
        ("epoch", json!(1)),
        ("last_seq", json!(0)),
        ("role", json!("owner")),
        ("read", json!(0)),
        ("unread", json!(0)),
    ] {
        assert_eq!(seen.body[member], value, "{member}");
    }
    assert_eq!(api.get("bob", &path).await.body["role"], "member");
    api.get("eve", &path)
        .await
        .assert_problem(404, "not-found", "among yours");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_kind_follows_from_participants_and_title(pool: PgPool) {
    let api = Api::start(pool).await;
    for (body, kind) in [
        (json!({"participants": ["bob"]}), "direct"),
        (json!({"participants": ["alice", "dan", "dan"]}), "direct"),
        (json!({"participants": ["bob"], "title": "Us"}), "group"),
        (json!({"participants": ["bob"], "kind": "group"}), "group"),
        (
            json!({"participants": ["eve"], "kind": "direct", "title": "Us"}),
            "direct",
        ),
        (json!({"participants": ["bob", "carol"]}), "group"),
        (json!({"participants": []}), "group"),
    ] {
        let path = api.conversation("alice", body.clone()).await;
        assert_eq!(api.get("alice", &path).await.body["kind"], kind, "{body}");
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_cannot_be_a_conversation_is_refused(pool: PgPool) {
    let api = Api::start(pool).await;
    for (body, says) in [
        (
            json!({"participants": ["bob", "carol"], "kind": "direct"}),
            "exactly two",
        ),
        (json!({"participants": [], "kind": "direct"}), "exactly two"),
        (
            json!({"participants": ["b", "c", "d", "e"]}),
            "5 participants are too many",
        ),
        (json!({"participants": ["a/b"]}), "a user name"),
        (json!({"participants": [""]}), "a user name"),
        (json!({"participants": ["bob"], "title": ""}), "a title"),
        (
            json!({"participants": ["bob"], "title": "x".repeat(257)}),
            "a title",
        ),
        (
            json!({"participants": ["bob"], "title": "a\u{0}"}),
            "a title",
        ),
        (
            json!({"participants": ["bob"], "kind": "room"}),
            "`direct` or `group`",
        ),
        (json!({"participants": "bob"}), "sequence"),
        (json!({}), "participants"),
    ] {
        let refused = api.post("alice", "/v1/conversations", body).await;
        refused.assert_problem(400, "invalid", says);
    }
    let refused = api
        .post("admin", "/v1/conversations", json!({"participants": []}))
        .await;
    refused.assert_problem(400, "invalid", "needs participants");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_administrator_creates_for_others_and_reads_nothing(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation(
            "admin",
            json!({"participants": ["alice", "bob"], "kind": "group"}),
        )
        .await;
    api.say("bob", &path, "1").await;

    assert_eq!(api.get("alice", &path).await.body["role"], "owner");
    assert_eq!(api.get("bob", &path).await.body["role"], "member");
    let seen = api.get("admin", &path).await;
    assert_eq!((seen.status, &seen.body["last_seq"]), (200, &json!(1)));
    assert!(seen.body.get("role").is_none() && seen.body.get("unread").is_none());
    for part in ["messages", "receipts"] {
        api.get("admin", &format!("{path}/{part}"))
            .await
            .assert_problem(404, "not-found", "");
    }
    let message = json!({"id": "1", "body": 1});
    let refused = api
        .post("admin", &format!("{path}/messages"), message)
        .await;
    refused.assert_problem(404, "not-found", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn participants_come_and_go_at_a_sequence(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"], "title": "Us"}))
        .await;
    let carol = format!("{path}/participants/carol");

    let added = api.put("alice", &carol, json!({"role": "readonly"})).await;
    assert_eq!((added.status, added.body), (200, json!({"seq": 1})));
    for repeat in [json!({}), json!({"role": "readonly"})] {
        let repeated = api.put("alice", &carol, repeat).await;
        assert_eq!((repeated.status, repeated.text.as_str()), (204, ""));
    }
    let changed = api.put("alice", &carol, json!({"role": "admin"})).await;
    assert_eq!((changed.status, changed.body), (200, json!({"seq": 2})));

    let removed = api.delete("alice", &carol).await;
    assert_eq!((removed.status, removed.body), (200, json!({"seq": 3})));
    assert_eq!(api.delete("alice", &carol).await.status, 204);
    assert_eq!(
        api.delete("alice", &format!("{path}/participants/nobody"))
            .await
            .status,
        204
    );

    let (_, page) = api.page("bob", &path, "").await;
    let entries = page["entries"].as_array().unwrap();
    for (entry, change) in entries.iter().zip(["added", "role", "removed"]) {
        assert_eq!(
            (&entry["from"], &entry["type"]),
            (&json!("alice"), &json!("homing.membership"))
        );
        assert_eq!(
            (&entry["body"]["change"], &entry["body"]["user"]),
            (&json!(change), &json!("carol"))
        );
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn everybody_may_leave_and_repeat_it(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob", "carol"]}))
        .await;
    let bob = format!("{path}/participants/bob");

    assert_eq!(api.delete("bob", &bob).await.body, json!({"seq": 1}));
    assert_eq!(api.delete("bob", &bob).await.status, 204);
    api.get("bob", &path)
        .await
        .assert_problem(404, "not-found", "");
    api.delete("eve", &format!("{path}/participants/eve"))
        .await
        .assert_problem(404, "not-found", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_owners_and_admins_change_participants(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob", "carol"]}))
        .await;
    let participant = |name: &str| format!("{path}/participants/{name}");
    api.delete("alice", &participant("bob")).await;
    api.put("alice", &participant("bob"), json!({"role": "admin"}))
        .await;

    let refused = api.put("carol", &participant("dave"), json!({})).await;
    refused.assert_problem(403, "forbidden", "owner or an admin");
    let refused = api.delete("carol", &participant("bob")).await;
    refused.assert_problem(403, "forbidden", "owner or an admin");
    let refused = api.delete("bob", &participant("alice")).await;
    refused.assert_problem(403, "forbidden", "only an owner");
    let refused = api
        .put("bob", &participant("dave"), json!({"role": "owner"}))
        .await;
    refused.assert_problem(403, "forbidden", "only an owner");
    for name in ["eve", "alice"] {
        let refused = api.put("eve", &participant(name), json!({})).await;
        refused.assert_problem(404, "not-found", "");
        assert!(name == "eve" || api.delete("eve", &participant(name)).await.status == 404);
    }

    assert_eq!(api.delete("bob", &participant("carol")).await.status, 200);
    assert_eq!(
        api.put("bob", &participant("dave"), json!({})).await.status,
        200
    );
    assert_eq!(
        api.put("alice", &participant("erin"), json!({"role": "owner"}))
            .await
            .status,
        200
    );
    assert_eq!(api.delete("erin", &participant("alice")).await.status, 200);
    let refused = api.delete("admin", &participant("erin")).await;
    refused.assert_problem(409, "last-owner", "an owner first");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_direct_conversation_stays_between_two(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    let refused = api
        .put("alice", &format!("{path}/participants/carol"), json!({}))
        .await;
    refused.assert_problem(409, "conflict", "create a group");
    let refused = api.delete("bob", &format!("{path}/participants/bob")).await;
    refused.assert_problem(409, "conflict", "block the other");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_conversation_gets_full(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation("alice", json!({"participants": ["b", "c", "d"]}))
        .await;
    let refused = api
        .put("alice", &format!("{path}/participants/e"), json!({}))
        .await;
    refused.assert_problem(409, "full", "full");
    assert_eq!(
        api.delete("alice", &format!("{path}/participants/b"))
            .await
            .status,
        200
    );
    assert_eq!(
        api.put("alice", &format!("{path}/participants/e"), json!({}))
            .await
            .status,
        200
    );
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn names_and_ids_travel_in_every_spelling(pool: PgPool) {
    let api = Api::start(pool).await;
    let path = api
        .conversation(
            "jürgen@x.org",
            json!({"participants": ["bob"], "title": "Ü"}),
        )
        .await;
    let id: homing::domain::ids::ConversationId = path.rsplit('/').next().unwrap().parse().unwrap();
    let seen = api
        .get("jürgen@x.org", &format!("/v1/conversations/{}", id.0))
        .await;
    assert_eq!((seen.status, &seen.body["title"]), (200, &json!("Ü")));
    assert_eq!(seen.body["id"], id.to_string());

    let added = api
        .put(
            "jürgen@x.org",
            &format!("{path}/participants/zo%C3%AB%20b"),
            json!({}),
        )
        .await;
    assert_eq!(added.status, 200);
    assert_eq!(api.get("zoë b", &path).await.status, 200);
    let without_body = api.request(reqwest::Method::PUT, &format!("{path}/participants/dave"));
    let added = super::answer(without_body.bearer_auth(api.token("jürgen@x.org"))).await;
    assert_eq!(added.status, 200, "{}", added.text);
}
