//! What is wrong is refused with the same problem over REST and MQTT; who is too fast waits.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::Instant;

use crate::{
    harness::{TestBroker, Wire, within},
    requests::ask,
};

/// The same requests by a device and by REST.
struct Ways {
    broker: TestBroker,
    phone: Wire,
}

impl Ways {
    /// `query` and `body` are what REST sends, `arguments` is both of them and the conversation.
    async fn assert_refused(
        &mut self,
        operation: &str,
        (method, path): (Method, &str),
        body: Option<Value>,
        arguments: Value,
        (status, kind): (u16, &str),
    ) {
        let kind = json!(format!("urn:homing:problem:{kind}"));
        let path = format!("/v1{path}");
        let (said, problem) = self.broker.request(method, "bob", &path, body).await;
        assert_eq!(
            (said.as_u16(), &problem["type"]),
            (status, &kind),
            "{path}: {problem}"
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        let answer = ask(&mut self.phone, operation, &arguments).await;
        assert_eq!(
            (&answer["status"], &answer["body"]["type"]),
            (&json!(status), &kind),
            "{operation} {arguments}: {answer}"
        );
    }
}

/// Bob's phone, a group that alice owns with bob as an admin, and one without bob.
async fn world(pool: &PgPool) -> (Ways, String, String) {
    let broker = TestBroker::start(pool).await;
    let body = json!({"participants": ["alice", "bob", "carol"], "kind": "group", "roles": {"bob": "admin"}});
    let (_, made) = broker.rest(Method::POST, "admin", "", Some(body)).await;
    let group = made["id"].as_str().unwrap().to_owned();
    let foreign = broker.conversation(&["carol"]).await;
    let phone = broker.listener("bob", "phone").await;
    (Ways { broker, phone }, group, foreign)
}

/// Goal: neither a foreign nor an unknown nor a malformed id is told apart by the way it comes.
#[sqlx::test(migrator = "MIGRATOR")]
async fn ids_that_lead_nowhere_are_refused_everywhere(pool: PgPool) {
    let (mut ways, _, foreign) = world(&pool).await;
    let unknown = "A".repeat(22);
    for (id, answer) in [
        (foreign.as_str(), (404, "not-found")),
        (unknown.as_str(), (404, "not-found")),
        ("x", (400, "invalid")),
    ] {
        for (operation, method, leaf, members) in [
            ("conversation", Method::GET, "", json!({})),
            ("history", Method::GET, "/messages", json!({})),
            ("thread", Method::GET, "/thread", json!({})),
            ("hash", Method::GET, "/hash", json!({})),
            ("inbox/row", Method::GET, "/inbox", json!({})),
            (
                "inbox/set",
                Method::PATCH,
                "/inbox",
                json!({"pinned": true}),
            ),
            ("receipts", Method::GET, "/receipts", json!({})),
            ("receipts/put", Method::PUT, "/receipts", json!({"read": 1})),
            ("participants", Method::GET, "/participants", json!({})),
            (
                "participants/add",
                Method::POST,
                "/participants",
                json!({"users": ["dave"]}),
            ),
            (
                "conversation/change",
                Method::PATCH,
                "",
                json!({"title": "x"}),
            ),
            (
                "transfer",
                Method::POST,
                "/transfer",
                json!({"to": ["dave"]}),
            ),
            ("typing", Method::POST, "/typing", json!({})),
        ] {
            let body = (method != Method::GET).then(|| members.clone());
            let mut arguments = members;
            arguments["conversation"] = json!(id);
            let path = format!("/conversations/{id}{leaf}");
            ways.assert_refused(operation, (method, &path), body, arguments, answer)
                .await;
        }
    }
    ways.broker.stop().await;
}

/// Goal: lists and pages past their bounds, and sequences that cannot be, are refused; what
/// lies in the future is not.
#[sqlx::test(migrator = "MIGRATOR")]
async fn numbers_and_lists_past_their_bounds_are_refused_everywhere(pool: PgPool) {
    let (mut ways, group, _) = world(&pool).await;
    let users = |count: usize| -> Vec<_> { (0..count).map(|user| format!("u{user}")).collect() };
    let invalid = (400, "invalid");
    for (operation, leaf, query) in [
        ("history", "/messages", json!({"limit": 201})),
        ("history", "/messages", json!({"after": -1})),
        ("thread", "/thread", json!({"limit": 0})),
        ("thread", "/thread", json!({"limit": 201})),
        ("thread", "/thread", json!({"around": -1})),
        ("thread", "/thread", json!({"before": 1, "after": 1})),
        ("hash", "/hash", json!({"from": 0})),
        ("hash", "/hash", json!({"to": 7})),
        ("participants", "/participants", json!({"limit": 201})),
        ("participants", "/participants", json!({"limit": 0})),
    ] {
        let text: Vec<_> = query.as_object().unwrap().iter().collect();
        let text: Vec<_> = text
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let path = format!("/conversations/{group}{leaf}?{}", text.join("&"));
        let mut arguments = query;
        arguments["conversation"] = json!(group);
        ways.assert_refused(operation, (Method::GET, &path), None, arguments, invalid)
            .await;
    }
    for (operation, query) in [
        ("inbox", json!({"limit": 101})),
        ("inbox", json!({"limit": 0})),
        ("inbox", json!({"changed_since": -1})),
        ("inbox", json!({"after": "x"})),
    ] {
        let (name, value) = query.as_object().unwrap().iter().next().unwrap();
        let value = value.to_string().replace('"', "");
        let path = format!("/inbox?{name}={value}");
        ways.assert_refused(
            operation,
            (Method::GET, &path),
            None,
            query.clone(),
            invalid,
        )
        .await;
    }
    for (operation, method, leaf, body) in [
        (
            "participants/add",
            Method::POST,
            "/participants",
            json!({"users": users(1001)}),
        ),
        (
            "participants/add",
            Method::POST,
            "/participants",
            json!({"users": []}),
        ),
        (
            "transfer",
            Method::POST,
            "/transfer",
            json!({"to": users(101)}),
        ),
        ("receipts/put", Method::PUT, "/receipts", json!({"read": 0})),
        ("inbox/set", Method::PATCH, "/inbox", json!({"read": -1})),
        (
            "conversation/change",
            Method::PATCH,
            "",
            json!({"history_depth": -1}),
        ),
    ] {
        let mut arguments = body.clone();
        arguments["conversation"] = json!(group);
        let path = format!("/conversations/{group}{leaf}");
        ways.assert_refused(operation, (method, &path), Some(body), arguments, invalid)
            .await;
    }
    let held: Vec<_> = (0..501).map(|_| json!({"conversation": group})).collect();
    let held = json!({"conversations": held});
    let reconcile = (Method::POST, "/reconcile");
    ways.assert_refused("reconcile", reconcile, Some(held.clone()), held, invalid)
        .await;

    // Ahead of everything: an empty page, not an error.
    for (operation, arguments) in [
        ("history", json!({"conversation": group, "after": i64::MAX})),
        ("thread", json!({"conversation": group, "after": i64::MAX})),
        (
            "thread",
            json!({"conversation": group, "changed_since": i64::MAX}),
        ),
        ("thread", json!({"conversation": group, "around": i64::MAX})),
        ("inbox", json!({"changed_since": 4_102_444_800_000_i64})),
    ] {
        let answer = ask(&mut ways.phone, operation, &arguments).await;
        assert_eq!(answer["status"], 200, "{operation} {arguments}: {answer}");
        for list in ["entries", "messages", "conversations"] {
            let is_empty = answer["body"][list].as_array().is_none_or(Vec::is_empty);
            assert!(is_empty, "{operation}: {answer}");
        }
    }
    ways.broker.stop().await;
}

/// Goal: what nobody may decide is refused in the same words, and leaves no entry.
#[sqlx::test(migrator = "MIGRATOR")]
async fn rights_hold_whichever_way_a_change_comes(pool: PgPool) {
    let (mut ways, group, _) = world(&pool).await;
    let bob = ways.phone;
    let participant = |user: &str| format!("/conversations/{group}/participants/{user}");
    let put = |user: &str, role: &str| json!({"conversation": group, "user": user, "role": role});
    ways.phone = bob;
    for (user, role) in [("alice", "member"), ("dave", "owner"), ("bob", "owner")] {
        let way = (Method::PUT, participant(user));
        ways.assert_refused(
            "participants/put",
            (way.0, &way.1),
            Some(json!({"role": role})),
            put(user, role),
            (403, "forbidden"),
        )
        .await;
    }
    let alice = json!({"conversation": group, "user": "alice"});
    ways.assert_refused(
        "participants/remove",
        (Method::DELETE, &participant("alice")),
        None,
        alice.clone(),
        (403, "forbidden"),
    )
    .await;
    let mut owner = ways.broker.listener("alice", "phone").await;
    for (operation, arguments) in [
        ("participants/put", put("alice", "member")),
        ("participants/remove", alice),
    ] {
        let answer = ask(&mut owner, operation, &arguments).await;
        let kind = json!("urn:homing:problem:last-owner");
        assert_eq!(
            (&answer["status"], &answer["body"]["type"]),
            (&json!(409), &kind)
        );
    }
    assert!(ways.broker.log("alice", &group).await.is_empty());
    ways.broker.stop().await;
}

/// Goal: a request of a device that comes again under its key is done once; the key stands for
/// no other request.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_repeats_a_request_under_its_key(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.listener("alice", "phone").await;
    let create = |key: Value, title: &str| json!({"participants": ["bob"], "kind": "group", "title": title, "idempotency_key": key});
    let mut create = async |key: Value, title: &str| {
        ask(&mut phone, "conversation/create", &create(key, title)).await
    };
    let first = create(json!("k"), "Us").await;
    assert_eq!(first["status"], 201, "{first}");
    let again = create(json!("k"), "Us").await;
    assert_eq!(again["body"], first["body"]);
    for (key, title, status, kind) in [
        (json!("k"), "Them", 422, "key-reused"),
        (json!(""), "Us", 400, "invalid"),
        (json!("a b"), "Us", 400, "invalid"),
        (json!("x".repeat(65)), "Us", 400, "invalid"),
        (json!(7), "Us", 400, "invalid"),
    ] {
        let refused = create(key, title).await;
        let kind = json!(format!("urn:homing:problem:{kind}"));
        assert_eq!(
            (&refused["status"], &refused["body"]["type"]),
            (&json!(status), &kind),
            "{refused}"
        );
    }
    let count: i64 = sqlx::query_scalar("select count(*) from conversations")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(count, 1);
    let other = create(json!(null), "Us").await;
    assert_ne!(other["body"]["id"], first["body"]["id"]);
    broker.stop().await;
}

/// Goal: requests of a device count as those over REST do, and are acknowledged all the same.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_that_asks_too_fast_is_told_when_to_come_again(pool: PgPool) {
    let settings = [
        ("limits.requests_per_second", "1"),
        ("limits.requests_burst", "2"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let mut phone = broker.listener("alice", "phone").await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ask(&mut phone, "inbox", &json!({})).await);
    }
    assert_eq!(
        (&answers[0]["status"], &answers[1]["status"]),
        (&json!(200), &json!(200))
    );
    let refused = answers.iter().find(|answer| answer["status"] != 200);
    let refused = refused.expect("one of six is too many");
    assert_eq!(refused["status"], 429);
    let problem = &refused["body"];
    assert_eq!(problem["type"], "urn:homing:problem:too-many");
    assert_eq!(problem["retry_after"], 1);
    let mut other = broker.listener("bob", "phone").await;
    assert_eq!(ask(&mut other, "inbox", &json!({})).await["status"], 200);
    broker.stop().await;
}

/// Goal: past the rate of a user publishes wait: none is refused or lost, their order stays, and
/// nobody else waits with them.
#[sqlx::test(migrator = "MIGRATOR")]
async fn publishes_of_a_fast_user_wait_for_their_turn(pool: PgPool) {
    let settings = [
        ("limits.messages_per_second", "2"),
        ("limits.messages_burst", "2"),
    ];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut fast = broker.device("alice", "phone").await;
    let mut other = broker.device("bob", "phone").await;
    let begin = Instant::now();
    for number in 0..6 {
        fast.begin_say(&group, &number.to_string()).await;
    }
    other.say(&group, "bob").await;
    let mut sequences = Vec::new();
    for _ in 0..6 {
        let puback = within("a turn", fast.puback()).await;
        assert_eq!(puback.code, 0, "{puback:?}");
        let seq = puback.properties.user("seq").unwrap();
        sequences.push(seq.parse::<i64>().unwrap());
    }
    // Four past the burst, two in a second.
    assert!(begin.elapsed().as_millis() >= 1900);
    assert!(sequences.is_sorted());
    let log = broker.log("bob", &group).await;
    assert_eq!(log.len(), 7);
    assert_ne!(log[6].1, "bob", "who is not too fast does not wait");
    // The burst is taken up at once; how many of the others had to wait depends on their pace.
    let counted = "homing_bridge_limited_total{kind=\"Message\"}";
    let metrics = broker.metrics().await;
    assert!(metrics.contains(counted), "{metrics}");
    broker.stop().await;
}
