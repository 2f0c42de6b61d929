//! Every operation, as the served document lists them, asked for what cannot be: refused with the
//! same problem over REST and MQTT.

mod everywhere;
mod values;

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
                "until" => json!("forever"),
                other => panic!("{}: what is {other}?", self.name),
            };
            (name.clone(), value)
        });
        let mut arguments: Map<_, _> = arguments.collect();
        // What is not required alone, but must not all be missing.
        let besides = match self.name.as_str() {
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
