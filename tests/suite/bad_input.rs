//! Every operation, as the served document lists them, asked for what cannot be: refused with the
//! same problem over REST and MQTT.

use futures_util::future::join_all;
use homing::{domain::ids::ConversationId, store::MIGRATOR};
use reqwest::Method;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use crate::{
    harness::{TestBroker, Wire},
    requests::ask,
};

/// One row of the document.
struct Operation {
    /// Behind `q/`.
    name: String,
    method: Method,
    path: String,
    in_path: Vec<String>,
    in_query: Vec<String>,
    /// What must be given besides.
    required: Vec<String>,
}

impl Operation {
    fn takes(&self, name: &str) -> bool {
        self.in_path
            .iter()
            .chain(&self.in_query)
            .any(|it| it == name)
            || self.required.iter().any(|it| it == name)
    }

    /// Arguments that are right, for a group and as nothing else is said.
    fn arguments(&self, group: &str) -> Map<String, Value> {
        let names = self.in_path.iter().chain(&self.required);
        let arguments = names.map(|name| {
            let value = match name.as_str() {
                "conversation" => json!(group),
                "user" => json!("carol"),
                "users" | "to" | "participants" => json!(["dave"]),
                "seq" => json!(1),
                "id" => json!("AZjzwgAAcACAAAAAAAAAAQ"),
                "client_id" => json!("phone"),
                "format" => json!("json"),
                other => panic!("{}: what is {other}?", self.name),
            };
            (name.clone(), value)
        });
        let mut arguments: Map<_, _> = arguments.collect();
        // What is not required alone, but must not all be missing.
        let besides = match self.name.as_str() {
            "participants/silence" => Some(("until", json!("forever"))),
            "receipts/put" => Some(("read", json!(1))),
            _ => None,
        };
        arguments.extend(besides.map(|(name, value)| (name.to_owned(), value)));
        arguments
    }
}

/// The operations that [`Operation::arguments`] knows enough of: those that are about users,
/// conversations and their entries.
async fn operations(broker: &TestBroker) -> Vec<Operation> {
    let path = "/v1/openapi.json";
    let (_, document) = broker.request(Method::GET, "bob", path, None).await;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let topic = operation["x-mqtt-topic"].as_str().unwrap_or_default();
            let Some(name) = topic.strip_prefix("q/") else {
                continue;
            };
            let named = |place: &str| -> Vec<String> {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let named = parameters.filter(|parameter| parameter["in"] == place);
                named
                    .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                    .collect()
            };
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let required = schema["required"].as_array().into_iter().flatten().cloned();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_query = parameters.filter(|it| it["in"] == "query" && it["required"] == true);
            let required = required.chain(in_query.map(|it| it["name"].clone()));
            operations.push(Operation {
                name: name.to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.strip_prefix("/v1").unwrap_or(path).to_owned(),
                in_path: named("path"),
                in_query: named("query"),
                required: required.map(|it| it.as_str().unwrap().to_owned()).collect(),
            });
        }
    }
    assert!(operations.len() > 40, "{}", operations.len());
    operations
}

/// Bob's phone, a group that he owns with alice and carol in it, and one without him.
struct World {
    broker: TestBroker,
    phone: Wire,
    group: String,
    foreign: String,
}

impl World {
    async fn start(pool: &PgPool) -> Self {
        let settings = [("limits.requests_per_second", "0")];
        let broker = TestBroker::start_with(pool, &settings).await;
        let body = json!({"participants": ["bob", "alice", "carol"], "kind": "group"});
        let (_, made) = broker.rest(Method::POST, "admin", "", Some(body)).await;
        Self {
            group: made["id"].as_str().unwrap().to_owned(),
            foreign: broker.conversation(&["carol"]).await,
            phone: broker.listener("bob", "phone").await,
            broker,
        }
    }

    /// Asks over REST, and answers status and type of the problem.
    async fn rest(&self, operation: &Operation, arguments: &Map<String, Value>) -> (u16, String) {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().unwrap());
                items.collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        };
        let (mut path, mut query) = (operation.path.clone(), Vec::new());
        let mut body = Map::new();
        for (name, value) in arguments {
            if operation.in_path.contains(name) {
                path = path.replace(&format!("{{{name}}}"), &escaped(&text(value)));
            } else if operation.in_query.contains(name) {
                query.push(format!("{name}={}", escaped(&text(value))));
            } else {
                body.insert(name.clone(), value.clone());
            }
        }
        let path = format!("/v1{path}?{}", query.join("&"));
        let has_body = ![Method::GET, Method::DELETE].contains(&operation.method);
        let body = has_body.then_some(Value::Object(body));
        let path = path.trim_end_matches('?');
        let method = operation.method.clone();
        let (status, problem) = self.broker.request(method, "bob", path, body).await;
        (status.as_u16(), kind(&problem))
    }

    /// Both ways refuse it like this.
    async fn assert_refused(
        &mut self,
        operation: &Operation,
        arguments: &Map<String, Value>,
        refusals: &[(u16, &str)],
    ) {
        let name = &operation.name;
        let over_rest = self.rest(operation, arguments).await;
        let answer = ask(&mut self.phone, name, &json!(arguments)).await;
        let status = u16::try_from(answer["status"].as_u64().unwrap()).unwrap();
        let over_mqtt = (status, kind(&answer["body"]));
        assert_eq!(over_rest, over_mqtt, "{name} {arguments:?}: {answer}");
        let is_right = refusals.contains(&(over_mqtt.0, &over_mqtt.1));
        assert!(is_right, "{name} {arguments:?}: {over_mqtt:?}");
        let detail = answer["body"]["detail"].as_str().unwrap_or_default();
        assert!(!detail.is_empty(), "{name}: {answer}");
    }
}

fn kind(problem: &Value) -> String {
    let kind = problem["type"].as_str().unwrap_or_default();
    kind.trim_start_matches("urn:homing:problem:").to_owned()
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,".contains(&byte);
    let escape = |byte: u8| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

const INVALID: &[(u16, &str)] = &[(400, "invalid")];
const NOT_FOUND: &[(u16, &str)] = &[(404, "not-found")];

/// Goal: a conversation of others answers as one that does not exist, whatever is asked of it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_operation_tells_a_foreign_conversation_from_none(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let mut asked = 0;
    for operation in operations(&world.broker).await {
        if !operation.takes("conversation") {
            continue;
        }
        asked += 1;
        let unknown = [
            "A".repeat(22),
            "0198f3c2-0000-7000-8000-000000000000".to_owned(),
        ];
        for id in [&world.foreign.clone(), &unknown[0], &unknown[1]] {
            let arguments = operation.arguments(id);
            world
                .assert_refused(&operation, &arguments, NOT_FOUND)
                .await;
        }
        for id in ["x", "0198f3c2", "../../etc", "\u{0}", &"A".repeat(23)] {
            let arguments = operation.arguments(id);
            world.assert_refused(&operation, &arguments, INVALID).await;
        }
    }
    assert!(asked >= 22, "{asked}");
    world.broker.stop().await;
}

/// Goal: names that nobody can have are refused wherever one is asked for.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_operation_takes_a_name_that_nobody_can_have(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let mut asked = 0;
    for operation in operations(&world.broker).await {
        for argument in ["user", "users", "to", "from", "participants", "client_id"] {
            let known = [
                "conversation",
                "user",
                "users",
                "to",
                "participants",
                "seq",
                "client_id",
                "format",
            ];
            let is_known = operation
                .required
                .iter()
                .all(|it| known.contains(&it.as_str()));
            // `from` is a time elsewhere, or a sequence.
            let is_name = argument != "from" || operation.name == "transfer";
            if !is_known || !is_name || operation.name == "watch" {
                continue;
            }
            if !operation.takes(argument) && argument != "from" {
                continue;
            }
            asked += 1;
            for name in ["a/b", "a#", "\u{0}", &"x".repeat(129)] {
                if argument == "client_id" && name != "\u{0}" && name.len() < 129 {
                    continue; // a client id may be that
                }
                let mut arguments = operation.arguments(&world.group);
                let is_list = ["users", "to", "from", "participants"].contains(&argument);
                let value = if is_list { json!([name]) } else { json!(name) };
                arguments.insert(argument.to_owned(), value);
                let refusals = [INVALID, NOT_FOUND].concat();
                let refusals = if argument == "client_id" {
                    &refusals
                } else {
                    INVALID
                };
                world.assert_refused(&operation, &arguments, refusals).await;
            }
        }
    }
    assert!(asked >= 14, "{asked}");
    world.broker.stop().await;
}

/// Goal: entries that cannot be, and those that there are not, are refused wherever one is named.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_operation_takes_a_sequence_that_is_not_there(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let mut asked = 0;
    for operation in operations(&world.broker).await {
        let is_in_path = operation.in_path.iter().any(|name| name == "seq");
        if is_in_path {
            asked += 1;
            for (seq, refusals) in [
                (json!(-1), INVALID),
                (json!(0), INVALID),
                (json!(99), NOT_FOUND),
                (json!(i64::MAX), NOT_FOUND),
            ] {
                let mut arguments = operation.arguments(&world.group);
                arguments.insert("seq".to_owned(), seq);
                world.assert_refused(&operation, &arguments, refusals).await;
            }
        }
        for name in ["before", "around", "changed_since", "at", "limit"] {
            if operation.in_query.iter().any(|it| it == name) {
                asked += 1;
                let mut arguments = operation.arguments(&world.group);
                arguments.insert(name.to_owned(), json!(-1));
                world.assert_refused(&operation, &arguments, INVALID).await;
                if name == "limit" {
                    for limit in [0, 100_000, i64::MAX] {
                        arguments.insert(name.to_owned(), json!(limit));
                        world.assert_refused(&operation, &arguments, INVALID).await;
                    }
                }
            }
        }
        if operation.in_query.iter().any(|name| name == "after") {
            asked += 1;
            let mut arguments = operation.arguments(&world.group);
            let is_sequence = ["history", "thread"].contains(&operation.name.as_str());
            let after = if is_sequence { json!(-1) } else { json!("a/b") };
            arguments.insert("after".to_owned(), after);
            world.assert_refused(&operation, &arguments, INVALID).await;
        }
    }
    assert!(asked >= 20, "{asked}");
    world.broker.stop().await;
}

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
