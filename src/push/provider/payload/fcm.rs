//! The form of a notification for Firebase Cloud Messaging, HTTP v1.
//!
//! It is data only: an app for Android shows it, having fetched the message. Values of data
//! are strings. Devices of Apple's get what APNs would get, except that FCM cannot ring.
//!
//! ```text
//!   data  conversation, seq, class, urgent ("1"), badge, sound, and of the texts either
//!         title and body, or loc_key, or text
//!         cleared: the JSON text of [[conversation, seq], …]
//! ```

use serde_json::{Map, Value, json};

use super::{
    apns::{Form, PushType},
    cleared, fit, preview,
    web::{topic, urgency},
};
use crate::{
    domain::ids::ConversationId,
    push::notification::{Class, Notification, Preview, Purpose, Wake},
};

/// Google counts data and overrides; here the whole message counts.
const BYTES_MAX: usize = 4096;
/// How long Google keeps a notification at most.
const TIME_TO_LIVE_MAX_SECONDS: i64 = 28 * 24 * 60 * 60;
/// Google keeps four collapse keys for a device: these for conversations, and `clear`.
const COLLAPSE_KEYS: [&str; 3] = ["c0", "c1", "c2"];

/// The body of a request, shortened to what Google takes. `now_unix` is in seconds since 1970.
pub(in super::super) fn message(
    notification: &Notification,
    token: &str,
    now_unix: i64,
) -> Option<Vec<u8>> {
    fit(preview(&notification.purpose), BYTES_MAX, |preview| {
        content(notification, token, now_unix, preview)
            .to_string()
            .into_bytes()
    })
}

fn content(
    notification: &Notification,
    token: &str,
    now_unix: i64,
    preview: Option<&Preview>,
) -> Value {
    let form = Form::new(match PushType::of(notification) {
        PushType::Voip => PushType::Alert,
        push_type => push_type,
    });
    let headers = form.headers(notification, now_unix);
    let apns_headers: Map<_, _> = headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect();
    let ttl = (notification.expires_at_unix - now_unix).clamp(0, TIME_TO_LIVE_MAX_SECONDS);
    json!({ "message": {
        "token": token,
        "data": data(notification, preview),
        "android": {
            "priority": priority(&notification.purpose),
            "ttl": format!("{ttl}s"),
            "collapse_key": collapse_key(&notification.purpose),
        },
        "apns": { "headers": apns_headers, "payload": form.content(notification, preview) },
        "webpush": { "headers": {
            "TTL": ttl.to_string(),
            "Urgency": urgency(&notification.purpose),
            "Topic": topic(&notification.purpose),
        } },
    } })
}

fn data(notification: &Notification, preview: Option<&Preview>) -> Map<String, Value> {
    let mut data = Map::new();
    let mut insert = |name: &str, value: String| {
        data.insert(name.to_owned(), Value::String(value));
    };
    if let Some(badge) = notification.badge {
        insert("badge", badge.to_string());
    }
    match &notification.purpose {
        Purpose::Clear(positions) => insert("cleared", cleared(positions).to_string()),
        Purpose::Wake(wake) => {
            insert("conversation", wake.conversation.to_string());
            insert("seq", wake.sequence.get().to_string());
            insert("class", wake.class.as_str().to_owned());
            if wake.is_urgent {
                insert("urgent", "1".to_owned());
            }
            if wake.class != Class::Background {
                texts(wake, preview, insert);
            }
        }
    }
    data
}

fn texts(wake: &Wake, preview: Option<&Preview>, mut insert: impl FnMut(&str, String)) {
    if !wake.sound.is_empty() {
        insert("sound", wake.sound.clone());
    }
    match (preview, &wake.text.loc_key) {
        (Some(preview), _) => {
            insert("title", preview.title.clone());
            insert("body", preview.body.clone());
        }
        (None, Some(key)) => insert("loc_key", key.clone()),
        (None, None) => insert("text", wake.text.generic.clone()),
    }
}

/// Google lowers the priority of apps that use HIGH for what nobody sees.
fn priority(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Wake(wake) if wake.class != Class::Background => "HIGH",
        Purpose::Wake(_) | Purpose::Clear(_) => "NORMAL",
    }
}

fn collapse_key(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Wake(wake) => COLLAPSE_KEYS[bucket(wake.conversation)],
        Purpose::Clear(_) => "clear",
    }
}

/// The same for a conversation on every node and in every version.
fn bucket(conversation: ConversationId) -> usize {
    let bytes = conversation.0.as_bytes();
    let sum: usize = bytes.iter().map(|byte| usize::from(*byte)).sum();
    sum % COLLAPSE_KEYS.len()
}
