//! Whether a user is there, as others may know it.

use serde_json::Value;

use super::push::{Activity, InvalidActivity};

/// What others are shown of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Somebody looks at one of the devices.
    Active,
    /// A device is connected, and nobody looks.
    Background,
    Offline {
        /// When the last device went, in milliseconds since 1970; none if others may not know.
        last_seen_millis: Option<i64>,
    },
}

impl Presence {
    /// Not there, and nothing else is said.
    pub const HIDDEN: Self = Self::Offline {
        last_seen_millis: None,
    };
}

/// What users decide about their own presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceSettings {
    /// Shown as offline, whatever the devices say.
    pub is_invisible: bool,
    /// Others may know when the last device went.
    pub tells_last_seen: bool,
}

/// What a device says of itself on `me/state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateReport {
    pub activity: Activity,
    /// Whether the user wants to be shown as offline while this connection lasts; none leaves
    /// it as it was.
    pub is_invisible: Option<bool>,
}

impl StateReport {
    /// Reads the payload of `me/state`: that of an [`Activity`], as an object perhaps with
    /// `"invisible": true`.
    ///
    /// # Errors
    ///
    /// [`InvalidActivity`] if it is anything else.
    pub fn from_payload(payload: &[u8]) -> Result<Self, InvalidActivity> {
        let activity = Activity::from_payload(payload)?;
        let members = serde_json::from_slice(payload).unwrap_or(Value::Null);
        let is_invisible = match members.get("invisible") {
            None => None,
            Some(Value::Bool(is_invisible)) => Some(*is_invisible),
            Some(_) => return Err(InvalidActivity),
        };
        Ok(Self {
            activity,
            is_invisible,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_may_say_that_nobody_should_know() {
        let read = |text: &str| StateReport::from_payload(text.as_bytes()).ok();
        let says = |activity, is_invisible| {
            Some(StateReport {
                activity,
                is_invisible,
            })
        };
        assert_eq!(read("away"), says(Activity::Away, None));
        assert_eq!(read("\"active\""), says(Activity::Active, None));
        for is_invisible in [true, false] {
            let text = format!(r#"{{"state":"active","invisible":{is_invisible}}}"#);
            assert_eq!(read(&text), says(Activity::Active, Some(is_invisible)));
        }
        for text in [
            r#"{"invisible":true}"#,
            r#"{"state":"active","invisible":1}"#,
            r#"{"state":"active","invisible":null}"#,
            r#"["active"]"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
