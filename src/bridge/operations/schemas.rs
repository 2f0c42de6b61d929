//! The JSON Schemas of what everybody names: conversations, users, sequences. They stand where
//! they are used, since each is one line.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    bridge::push_settings::{Muted, TimeOfDay},
    domain::{
        change::{MILLIS_MAX, Until},
        ids::{ClientMessageId, ConversationId, SUBJECT_BYTES_MAX, Subject},
        message::Sequence,
        push::{Environment, Provider},
    },
    store::conversations::{Kind, Role},
};

macro_rules! inline_schema {
    ($($type:ty = $schema:tt;)*) => {
        $(impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

inline_schema! {
    ConversationId = {"type": "string", "pattern": "^([A-Za-z0-9_-]{21}[AQgw]|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$", "description": "A uuid: 22 characters of base64url, or its 36-character form."};
    Subject = {"type": "string", "minLength": 1, "maxLength": (SUBJECT_BYTES_MAX), "pattern": "^[^+#/\\u0000-\\u001f\\u007f-\\u009f]+$", "description": "The name of a user: the `sub` of a token."};
    ClientMessageId = {"type": "string", "minLength": 1, "maxLength": 64, "description": "Chosen by the sender, kept when the message is repeated."};
    Sequence = {"type": "integer", "format": "int64", "minimum": 1, "maximum": (i64::MAX), "description": "The place of an entry in its conversation."};
    Kind = {"type": "string", "enum": ["direct", "group"]};
    Role = {"type": "string", "enum": ["owner", "admin", "member", "readonly"]};
    Provider = {"type": "string", "enum": ["apns", "fcm", "webpush"]};
    Environment = {"type": "string", "enum": ["production", "sandbox"]};
    TimeOfDay = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"};
    Until = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": (MILLIS_MAX)}, {"const": "forever"}], "description": "Milliseconds since 1970, or `forever`."};
    Muted = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 253_402_300_799_999_i64}, {"const": "forever"}], "description": "Milliseconds since 1970, or `forever`."};
}
