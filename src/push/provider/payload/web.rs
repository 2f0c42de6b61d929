//! The form of a notification for browsers: a JSON text, encrypted for the subscription, and
//! headers for the push service.
//!
//! ```text
//!   {"conversation", "seq", "class", "urgent", "badge", "text", "title", "body"}
//!   {"cleared": [[conversation, seq], …], "badge"}
//! ```
//!
//! Spaces at the end bring it to one of a few lengths, so that the push service learns next to
//! nothing from it.

use serde_json::{Value, json};

use super::{cleared, fit, preview};
use crate::push::notification::{Class, Notification, Preview, Purpose};

/// RFC 8291 §4: a push service takes 4096 bytes, of which header, delimiter and tag are 103.
const BYTES_MAX: usize = 4096 - 103;
/// The lengths that a payload may have.
const LENGTHS: [usize; 4] = [512, 1024, 2048, BYTES_MAX];
const TIME_TO_LIVE_MAX_SECONDS: i64 = 28 * 24 * 60 * 60;

/// What is encrypted, shortened to what every push service takes, and padded.
pub(in super::super) fn payload(notification: &Notification) -> Option<Vec<u8>> {
    let mut payload = fit(preview(&notification.purpose), BYTES_MAX, |preview| {
        content(notification, preview).to_string().into_bytes()
    })?;
    let length = LENGTHS
        .into_iter()
        .find(|length| *length >= payload.len())?;
    payload.resize(length, b' ');
    Some(payload)
}

fn content(notification: &Notification, preview: Option<&Preview>) -> Value {
    let mut content = match &notification.purpose {
        Purpose::Clear(positions) => json!({ "cleared": cleared(positions) }),
        Purpose::Wake(wake) => {
            let mut content = json!({
                "conversation": wake.conversation,
                "seq": wake.sequence,
                "class": wake.class.as_str(),
                "text": wake.text.generic,
            });
            if wake.is_urgent {
                content["urgent"] = json!(true);
            }
            if let Some(preview) = preview {
                content["title"] = json!(preview.title);
                content["body"] = json!(preview.body);
            }
            content
        }
    };
    if let Some(badge) = notification.badge {
        content["badge"] = json!(badge);
    }
    content
}

/// RFC 8030 §5.2, in seconds.
pub(in super::super) fn time_to_live(notification: &Notification, now_unix: i64) -> i64 {
    (notification.expires_at_unix - now_unix).clamp(0, TIME_TO_LIVE_MAX_SECONDS)
}

/// RFC 8030 §5.3: `high` reaches a device with an empty battery.
pub(in super::super) fn urgency(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Clear(_) => "low",
        Purpose::Wake(wake) => match wake.class {
            Class::Background => "low",
            Class::Voip => "high",
            Class::Alert if wake.is_urgent => "high",
            Class::Alert => "normal",
        },
    }
}

/// What replaces what (RFC 8030 §5.4): the conversation, or everything that clears.
pub(in super::super) fn topic(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Wake(wake) => wake.conversation.to_string(),
        Purpose::Clear(_) => "clear".to_owned(),
    }
}
