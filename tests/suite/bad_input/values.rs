//! Sequences, lists and keys that cannot be, and changes at the same time.

use futures_util::future::join_all;
use homing::{domain::ids::ConversationId, store::MIGRATOR};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{INVALID, World, kind, operations};
use crate::requests::ask;

/// Goal: what is written by PUBLISH or POST, and reports, name only entries that there may be.
#[sqlx::test(migrator = "MIGRATOR")]
async fn messages_and_reports_name_what_there_may_be(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let group = world.group.clone();
    let many = |count: usize| -> Vec<_> { (0..count).map(|user| format!("u{user}")).collect() };
    let file = json!({"id": "a", "size": 1, "content_type": "text/plain"});
    for message in [
        json!({"id": "1", "body": 1, "reply_to": 0}),
        json!({"id": "1", "body": 1, "reply_to": -1}),
        json!({"id": "1", "body": 1, "reply_to": i64::MAX as u64 + 1}),
        json!({"id": "1", "type": "edit", "body": 1, "ref": 0}),
        json!({"id": "1", "type": "retract", "ref": -1}),
        json!({"id": "1", "type": "reaction", "body": {"key": "+"}, "ref": "1"}),
        json!({"id": "1", "type": "edit", "body": 1}),
        json!({"id": "1", "body": 1, "mentions": many(51)}),
        json!({"id": "1", "body": 1, "attachments": vec![file; 11]}),
        json!({"id": "", "body": 1}),
        json!({"id": "x".repeat(65), "body": 1}),
        json!({"body": 1}),
        json!([]),
    ] {
        let topic = format!("c/{group}/send");
        let refused = world
            .phone
            .ask(&topic, message.to_string().as_bytes())
            .await;
        assert_eq!(refused.code, 0x99, "{message}: {refused:?}");
        let path = format!("/{group}/messages");
        let sent = world
            .broker
            .rest(Method::POST, "bob", &path, Some(message.clone()));
        let (status, problem) = sent.await;
        assert_eq!(
            (status.as_u16(), &*kind(&problem)),
            (400, "invalid"),
            "{message}"
        );
    }
    for report in [
        json!({"read": 0}),
        json!({"read": -1}),
        json!({"delivered": "1"}),
        json!({"read": 1.5}),
        json!([1]),
    ] {
        let topic = format!("c/{group}/receipts");
        let refused = world.phone.ask(&topic, report.to_string().as_bytes()).await;
        assert_eq!(refused.code, 0x99, "{report}: {refused:?}");
        let path = format!("/{group}/receipts");
        let put = world
            .broker
            .rest(Method::PUT, "bob", &path, Some(report.clone()));
        let (status, problem) = put.await;
        assert_eq!(
            (status.as_u16(), &*kind(&problem)),
            (400, "invalid"),
            "{report}"
        );
    }
    assert!(world.broker.log("bob", &group).await.is_empty());
    world.broker.stop().await;
}

/// Goal: lists past their bounds are refused, whichever way they come.
#[sqlx::test(migrator = "MIGRATOR")]
async fn giant_lists_are_refused(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let group = world.group.clone();
    let many = |count: usize| -> Vec<_> { (0..count).map(|user| format!("u{user}")).collect() };
    let operations = operations(&world.broker).await;
    let hash = json!({"from": 1, "to": 10_001, "value": "0".repeat(16)});
    for (name, members) in [
        (
            "conversation/create",
            json!({"participants": many(5001), "kind": "group"}),
        ),
        (
            "conversation/create",
            json!({"participants": ["alice"], "kind": "group", "title": "x".repeat(10_000)}),
        ),
        (
            "participants/add",
            json!({"conversation": group, "users": many(1001)}),
        ),
        ("transfer", json!({"conversation": group, "to": many(101)})),
        (
            "transfer",
            json!({"conversation": group, "from": many(101), "to": ["dave"]}),
        ),
        ("presence", json!({"users": many(1001)})),
        (
            "reconcile",
            json!({"conversations": vec![json!({"conversation": group}); 501]}),
        ),
        (
            "reconcile",
            json!({"conversations": [{"conversation": group, "hash": hash}]}),
        ),
        (
            "reconcile",
            json!({"conversations": [{"conversation": group, "seq": -1}]}),
        ),
        ("reconcile", json!({"since": -1})),
    ] {
        let operation = operations.iter().find(|it| it.name == name).unwrap();
        let members = members.as_object().unwrap();
        world.assert_refused(operation, members, INVALID).await;
    }
    let too_many = json!({"users": many(1001)});
    let answer = ask(&mut world.phone, "watch", &too_many).await;
    assert_eq!(answer["status"], 400, "{answer}");
    world.broker.stop().await;
}

/// Goal: adds and removes of the same users at once, some by devices and some over REST, take
/// effect one after the other: each once, and as the log says.
#[sqlx::test(migrator = "MIGRATOR")]
async fn adds_and_removes_at_once_are_one_log(pool: PgPool) {
    let world = World::start(&pool).await;
    let (broker, group) = (&world.broker, world.group.as_str());
    let mut wires = Vec::new();
    for number in 0..4 {
        wires.push(broker.listener("bob", &format!("admin {number}")).await);
    }
    let over_mqtt = wires
        .iter_mut()
        .enumerate()
        .map(|(number, wire)| async move {
            let mut statuses = Vec::new();
            for round in 0..8 {
                let adds = (number + round) % 2 == 0;
                let operation = ["participants/remove", "participants/put"][usize::from(adds)];
                let user = format!("guest{}", round % 2);
                let arguments = json!({"conversation": group, "user": user}).to_string();
                let topic = format!("q/{operation}");
                wire.publish(&topic, arguments.as_bytes()).await;
                // The changes themselves arrive on the way.
                let answer = loop {
                    let delivery = wire.delivery().await;
                    if delivery.topic == "me/device" {
                        break delivery.json();
                    }
                    wire.acknowledge(delivery.packet_id).await;
                };
                statuses.push(answer["status"].as_u64().unwrap());
                while !matches!(wire.receive().await, crate::harness::Received::PubAck(_)) {}
            }
            statuses
        });
    let over_rest = (0..24).map(|number| async move {
        let method = [Method::DELETE, Method::PUT][number % 2].clone();
        let path = format!("/{group}/participants/guest{}", number / 2 % 2);
        let (status, _) = broker.rest(method, "bob", &path, None).await;
        u64::from(status.as_u16())
    });
    let (one, other) = tokio::join!(join_all(over_mqtt), join_all(over_rest));
    let statuses: Vec<_> = one.into_iter().flatten().chain(other).collect();
    let is_answer = |status: &u64| [200, 204].contains(status);
    assert!(statuses.iter().all(is_answer), "{statuses:?}");
    let changes = statuses.iter().filter(|status| **status == 200).count();

    // Played again, every entry of the log changes something, and the end is what is stored.
    let path = format!("/{group}/messages?after=0&limit=200");
    let (_, page) = broker.rest(Method::GET, "bob", &path, None).await;
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(entries.len(), changes);
    let mut present = std::collections::BTreeSet::new();
    for (place, entry) in entries.iter().enumerate() {
        assert_eq!(entry["seq"], place + 1);
        let body = &entry["body"];
        let user = body["user"].as_str().or(body["users"][0].as_str()).unwrap();
        let is_new = match body["change"].as_str().unwrap() {
            "added" => present.insert(user.to_owned()),
            "removed" | "left" => present.remove(user),
            other => panic!("{other}: {entry}"),
        };
        assert!(is_new, "{entry} changes nothing: {entries:?}");
    }
    let id: ConversationId = group.parse().unwrap();
    let stored: Vec<String> = sqlx::query_scalar(
        "select u.subject from participants p join users u using (user_id)
         where p.conversation_id = $1 and p.left_seq is null and u.subject like 'guest%'
         order by 1",
    )
    .bind(id.0)
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(stored, present.into_iter().collect::<Vec<_>>());
    drop(wires);
    world.broker.stop().await;
}

/// Goal: a key stands for one request, whichever way it came first.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_key_stands_for_one_request_over_rest_and_mqtt(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let url = format!("http://{}/v1/conversations", world.broker.http());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |key: &str, title: &str, token: String| {
        let body = json!({"participants": ["alice"], "kind": "group", "title": title});
        let request = client.post(&url).bearer_auth(token).json(&body);
        let sent = request.header("idempotency-key", key).send().await.unwrap();
        let status = sent.status().as_u16();
        (status, sent.json::<Value>().await.unwrap())
    };
    let token = || world.broker.token("bob");
    let (status, made) = post("one", "Us", token()).await;
    assert_eq!(status, 201, "{made}");
    let keyed = |key: &str, title: &str| json!({"participants": ["alice"], "kind": "group", "title": title, "idempotency_key": key});
    let again = ask(&mut world.phone, "conversation/create", &keyed("one", "Us")).await;
    assert_eq!((&again["status"], &again["body"]), (&json!(201), &made));
    let other = ask(
        &mut world.phone,
        "conversation/create",
        &keyed("one", "Them"),
    )
    .await;
    assert_eq!(
        (&other["status"], &*kind(&other["body"])),
        (&json!(422), "key-reused")
    );
    let made = ask(&mut world.phone, "conversation/create", &keyed("two", "Us")).await;
    let token = || world.broker.token("bob");
    let (status, again) = post("two", "Us", token()).await;
    assert_eq!((status, &again), (201, &made["body"]));
    let (status, other) = post("two", "Them", token()).await;
    assert_eq!((status, &*kind(&other)), (422, "key-reused"));
    world.broker.stop().await;
}
