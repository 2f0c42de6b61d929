//! `GET /v1/openapi.json`: the API for programs (OpenAPI 3.1), made from the table of operations.

mod envelope;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::envelope::envelope;
use super::{ApiState, conditions};
use crate::{
    bridge::operations::{self, Method, Operation, Sent},
    domain::{
        envelope::ContentLimits,
        ids::ConversationId,
        problem::{PROBLEM_KINDS, ProblemKind},
    },
};

/// `GET /v1/openapi.json`
pub(super) async fn show(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    let document = &state.document;
    let json = [(header::CONTENT_TYPE, "application/json")];
    let answer = (json, document.to_string()).into_response();
    conditions::tagged(&headers, document, answer)
}

/// The whole document. Messages are bounded by `limits`, each with at most `reactions_max`
/// sorts of reactions.
#[must_use]
pub fn document(limits: ContentLimits, reactions_max: u16) -> Value {
    let mut writer = Writer::new();
    let mut paths = Map::new();
    for operation in operations::all() {
        let described = writer.operation(operation);
        add(
            &mut paths,
            operation.path,
            word(operation.method),
            described,
        );
    }
    let send = writer.send(&envelope(limits, reactions_max));
    let path = "/conversations/{conversation}/messages";
    add(&mut paths, path, "post", send);
    add(&mut paths, "/events", "get", events());
    add(&mut paths, "/openapi.json", "get", itself());
    for (path, answer, summary) in [
        ("/livez", "text/plain", "Whether the process lives."),
        (
            "/readyz",
            "text/plain",
            "Whether it takes work; 503 if not.",
        ),
        ("/metrics", "application/openmetrics-text", "Its metrics."),
    ] {
        paths.insert(
            path.to_owned(),
            json!({"get": health(path, answer, summary)}),
        );
    }
    let mut schemas = writer.answers.take_definitions(true);
    schemas.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Homing",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Conversations over REST. Operations with `x-mqtt-topic` are the same over MQTT: publish their arguments, all in one JSON object, to that topic.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    })
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, described: Value) {
    let item = paths
        .entry(format!("/v1{path}"))
        .or_insert_with(|| json!({}));
    item[method] = described;
}

struct Writer {
    /// What is sent: small, and written where it is used.
    arguments: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Writer {
    fn new() -> Self {
        let inline = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let named = SchemaSettings::draft2020_12()
            .for_serialize()
            .with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            });
        Self {
            arguments: inline.into_generator(),
            answers: named.into_generator(),
        }
    }

    fn operation(&mut self, operation: &Operation) -> Value {
        let arguments = (operation.arguments)(&mut self.arguments);
        let mut arguments = Arguments::new(arguments);
        let has_body = matches!(operation.method, Method::Post | Method::Put | Method::Patch);
        let in_path = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<_> = in_path.map(|name| arguments.take(name, "path")).collect();
        if !has_body {
            for name in arguments.names() {
                parameters.push(arguments.take(&name, "query"));
            }
        }
        parameters.extend(headers(operation));
        let mut described = json!({
            "operationId": operation.name,
            "summary": operation.summary,
            "x-mqtt-topic": format!("q/{}", operation.name),
            "parameters": parameters,
            "responses": self.responses(operation),
        });
        if has_body && !arguments.members.is_empty() {
            described["requestBody"] = arguments.body();
        }
        described
    }

    fn responses(&mut self, operation: &Operation) -> Value {
        let mut responses = Map::new();
        let schema = operation.answer.map(|answer| answer(&mut self.answers));
        let is_get = operation.method == Method::Get;
        if let Some(schema) = schema {
            let statuses: &[&str] = match operation.method {
                Method::Post | Method::Put => &["200", "201"],
                Method::Get | Method::Patch | Method::Delete => &["200"],
            };
            for status in statuses {
                let description = if *status == "201" {
                    "It is new."
                } else {
                    "Done."
                };
                responses.insert(
                    (*status).to_owned(),
                    json!({
                        "description": description,
                        "content": {"application/json": {"schema": schema}},
                    }),
                );
            }
        }
        if operation.answer.is_none() || !is_get {
            let nothing = json!({"description": "Done, and there is nothing to tell."});
            responses.insert("204".to_owned(), nothing);
        }
        if is_get {
            let unchanged = json!({"description": "As `If-None-Match` says."});
            responses.insert("304".to_owned(), unchanged);
        }
        let mut refusals = vec![400, 401, 403, 404, 409, 429, 500, 503];
        if !is_get && operation.method != Method::Delete {
            refusals.extend([413, 415]);
        }
        match operation.method {
            Method::Get => {}
            Method::Post => refusals.push(422),
            Method::Put | Method::Patch | Method::Delete => refusals.push(412),
        }
        refuse(&mut responses, &refusals);
        responses.into()
    }

    /// What stands in no table, since over MQTT it is a PUBLISH.
    fn send(&mut self, envelope: &Value) -> Value {
        let sent = self.answers.subschema_for::<Sent>();
        let conversation = self.arguments.subschema_for::<ConversationId>();
        let answer = |description| json!({"description": description, "content": {"application/json": {"schema": sent}}});
        let mut responses = Map::new();
        responses.insert("201".to_owned(), answer("It is stored."));
        responses.insert("200".to_owned(), answer("It was stored before."));
        refuse(
            &mut responses,
            &[400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503],
        );
        json!({
            "operationId": "send",
            "summary": "Sends a message, as on c/{conversation}/send.",
            "x-mqtt-topic": "c/{conversation}/send",
            "parameters": [
                {"name": "conversation", "in": "path", "required": true, "schema": conversation},
                idempotency_key(),
            ],
            "requestBody": {
                "required": true,
                "content": {"application/json": {"schema": envelope}},
            },
            "responses": responses,
        })
    }
}

/// The members of the arguments of an operation.
struct Arguments {
    members: Map<String, Value>,
    required: Vec<String>,
    /// Of members that go together.
    any_of: Option<Value>,
    is_closed: bool,
}

impl Arguments {
    fn new(mut schema: Schema) -> Self {
        let object = schema.ensure_object();
        let members = match object.remove("properties") {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let required = object.remove("required");
        let required = required.and_then(|names| serde_json::from_value(names).ok());
        let mut members: Map<String, Value> = members;
        members.values_mut().for_each(bound_integers);
        Self {
            members,
            required: required.unwrap_or_default(),
            any_of: object.remove("anyOf"),
            is_closed: object.get("additionalProperties") == Some(&false.into()),
        }
    }

    fn names(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    fn take(&mut self, name: &str, place: &str) -> Value {
        let mut schema = self.members.remove(name).unwrap_or_else(|| json!({}));
        remove_null(&mut schema);
        let is_list = schema["type"] == "array";
        let is_required = place == "path" || self.required.iter().any(|known| known == name);
        self.required.retain(|known| known != name);
        let mut parameter = json!({
            "name": name,
            "in": place,
            "required": is_required,
            "schema": schema,
        });
        if is_list {
            // A comma stands between the items.
            parameter["schema"]["minItems"] = 1.into();
            parameter["schema"]["items"]["not"] = json!({"pattern": ","});
            parameter["style"] = "form".into();
            parameter["explode"] = false.into();
        }
        parameter
    }

    fn body(self) -> Value {
        let is_required = !self.required.is_empty() || self.any_of.is_some();
        let mut schema = json!({"type": "object", "properties": self.members});
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        if let Some(any_of) = self.any_of {
            schema["anyOf"] = any_of;
        }
        if self.is_closed {
            schema["additionalProperties"] = false.into();
        }
        json!({"required": is_required, "content": {"application/json": {"schema": schema}}})
    }
}

/// Says how large an integer of a format may be, where nothing else does.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let (least, most): (i64, i64) = match members.get("format").and_then(Value::as_str) {
                Some("int64") => (i64::MIN, i64::MAX),
                Some("int32") => (i32::MIN.into(), i32::MAX.into()),
                Some("uint64" | "uint") => (0, i64::MAX),
                Some("uint32") => (0, u32::MAX.into()),
                Some("uint16") => (0, u16::MAX.into()),
                Some("uint8") => (0, u8::MAX.into()),
                _ => return members.values_mut().for_each(bound_integers),
            };
            members.entry("minimum").or_insert(least.into());
            members.entry("maximum").or_insert(most.into());
        }
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

/// A path and a query have no null: it is left out there.
fn remove_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            schema["type"] = only.clone();
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = &mut choices[..] {
            let only = only.take();
            if let (Value::Object(outer), Value::Object(only)) = (schema, only) {
                outer.remove("anyOf");
                outer.extend(only);
            }
        }
    }
}

fn headers(operation: &Operation) -> Vec<Value> {
    let header = |name: &str, description: &str| {
        json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": {"type": "string"},
        })
    };
    let is_shown =
        operations::all().any(|other| other.method == Method::Get && other.path == operation.path);
    match operation.method {
        Method::Get => vec![header(
            "If-None-Match",
            "ETags that are known already: 304 if the answer is one of them.",
        )],
        Method::Post => vec![idempotency_key()],
        _ if is_shown => vec![header(
            "If-Match",
            "The ETag of GET that the change is based on: 412 if it is another one by now.",
        )],
        _ => Vec::new(),
    }
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Chosen anew for each request, kept when it is repeated: it is done once, and answered again for a day.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,64}$"},
    })
}

fn events() -> Value {
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "A stream that ends with the token or the server.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }),
    );
    refuse(&mut responses, &[400, 401, 429, 500, 503]);
    json!({
        "operationId": "events",
        "summary": "What happens, as it happens (server-sent events).",
        "parameters": [{
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Of the stream before: the first event says what to ask for then.",
            "schema": {"type": "string"},
        }, {
            "name": "watch",
            "in": "query",
            "description": "Users whose presence is told, with commas between.",
            "style": "form",
            "explode": false,
            "schema": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 128}},
        }],
        "responses": responses,
    })
}

fn itself() -> Value {
    json!({
        "operationId": "openapi",
        "summary": "This document.",
        "security": [],
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}},
            "304": {"description": "As `If-None-Match` says."},
        },
    })
}

fn health(path: &str, media: &str, summary: &str) -> Value {
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({"description": "Yes.", "content": {media: {"schema": {"type": "string"}}}}),
    );
    refuse(&mut responses, &[503]);
    json!({
        "operationId": path.trim_start_matches('/'),
        "summary": summary,
        "security": [],
        "responses": responses,
    })
}

fn refuse(responses: &mut Map<String, Value>, statuses: &[u16]) {
    for status in statuses {
        let reference = json!({"$ref": format!("#/components/responses/{status}")});
        responses.insert(status.to_string(), reference);
    }
}

/// By status, with the types that there are.
fn problems() -> Value {
    let mut problems = Map::new();
    for kind in PROBLEM_KINDS {
        let described = problems.entry(kind.status().to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
                },
            })
        });
        let types = described["description"].as_str().unwrap_or_default();
        let types = format!("{types} `{}`", kind.urn());
        described["description"] = types.trim_start().into();
    }
    problems.into()
}

/// RFC 9457.
fn problem() -> Value {
    let types: Vec<_> = PROBLEM_KINDS.into_iter().map(ProblemKind::urn).collect();
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "enum": types},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What to do."},
            "retry_after": {"type": "integer", "minimum": 1, "description": "Seconds."},
        },
    })
}

fn word(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Patch => "patch",
        Method::Delete => "delete",
    }
}
