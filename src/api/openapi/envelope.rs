//! What is sent as a message.

use serde_json::{Map, Value, json};

use crate::domain::envelope::{
    ContentLimits, EXPIRES_AT_MAX, KIND_EDIT, KIND_REACTION, KIND_RETRACT, KIND_TEXT,
    REACTION_KEY_BYTES_MAX, SERVER_MEMBERS,
};

const NO_CONTROL: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

pub(super) fn envelope(limits: ContentLimits, reactions_max: u16) -> Value {
    let sequence =
        json!({"type": ["integer", "null"], "minimum": 1, "maximum": i64::MAX, "format": "int64"});
    let changes = format!(
        "`text` or what the application defines; `edit`, `retract` and `reaction` change another one. A message has at most {reactions_max} sorts of reactions."
    );
    let list = |items_max: usize, items: Value, description: &str| json!({"type": ["array", "null"], "maxItems": items_max, "items": items, "description": description});
    let user = json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^+#/\\u0000-\\u001f\\u007f-\\u009f]+$"});
    let mut members = json!({
        "id": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Chosen by the sender, kept when the message is repeated."},
        "type": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^(?!homing\\.)[^\\u0000-\\u001f\\u007f-\\u009f]+$", "default": KIND_TEXT, "description": changes},
        "body": {"description": "Any JSON. It has this or `bytes`; a `retract` has neither."},
        "bytes": {"type": "string", "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$", "description": "Base64, in place of `body`."},
        "reply_to": sequence,
        "ref": sequence,
        "urgent": {"type": ["boolean", "null"], "description": "Wakes also in quiet hours."},
        "expires_at": {"type": ["integer", "null"], "minimum": 1, "maximum": EXPIRES_AT_MAX, "description": "The content is erased then, in milliseconds since 1970."},
        "mentions": list(limits.mentions_max, user, "Users who are told although they muted the conversation."),
        "attachments": list(limits.attachments_max, file(), "Files that lie elsewhere."),
    });
    for name in SERVER_MEMBERS {
        members[name] = false.into();
    }
    json!({
        "type": "object",
        "description": "What is sent; members that are not named here are kept and delivered as they are.",
        "required": ["id"],
        "oneOf": forms(),
        "properties": members,
    })
}

fn file() -> Value {
    let text = json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": NO_CONTROL});
    json!({
        "type": "object",
        "required": ["id", "size", "content_type"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": NO_CONTROL},
            "size": {"type": "integer", "minimum": 0, "maximum": 1_u64 << 53},
            "content_type": {"type": "string", "pattern": "^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}$"},
            "name": text,
            "url": {"type": ["string", "null"], "maxLength": 2048, "pattern": "^https?://[!-~]+$"},
            "sha256": {"type": ["string", "null"], "pattern": "^[0-9a-fA-F]{64}$"},
        },
    })
}

/// What goes together, and what does not: a message, or a change of one.
fn forms() -> Value {
    let form = |required: &[&str], members: Value, without: &[&str]| {
        let mut properties: Map<_, _> = without
            .iter()
            .map(|name| ((*name).to_owned(), Value::Bool(false)))
            .collect();
        if let Value::Object(members) = members {
            properties.extend(members);
        }
        json!({"required": required, "properties": properties})
    };
    let message = json!({"type": {"not": {"enum": [KIND_EDIT, KIND_RETRACT, KIND_REACTION]}}, "ref": {"type": "null"}});
    let change = |kind| json!({"type": {"const": kind}, "ref": {"type": "integer"}, "reply_to": {"type": "null"}});
    let mut reaction = change(KIND_REACTION);
    reaction["body"] = json!({
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": {"type": "string", "minLength": 1, "maxLength": REACTION_KEY_BYTES_MAX, "pattern": NO_CONTROL},
            "remove": {"type": "boolean", "description": "It is taken back."},
        },
        "additionalProperties": false,
    });
    let of_a_message = ["bytes", "urgent", "expires_at", "mentions", "attachments"];
    let of_any = [
        "body",
        "bytes",
        "urgent",
        "expires_at",
        "mentions",
        "attachments",
    ];
    json!([
        form(&["body"], message.clone(), &["bytes"]),
        form(&["bytes"], message, &["body"]),
        form(
            &["type", "ref", "body"],
            change(KIND_EDIT),
            &["bytes", "urgent", "expires_at"]
        ),
        form(
            &["type", "ref", "bytes"],
            change(KIND_EDIT),
            &["body", "urgent", "expires_at"]
        ),
        form(&["type", "ref"], change(KIND_RETRACT), &of_any),
        form(&["type", "ref", "body"], reaction, &of_a_message),
    ])
}
