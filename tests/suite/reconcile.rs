//! Reconciling what a client shows with what there is.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::TestBroker;

async fn ask(broker: &TestBroker, user: &str, body: Value) -> (u16, Value) {
    let answer = broker.request(Method::POST, user, "/v1/reconcile", Some(body));
    let (status, body) = answer.await;
    (status.as_u16(), body)
}

/// What is said about one conversation, null if nothing; the row apart.
async fn about(broker: &TestBroker, user: &str, held: Value) -> (Value, Value) {
    let (status, body) = ask(broker, user, json!({"conversations": [held]})).await;
    assert_eq!(status, 200, "{held}: {body}");
    let mut differences = body["conversations"].as_array().unwrap().clone();
    assert!(differences.len() <= 1, "{body}");
    let Some(mut difference) = differences.pop() else {
        return (Value::Null, Value::Null);
    };
    let row = difference["row"].take();
    if let Some(members) = difference.as_object_mut() {
        members.remove("row");
        members.remove("conversation");
    }
    (difference, row)
}

async fn row(broker: &TestBroker, user: &str, conversation: &str) -> Value {
    let path = format!("/{conversation}/inbox");
    broker.rest(Method::GET, user, &path, None).await.1
}

async fn say(broker: &TestBroker, conversation: &str, id: &str) {
    let path = format!("/{conversation}/messages");
    let body = json!({"id": id, "body": "hello"});
    let (status, _) = broker.rest(Method::POST, "alice", &path, Some(body)).await;
    assert!(status.is_success());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn only_differences_are_answered(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    for id in ["1", "2", "3"] {
        say(&broker, group, id).await;
    }
    let shown = row(&broker, "bob", group).await;
    let version = shown["version"].as_i64().unwrap();
    let href = |since: i64| format!("/v1/conversations/{group}/thread?changed_since={since}");
    let behind = |seq: i64| json!({"behind": {"from": seq + 1, "to": 3, "href": href(seq)}});
    let gap = |reason: &str| {
        let href = format!("/v1/conversations/{group}/thread");
        json!({"gap": {"from": 1, "to": 3, "reason": reason, "href": href}})
    };
    let path = format!("/{group}/hash?from=2");
    let (_, hash) = broker.rest(Method::GET, "bob", &path, None).await;
    for (held, expected) in [
        (json!({"seq": 3}), Value::Null),
        (
            json!({"seq": 3, "version": version, "epoch": 1, "hash": hash}),
            Value::Null,
        ),
        (json!({"version": version}), Value::Null),
        (json!({}), json!({})),
        (json!({"version": version - 1}), json!({})),
        (json!({"version": version + 9}), json!({})),
        (json!({"seq": 1}), behind(1)),
        (json!({"seq": 0}), behind(0)),
        (json!({"seq": 4}), gap("ahead")),
        (json!({"seq": i64::MAX}), gap("ahead")),
        (json!({"seq": 3, "epoch": 2}), gap("epoch")),
        (
            json!({"seq": 3, "hash": {"from": 1, "to": 3, "value": hash["value"]}}),
            json!({"mismatch": true}),
        ),
        (
            json!({"seq": 3, "hash": {"from": 1, "to": 9, "value": hash["value"]}}),
            json!({"mismatch": true}),
        ),
    ] {
        let mut asked = held.clone();
        asked["conversation"] = json!(group);
        let (difference, told) = about(&broker, "bob", asked).await;
        assert_eq!(difference, expected, "{held}");
        let row = if expected.is_null() {
            Value::Null
        } else {
            shown.clone()
        };
        assert_eq!(told, row, "{held}");
    }
    broker.stop().await;
}

/// Goal: nobody learns whether a conversation of others exists; the end of one's own is said once.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_foreign_is_unknown_and_what_was_left_is_removed(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    say(&broker, group, "1").await;
    let none = "A".repeat(22);
    for id in [group.as_str(), &none] {
        let held = json!({"conversation": id, "seq": 5, "version": 1, "epoch": 7,
                          "hash": {"from": 1, "to": 2, "value": "0000000000000000"}});
        let (difference, told) = about(&broker, "carol", held).await;
        assert_eq!((difference, told), (json!({"unknown": true}), Value::Null));
    }
    let left = broker.remove(group, "bob").await;
    say(&broker, group, "2").await;
    let gone = row(&broker, "bob", group).await;
    let held = json!({"conversation": group, "seq": 1, "version": 1});
    let (difference, told) = about(&broker, "bob", held).await;
    assert_eq!(
        (&difference["removed"], &difference["behind"]["to"]),
        (&json!(true), &json!(left))
    );
    assert_eq!(told, gone);
    let held = json!({"conversation": group, "seq": left, "version": gone["version"]});
    assert_eq!(about(&broker, "bob", held).await.0, Value::Null);
    // Who shows no row is told that there is none any more.
    let held = json!({"conversation": group, "seq": left});
    let (difference, told) = about(&broker, "bob", held).await;
    assert_eq!((difference, told), (json!({"removed": true}), gone.clone()));
    // Nor is it said whether a hash of what came later is right.
    let path = format!("/{group}/hash?to={}", left + 1);
    let (_, hash) = broker.rest(Method::GET, "alice", &path, None).await;
    let held =
        json!({"conversation": group, "seq": left, "version": gone["version"], "hash": hash});
    assert_eq!(about(&broker, "bob", held).await.0["mismatch"], true);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn entries_that_are_gone_are_a_gap(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    for id in ["1", "2", "3", "4"] {
        say(&broker, group, id).await;
    }
    let change = async |sql: &str| {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        done.execute(&pool).await.unwrap();
    };
    change("update conversations set first_seq = 4").await;
    let held = json!({"conversation": group, "seq": 1});
    let (difference, _) = about(&broker, "bob", held.clone()).await;
    assert_eq!(
        difference["gap"],
        json!({"from": 2, "to": 3, "reason": "retention"})
    );
    assert_eq!(difference["behind"]["from"], 4);
    change(
        "update conversations set first_seq = 1;
         update participants p set visible_from = 3 from users u
         where u.user_id = p.user_id and u.subject = 'bob'",
    )
    .await;
    let (difference, _) = about(&broker, "bob", held).await;
    assert_eq!(
        difference["gap"],
        json!({"from": 2, "to": 2, "reason": "membership"})
    );
    // Who holds nothing lacks nothing of it.
    let held = json!({"conversation": group, "seq": 0});
    let (difference, _) = about(&broker, "bob", held).await;
    assert_eq!(difference["gap"], Value::Null);
    assert_eq!(difference["behind"]["from"], 3);
    // Nor is it said whether a hash of what was before is right.
    let path = format!("/{group}/hash?to=2");
    let (_, hash) = broker.rest(Method::GET, "alice", &path, None).await;
    let held = json!({"conversation": group, "seq": 4, "hash": hash});
    let (difference, _) = about(&broker, "bob", held.clone()).await;
    assert_eq!(difference["mismatch"], true, "{held}");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_changed_since_is_told_unasked(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut groups = Vec::new();
    for _ in 0..3 {
        groups.push(broker.conversation(&["alice", "bob"]).await);
    }
    for statement in [
        "update conversations set updated_at = now() - interval '1 day'",
        "update participants set changed_at = now() - interval '1 day'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let (_, first) = ask(&broker, "bob", json!({})).await;
    assert_eq!(first["conversations"], json!([]));
    say(&broker, &groups[0], "1").await;
    say(&broker, &groups[1], "1").await;
    let held = json!({"conversation": groups[0], "seq": 1});
    let asked = json!({"conversations": [held], "since": first["as_of"]});
    let (_, answer) = ask(&broker, "bob", asked).await;
    let told = answer["conversations"].as_array().unwrap();
    assert_eq!(told.len(), 1, "{answer}");
    assert_eq!(told[0]["row"], row(&broker, "bob", &groups[1]).await);
    broker.stop().await;
}

/// Goal: an answer has a bound, and says where the rest is.
#[sqlx::test(migrator = "MIGRATOR")]
async fn more_changes_than_fit_are_elsewhere(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    for _ in 0..101 {
        broker.conversation(&["alice", "bob"]).await;
    }
    let (_, answer) = ask(&broker, "bob", json!({"since": 0})).await;
    assert_eq!(answer["conversations"].as_array().unwrap().len(), 100);
    assert_eq!(answer["more"], "/v1/inbox?changed_since=0");
    broker.stop().await;
}

/// Goal: an answer over MQTT that would be too long is cut, and says from which item on to ask
/// again; what was asked for besides is elsewhere then. Nothing is lost, whatever the order.
#[sqlx::test(migrator = "MIGRATOR")]
async fn an_answer_that_is_too_long_says_where_it_stopped(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut held = Vec::new();
    let title = "title ".repeat(40);
    for number in 0..300 {
        // Every third one is known already, every fourth one is somebody else's.
        let who = if number % 4 == 3 { "carol" } else { "bob" };
        let body = json!({"participants": [who, "alice"], "kind": "group", "title": title});
        let (_, made) = broker.rest(Method::POST, "admin", "", Some(body)).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let version = (number % 3 == 0).then_some(0);
        held.push(json!({"conversation": id, "version": version}));
    }
    broker.conversation(&["bob", "unnamed"]).await;
    let (_, whole) = ask(&broker, "bob", json!({"conversations": held})).await;
    assert!(
        whole.get("unanswered_from").is_none(),
        "REST has no such bound"
    );
    let whole = whole["conversations"].as_array().unwrap();
    assert!((200..300).contains(&whole.len()), "{}", whole.len());

    let mut phone = broker.listener("bob", "phone").await;
    let (mut told, mut from, mut rounds) = (Vec::new(), 0, 0);
    loop {
        rounds += 1;
        let asked = json!({"conversations": held[from..], "since": 0}).to_string();
        phone.publish("q/reconcile", asked.as_bytes()).await;
        let answer = phone.delivery().await;
        phone.puback().await;
        let body = &answer.json()["body"];
        told.extend(body["conversations"].as_array().unwrap().iter().cloned());
        let Some(place) = body["unanswered_from"].as_u64() else {
            break;
        };
        assert_eq!(body["more"], "/v1/inbox?changed_since=0");
        let last = told.last().unwrap()["conversation"].clone();
        let next = usize::try_from(place).unwrap() + from;
        let place_of = |id: &Value| held.iter().position(|held| held["conversation"] == *id);
        assert!(place_of(&last).unwrap() < next, "{last} {next}");
        assert!(next > from, "it goes on");
        from = next;
    }
    assert!(rounds > 1, "one answer held all");
    told.truncate(whole.len());
    let ids = |list: &[Value]| -> Vec<_> {
        let ids = list
            .iter()
            .map(|difference| difference["conversation"].to_string());
        ids.collect()
    };
    assert_eq!(ids(&told), ids(whole));
    assert!(&told == whole, "the same differences");
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_cannot_be_held_is_refused(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = &broker.conversation(&["alice", "bob"]).await;
    let many: Vec<_> = (0..501)
        .map(|_| json!({"conversation": group, "seq": 1}))
        .collect();
    let hash = |from: i64, to: i64, value: &str| json!({"conversations": [{"conversation": group, "hash": {"from": from, "to": to, "value": value}}]});
    let zeros = "0".repeat(16);
    for body in [
        json!({"conversations": many}),
        json!({"conversations": [{"conversation": "x"}]}),
        json!({"conversations": [{"seq": 1}]}),
        json!({"conversations": [{"conversation": group, "seq": -1}]}),
        json!({"conversations": [{"conversation": group, "y": 1}]}),
        json!({"conversations": 7}),
        json!({"since": -1}),
        json!({"since": i64::MAX}),
        hash(0, 1, &zeros),
        hash(2, 1, &zeros),
        hash(1, 10_001, &zeros),
        hash(1, i64::MAX, &zeros),
        hash(1, 1, "xyz"),
        hash(1, 1, &"F".repeat(16)),
    ] {
        let (status, problem) = ask(&broker, "bob", body).await;
        assert_eq!(
            (status, &problem["type"]),
            (400, &json!("urn:homing:problem:invalid")),
            "{problem}"
        );
    }
    broker.stop().await;
}
