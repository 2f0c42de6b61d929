//! The form of a notification for Apple: headers and payload. FCM takes the same for devices
//! of Apple's.
//!
//! ```text
//!   alert       {"aps": {"alert": {"loc-key" | "body" | "title", "body"}, "badge", "sound",
//!                        "mutable-content": 1, "thread-id", "interruption-level"},
//!                "homing": {"conversation", "seq"}}
//!   background  {"aps": {"content-available": 1}, "homing": {"conversation", "seq"}}
//!   voip        {"aps": {"alert"}, "homing": {"conversation", "seq"}}
//!   clear       {"aps": {"content-available": 1, "badge"}, "homing": {"cleared": [[conversation, seq], …]}}
//! ```

use serde_json::{Map, Value, json};

use super::{cleared, fit, preview};
use crate::push::notification::{Class, Notification, Preview, Purpose, Text, Wake};

/// Of a payload; of a call.
const BYTES_MAX: usize = 4096;
const VOIP_BYTES_MAX: usize = 5120;
/// How long Apple keeps a notification at most.
const TIME_TO_LIVE_MAX_SECONDS: i64 = 30 * 24 * 60 * 60;

/// `apns-push-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum PushType {
    Alert,
    Background,
    Voip,
}

impl PushType {
    /// What the notification asks for. Removing notifications is an alert as far as it changes
    /// the number on the icon.
    pub(in super::super) fn of(notification: &Notification) -> Self {
        match &notification.purpose {
            Purpose::Wake(wake) => match wake.class {
                Class::Alert => Self::Alert,
                Class::Background => Self::Background,
                Class::Voip => Self::Voip,
            },
            Purpose::Clear(_) if notification.badge.is_some() => Self::Alert,
            Purpose::Clear(_) => Self::Background,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Background => "background",
            Self::Voip => "voip",
        }
    }
}

/// A notification as Apple wants it.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Form {
    pub(in super::super) push_type: PushType,
}

impl Form {
    pub(in super::super) fn new(push_type: PushType) -> Self {
        Self { push_type }
    }

    /// The headers that FCM takes, too; `now_unix` is in seconds since 1970.
    pub(in super::super) fn headers(
        self,
        notification: &Notification,
        now_unix: i64,
    ) -> [(&'static str, String); 4] {
        let is_seen = matches!(&notification.purpose, Purpose::Wake(_))
            && self.push_type != PushType::Background;
        let priority = if is_seen { "10" } else { "5" };
        // 0 is: try once, keep nothing.
        let expires_at = notification.expires_at_unix;
        let expires_at = expires_at.clamp(0, now_unix + TIME_TO_LIVE_MAX_SECONDS);
        let collapse_id = match &notification.purpose {
            Purpose::Wake(wake) => wake.conversation.to_string(),
            Purpose::Clear(_) => "clear".to_owned(),
        };
        [
            ("apns-push-type", self.push_type.as_str().to_owned()),
            ("apns-priority", priority.to_owned()),
            ("apns-expiration", expires_at.to_string()),
            ("apns-collapse-id", collapse_id),
        ]
    }

    /// The payload, shortened to what Apple takes.
    pub(in super::super) fn payload(self, notification: &Notification) -> Option<Vec<u8>> {
        let bytes_max = match self.push_type {
            PushType::Voip => VOIP_BYTES_MAX,
            PushType::Alert | PushType::Background => BYTES_MAX,
        };
        fit(preview(&notification.purpose), bytes_max, |preview| {
            self.content(notification, preview).to_string().into_bytes()
        })
    }

    /// The payload with this preview, however long.
    pub(super) fn content(self, notification: &Notification, preview: Option<&Preview>) -> Value {
        match &notification.purpose {
            Purpose::Wake(wake) => json!({
                "aps": self.aps(wake, notification.badge, preview),
                "homing": { "conversation": wake.conversation, "seq": wake.sequence },
            }),
            Purpose::Clear(positions) => {
                let mut aps = Map::new();
                aps.insert("content-available".to_owned(), json!(1));
                insert_some(&mut aps, "badge", notification.badge);
                json!({ "aps": aps, "homing": { "cleared": cleared(positions) } })
            }
        }
    }

    fn aps(self, wake: &Wake, badge: Option<i64>, preview: Option<&Preview>) -> Value {
        let alert = alert(&wake.text, preview);
        match self.push_type {
            // Apple: nothing that would be shown or heard.
            PushType::Background => json!({ "content-available": 1 }),
            PushType::Voip => json!({ "alert": alert }),
            PushType::Alert => {
                let mut aps = Map::new();
                aps.insert("alert".to_owned(), alert);
                aps.insert("mutable-content".to_owned(), json!(1));
                aps.insert("thread-id".to_owned(), json!(wake.conversation));
                insert_some(&mut aps, "badge", badge);
                let sound = Some(&*wake.sound).filter(|sound| !sound.is_empty());
                insert_some(&mut aps, "sound", sound);
                let level = wake.is_urgent.then_some("time-sensitive");
                insert_some(&mut aps, "interruption-level", level);
                Value::Object(aps)
            }
        }
    }
}

fn alert(text: &Text, preview: Option<&Preview>) -> Value {
    match (preview, &text.loc_key) {
        (Some(Preview { title, body }), _) if title.is_empty() => json!({ "body": body }),
        (Some(Preview { title, body }), _) => json!({ "title": title, "body": body }),
        (None, Some(key)) => json!({ "loc-key": key }),
        (None, None) => json!({ "body": text.generic }),
    }
}

fn insert_some(map: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}
