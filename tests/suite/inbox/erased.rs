//! Rows that change without an entry: contents are erased, a mute ends.

use homing::{
    client::cache::{Applied, Inbox, Question, Reconcile, Threads},
    domain::ids::ConversationId,
    store::MIGRATOR,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{post, row, say, set};
use crate::harness::{TestBroker, Wire, now_unix};

const EAGER: [(&str, &str); 2] = [
    ("message.erase_interval", "10ms"),
    ("inbox.patch_interval", "10ms"),
];
/// Nothing is erased during the test.
const LAZY: [(&str, &str); 1] = [("message.erase_interval", "1h")];

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

async fn patch_with(wire: &mut Wire, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let patch = wire.delivery_of("inbox").await.json();
        if is_it(&patch) {
            return patch;
        }
    }
}

fn cache(row: &Value) -> Inbox {
    let mut inbox = Inbox::default();
    let applied = inbox.apply(row.as_object().unwrap().clone());
    assert_eq!(applied, Applied::Changed);
    inbox
}

fn shown<'a>(inbox: &'a Inbox, group: &str) -> &'a serde_json::Map<String, Value> {
    let id: ConversationId = group.parse().unwrap();
    &inbox.row(id).unwrap().fields
}

/// What is told to somebody who shows the rows of `inbox`.
async fn reconcile(broker: &TestBroker, user: &str, inbox: &Inbox) -> Vec<Value> {
    let question = Reconcile::new(inbox).question(inbox, &Threads::new());
    let Some(Question::Differences(body)) = question else {
        panic!("{question:?}");
    };
    let (path, body) = ("/v1/reconcile", Some(Value::Object(body)));
    let (status, answer) = broker.request(Method::POST, user, path, body).await;
    assert_eq!(status, 200, "{answer}");
    answer["conversations"].as_array().unwrap().clone()
}

/// Goal: whoever is connected is told, and whoever was away finds out, that a message has expired.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_row_rises_when_a_message_is_erased(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &LAZY).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    say(&broker, "bob", group, "1").await;
    let later = 4_000_000_000_000_i64;
    let short = json!({"id": "2", "body": "secret", "expires_at": later, "mentions": ["alice"]});
    post(&broker, "bob", group, &short).await;
    let before = row(&broker, "alice", group).await;
    assert_eq!(before["last_message"]["expires_at"], later);
    assert_eq!(
        (&before["unread"], &before["mentions"]),
        (&json!(2), &json!(1))
    );
    let mut away = cache(&before);
    assert_eq!(reconcile(&broker, "alice", &away).await, [] as [Value; 0]);

    let mut place = broker.stop().await;
    let eager = EAGER.map(|(key, value)| (key.to_owned(), value.to_owned()));
    place.settings.extend(eager);
    let broker = place.start().await;
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/inbox"]).await;
    execute(
        &pool,
        "update messages set expires_at = now() where expires_at is not null",
    )
    .await;
    let patch = patch_with(&mut phone, |patch| patch["unread"] == 1).await;
    assert_eq!(patch, row(&broker, "alice", group).await);
    assert!(
        patch["version"].as_i64() > before["version"].as_i64(),
        "{patch}"
    );
    assert_eq!(patch["last_seq"], 2, "there is no entry of it");
    assert_eq!(patch["last_message"]["preview"], Value::Null);

    let told = reconcile(&broker, "alice", &away).await;
    let news = told[0]["row"].as_object().unwrap().clone();
    assert_eq!(away.apply(news), Applied::Changed);
    let last = &shown(&away, group)["last_message"];
    assert_eq!(
        (&last["preview"], &last["expired"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(shown(&away, group)["unread"], 1);
    assert_eq!(reconcile(&broker, "alice", &away).await, [] as [Value; 0]);
    let versioned = json!({"pinned": true, "if_version": patch["version"]});
    set(&broker, "alice", group, versioned).await;
    broker.stop().await;
}

/// Goal: so they do when the conversation begins later.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_row_rises_when_retention_erases(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &EAGER).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    for id in ["1", "2", "3"] {
        say(&broker, "bob", group, id).await;
    }
    let before = row(&broker, "alice", group).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/inbox"]).await;
    let away = cache(&before);
    execute(
        &pool,
        "update messages set created_at = now() - interval '2 hours' where seq <= 2",
    )
    .await;
    execute(&pool, "update conversations set retention_seconds = 3600").await;
    let patch = patch_with(&mut phone, |patch| patch["first_seq"] == 3).await;
    assert_eq!(
        (&patch["unread"], &patch["last_seq"]),
        (&json!(1), &json!(3))
    );
    assert!(
        patch["version"].as_i64() > before["version"].as_i64(),
        "{patch}"
    );
    assert_eq!(
        patch["activity_at"], before["activity_at"],
        "it stays where it is"
    );
    assert_eq!(reconcile(&broker, "alice", &away).await[0]["row"], patch);
    broker.stop().await;
}

/// Goal: the version of a row rises through removals and returns, whatever is erased when; and the
/// row of who was removed rests.
#[sqlx::test(migrator = "MIGRATOR")]
async fn versions_rise_through_removals_and_erasures(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &EAGER).await;
    let group = &broker.conversation(&["bob", "alice"]).await;
    let mut phone = broker.device("bob", "phone").await;
    phone.subscribe(&["me/inbox"]).await;
    let mut versions = vec![row(&broker, "alice", group).await["version"].clone()];
    for (round, id) in ["1", "2"].into_iter().enumerate() {
        say(&broker, "bob", group, id).await;
        for _ in 0..3 {
            // One erasure more.
            let erased = row(&broker, "bob", group).await["version"].clone();
            execute(
                &pool,
                "update messages set content_format = 0, expires_at = now() where ordinal = 1",
            )
            .await;
            patch_with(&mut phone, |patch| {
                patch["version"].as_i64() > erased.as_i64()
            })
            .await;
        }
        versions.push(row(&broker, "alice", group).await["version"].clone());
        broker.remove(group, "alice").await;
        let removed = row(&broker, "alice", group).await;
        assert_eq!(removed["removed"], true);
        versions.push(removed["version"].clone());
        let erased = row(&broker, "bob", group).await["version"].clone();
        execute(
            &pool,
            "update messages set content_format = 0 where ordinal = 1",
        )
        .await;
        patch_with(&mut phone, |patch| {
            patch["version"].as_i64() > erased.as_i64()
        })
        .await;
        assert_eq!(row(&broker, "alice", group).await, removed, "round {round}");
        broker.add(group, "alice").await;
        versions.push(row(&broker, "alice", group).await["version"].clone());
    }
    let rising = versions
        .windows(2)
        .all(|pair| pair[0].as_i64() < pair[1].as_i64());
    assert!(rising, "{versions:?}");
    broker.stop().await;
}

/// Goal: what was archived and muted comes back when the mute ends, also for whoever held the row.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_row_rises_when_a_mute_ends(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &EAGER).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let other = &broker.conversation(&["alice", "bob"]).await;
    let until = (now_unix() + 3600) * 1000;
    let quiet = json!({"archived": true, "muted_until": until});
    for id in [group, other] {
        set(&broker, "alice", id, quiet.clone()).await;
    }
    set(&broker, "alice", other, json!({"archived": false})).await;
    say(&broker, "bob", group, "1").await;
    let before = row(&broker, "alice", group).await;
    assert_eq!(before["archived"], true);
    let rests = row(&broker, "alice", other).await["version"].clone();
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/inbox"]).await;
    let away = cache(&before);
    execute(
        &pool,
        "update participants set muted_until = now() where muted_until is not null",
    )
    .await;
    let patch = patch_with(&mut phone, |patch| patch["archived"] == false).await;
    assert_eq!(patch["muted_until"], Value::Null);
    assert!(
        patch["version"].as_i64() > before["version"].as_i64(),
        "{patch}"
    );
    assert_eq!(reconcile(&broker, "alice", &away).await[0]["row"], patch);
    let since = now_unix() * 1000 - 60_000;
    let page = super::page(&broker, "alice", &format!("?changed_since={since}")).await;
    assert!(super::ids(&page).contains(&group.as_str()));
    // A mute that keeps nothing archived ends by the clock alone.
    assert_eq!(row(&broker, "alice", other).await["version"], rests);
    broker.stop().await;
}
