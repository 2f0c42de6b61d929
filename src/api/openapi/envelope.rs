//! What is sent as a message.

use serde_json::{Value, json};

use crate::domain::envelope::{ContentLimits, KIND_RETRACT, KIND_TEXT};

pub(super) fn envelope(limits: ContentLimits, reactions_max: u16) -> Value {
    let sequence = json!({"type": "integer", "minimum": 1, "maximum": i64::MAX});
    let changes = format!(
        "`text` or what the application defines; `edit`, `retract` and `reaction` change another one. A message has at most {reactions_max} sorts of reactions."
    );
    let list = |items_max: usize, items: Value, description: &str| json!({"type": ["array", "null"], "maxItems": items_max, "items": items, "description": description});
    let user = json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^+#/\\u0000-\\u001f\\u007f-\\u009f]+$"});
    let file = json!({
        "type": "object",
        "required": ["id", "size", "content_type"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"},
            "size": {"type": "integer", "minimum": 0, "maximum": 1_u64 << 53},
            "content_type": {"type": "string", "pattern": "^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}$"},
        },
    });
    json!({
        "type": "object",
        "description": "What is sent; members that are not named here are kept and delivered as they are.",
        "required": ["id"],
        "oneOf": [
            {"required": ["body"]},
            {"required": ["bytes"]},
            {"required": ["type"], "properties": {"type": {"const": KIND_RETRACT}}},
        ],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Chosen by the sender, kept when the message is repeated."},
            "type": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^(?!homing\\.)[^\\u0000-\\u001f\\u007f-\\u009f]+$", "default": KIND_TEXT, "description": changes},
            "body": {"description": "Any JSON. It has this or `bytes`; a `retract` has neither."},
            "bytes": {"type": "string", "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$", "description": "Base64, in place of `body`."},
            "reply_to": sequence,
            "ref": sequence,
            "mentions": list(limits.mentions_max, user, "Users who are told although they muted the conversation."),
            "attachments": list(limits.attachments_max, file, "Files that lie elsewhere."),
        },
    })
}
