//! The document of the API: everything is in it, and nothing else.

use std::collections::HashMap;

use homing::{
    config::{Config, Overrides},
    domain::{envelope::ContentLimits, message::Content},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Api, answer};

/// As it is with the settings that nobody has changed.
fn document() -> Value {
    let config = Config::load(None, HashMap::new(), Overrides::default()).unwrap();
    homing::api::document(limits(), config.message.reactions_max)
}

fn limits() -> ContentLimits {
    let config = Config::load(None, HashMap::new(), Overrides::default()).unwrap();
    let message = config.message;
    ContentLimits {
        bytes_max: message.bytes_max,
        mentions_max: message.mentions_max.into(),
        attachments_max: message.attachments_max.into(),
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_document_names_every_route(pool: PgPool) {
    let api = Api::start(pool).await;
    let shown = answer(api.request(Method::GET, "/v1/openapi.json")).await;
    assert_eq!(shown.status, 200, "without a token");
    assert_eq!(shown.body, document());
    assert_eq!(shown.body["openapi"], "3.1.0");
    let paths = shown.body["paths"].as_object().unwrap();
    for operation in homing::bridge::operations::all() {
        let method = format!("{:?}", operation.method).to_lowercase();
        let described = &paths[&format!("/v1{}", operation.path)][method];
        assert_eq!(described["operationId"], operation.name);
        assert_eq!(described["x-mqtt-topic"], format!("q/{}", operation.name));
        assert!(described["summary"].is_string());
    }
    // What is described is there: nobody answers that there is no such path or method.
    for (path, methods) in paths {
        let path = path.replace("{seq}", "1");
        let path = path.replace('{', "AZjzwgAAcACAAAAAAAAAAQ").replace('}', "");
        for method in methods.as_object().unwrap().keys() {
            if path == "/v1/events" {
                continue; // it does not end
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let asked = api.request(method.clone(), &path);
            let asked = answer(asked.bearer_auth(api.token("alice"))).await;
            let says = asked.body["detail"].as_str().unwrap_or_default();
            assert_ne!(asked.status, 405, "{method} {path}");
            assert!(!says.contains("nothing at this path"), "{method} {path}");
        }
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_document_names_the_bounds_of_messages(pool: PgPool) {
    let settings = [
        ("HOMING__MESSAGE__REACTIONS_MAX", "2"),
        ("HOMING__MESSAGE__MENTIONS_MAX", "3"),
        ("HOMING__MESSAGE__ATTACHMENTS_MAX", "1"),
    ];
    let api = Api::start_with(pool, &settings).await;
    let document = answer(api.request(Method::GET, "/v1/openapi.json")).await;
    let send = &document.body["paths"]["/v1/conversations/{conversation}/messages"]["post"];
    let members = &send["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(members["mentions"]["maxItems"], 3);
    assert_eq!(members["attachments"]["maxItems"], 1);
    let described = members["type"]["description"].as_str().unwrap();
    assert!(described.contains("at most 2 sorts"), "{described}");
}

/// Goal: whoever reads it finds what it refers to.
#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                members.values().for_each(|value| walk(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

/// Goal: whoever reads the document sends a message that is accepted.
#[test]
fn the_document_says_what_a_message_needs() {
    let document = document();
    let path = "/paths/~1v1~1conversations~1{conversation}~1messages/post";
    let sent = document.pointer(path).unwrap();
    let schema = &sent["requestBody"]["content"]["application/json"]["schema"];
    let kind = &schema["properties"]["type"];
    assert_eq!(kind["default"], homing::domain::envelope::KIND_TEXT);
    for (message, is_valid) in [
        (json!({"id": "1", "body": null}), true),
        (json!({"id": "1", "bytes": ""}), true),
        (
            json!({"id": "1", "type": "edit", "ref": 1, "body": 1}),
            true,
        ),
        (json!({"id": "1", "type": "retract", "ref": 1}), true),
        (json!({"id": "1"}), false),
        (json!({"id": "1", "type": "edit", "ref": 1}), false),
        (
            json!({"id": "1", "type": "retract", "ref": 1, "body": 1}),
            false,
        ),
        (json!({"id": "1", "body": 1, "bytes": ""}), false),
        (json!({"id": "1", "body": 1, "reply_to": 1}), true),
        (json!({"id": "1", "body": 1, "ref": 1}), false),
        (json!({"id": "1", "body": 1, "seq": 1}), false),
        (json!({"id": "1", "body": 1, "urgent": 1}), false),
        (json!({"id": "1", "body": 1, "expires_at": 9}), true),
        (
            json!({"id": "1", "type": "edit", "ref": 1, "body": 1, "reply_to": 1}),
            false,
        ),
        (
            json!({"id": "1", "type": "edit", "ref": 1, "body": 1, "urgent": true}),
            false,
        ),
        (
            json!({"id": "1", "type": "reaction", "ref": 1, "body": {"key": "+"}}),
            true,
        ),
        (
            json!({"id": "1", "type": "reaction", "ref": 1, "body": {"key": "+", "x": 1}}),
            false,
        ),
        (
            json!({"id": "1", "type": "reaction", "ref": 1, "body": "+"}),
            false,
        ),
        (
            json!({"id": "1", "type": "reaction", "ref": 1, "body": {"key": "+"}, "mentions": []}),
            false,
        ),
    ] {
        assert_eq!(fits(schema, &message), is_valid, "{message}");
        let read = Content::from_json(message.to_string().as_bytes(), limits());
        assert_eq!(read.is_ok(), is_valid, "{message}");
    }
}

/// Whether a value is what a schema wants, as far as members, types, constants and alternatives go.
fn fits(schema: &Value, value: &Value) -> bool {
    if let Value::Bool(anything) = schema {
        return *anything;
    }
    let list = |name: &str| schema[name].as_array().map(Vec::as_slice);
    let types = list("type").unwrap_or(std::slice::from_ref(&schema["type"]));
    let is_of = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    let is_closed = schema["additionalProperties"] == false;
    let known = |name: &str, value: &Value| match schema["properties"].get(name) {
        Some(wanted) => fits(wanted, value),
        None => !is_closed,
    };
    let mut members = value.as_object().into_iter().flatten();
    let mut required = list("required").unwrap_or_default().iter();
    types.iter().any(is_of)
        && schema.get("const").is_none_or(|wanted| wanted == value)
        && list("enum").is_none_or(|values| values.contains(value))
        && schema.get("not").is_none_or(|not| !fits(not, value))
        && required.all(|name| value.get(name.as_str().unwrap()).is_some())
        && members.all(|(name, value)| known(name, value))
        && list("oneOf").is_none_or(|some| some.iter().filter(|one| fits(one, value)).count() == 1)
}
