//! Bodies of bytes, attachments, mentions.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::{as_sent, edit, entries, post, send};
use crate::harness::TestBroker;

/// Goal: bytes come back as the same bytes, over MQTT and REST, from memory and from the log.
#[sqlx::test(migrator = "MIGRATOR")]
async fn bytes_come_back_as_they_were(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let mut other = broker.listener("bob", "phone").await;
    let sealed = json!({"id": "1", "type": "sealed", "bytes": "AP/+ImEi"});
    let edited = json!({"id": "2", "type": "edit", "ref": 1, "bytes": ""});
    send(&mut phone, &group, &sealed).await;
    assert_eq!(post(&broker, "alice", &group, &edited).await.0, 201);

    for (entry, sent) in entries(&broker, "bob", &group)
        .await
        .into_iter()
        .zip([&sealed, &edited])
    {
        assert_eq!(&as_sent(entry), sent);
        assert_eq!(&as_sent(other.delivery().await.json()), sent);
    }
    let stored: Vec<(i16, Vec<u8>)> =
        sqlx::query_as("select content_format, body from messages order by seq")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(stored, [(1, b"\0\xff\xfe\"a\"".to_vec()), (1, Vec::new())]);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn attachments_are_delivered_and_checked(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let mut other = broker.listener("bob", "phone").await;
    let attachments = json!([{"id": "f1", "size": 81234, "content_type": "image/jpeg", "name": "us.jpg",
        "url": "https://files.example.com/f1", "sha256": "0f".repeat(32), "width": 1024}]);
    let sent = json!({"id": "1", "type": "photo", "body": null, "attachments": attachments});
    send(&mut phone, &group, &sent).await;
    assert_eq!(as_sent(other.delivery().await.json()), sent);
    assert_eq!(
        as_sent(entries(&broker, "bob", &group).await.remove(0)),
        sent
    );

    let bad = json!({"id": "2", "body": 1, "attachments": [{"id": "f1", "size": 1,
        "content_type": "image/jpeg", "url": "javascript:alert(1)"}]});
    let refused = phone
        .ask(&format!("c/{group}/send"), bad.to_string().as_bytes())
        .await;
    assert_eq!(refused.code, 0x99);
    assert!(refused.properties.text(0x1f).unwrap().contains("`url`"));
    let (status, problem) = post(&broker, "alice", &group, &bad).await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (400, Some("urn:homing:problem:invalid"))
    );
    broker.stop().await;
}

/// Goal: a mention counts for those who take part, once, and not for its sender; the newest
/// list of an edited message counts.
#[sqlx::test(migrator = "MIGRATOR")]
async fn mentions_are_kept_for_participants(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker
        .conversation(&["alice", "bob", "carol", "dave", "erin"])
        .await;
    broker.remove(&group, "dave").await;
    let mut phone = broker.device("alice", "phone").await;
    let mentions = async || -> Vec<(i64, String)> {
        sqlx::query_as(
            "select m.seq, u.subject from mentions m join users u using (user_id)
             order by m.seq, u.subject",
        )
        .fetch_all(&pool)
        .await
        .unwrap()
    };
    let names = ["bob", "bob", "carol", "dave", "alice", "nobody"];
    let sent = json!({"id": "1", "body": "hey", "mentions": names});
    let seq = send(&mut phone, &group, &sent).await;
    let both = [(seq, "bob".to_owned()), (seq, "carol".to_owned())];
    assert_eq!(mentions().await, both);
    // A repeat names nobody, neither anew nor somewhere else: what it says is not looked at.
    for names in [json!(names), json!(["bob"]), json!([]), json!(["erin"])] {
        let again = json!({"id": "1", "body": "hey", "mentions": names});
        assert_eq!(send(&mut phone, &group, &again).await, seq);
        let over_rest = post(&broker, "alice", &group, &again).await;
        assert_eq!(over_rest, (200, json!({"seq": seq, "duplicate": true})));
        assert_eq!(mentions().await, both, "{again}");
    }
    let path = format!("/{group}/inbox");
    let (_, row) = broker.rest(Method::GET, "bob", &path, None).await;
    assert_eq!((&row["mentions"], &row["unread"]), (&json!(1), &json!(1)));

    send(&mut phone, &group, &edit("2", seq, "hey you")).await;
    assert_eq!(mentions().await.len(), 2, "it says nothing of mentions");
    let mut fewer = edit("3", seq, "hey carol");
    fewer["mentions"] = json!(["carol", "dave"]);
    send(&mut phone, &group, &fewer).await;
    assert_eq!(mentions().await, [(seq, "carol".to_owned())]);
    let mut none = edit("4", seq, "hey");
    none["mentions"] = json!([]);
    send(&mut phone, &group, &none).await;
    assert!(mentions().await.is_empty());
    broker.stop().await;
}
