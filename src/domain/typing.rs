//! Who is typing: said by a device, told to the other participants, written nowhere.

use serde::{Deserialize, Serialize};

use super::ids::Subject;

/// What a device says on `c/{cid}/typing`: that its user types (`{}`), or does not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct TypingReport {
    #[serde(rename = "typing", default = "yes")]
    pub is_typing: bool,
}

const fn yes() -> bool {
    true
}

impl TypingReport {
    /// Reads the payload of `c/{cid}/typing`: an object, though serde would take a list.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_json(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let members: serde_json::Map<_, _> = serde_json::from_slice(payload)?;
        serde_json::from_value(members.into())
    }
}

/// What the other participants are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Typing<'a> {
    pub user: &'a Subject,
    #[serde(rename = "typing")]
    pub is_typing: bool,
    /// After so many seconds without another word it is over; absent if it is over already.
    #[serde(rename = "expires_in", skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_yes_unless_it_says_no() {
        let read = |text: &str| TypingReport::from_json(text.as_bytes()).ok();
        let says = |is_typing| Some(TypingReport { is_typing });
        assert_eq!(read("{}"), says(true));
        assert_eq!(read(r#"{"typing":true}"#), says(true));
        assert_eq!(read(r#"{"typing":false,"key":1}"#), says(false));
        for payload in ["", "[]", "[true]", "true", r#"{"typing":1}"#, "\u{1}"] {
            assert_eq!(read(payload), None, "{payload}");
        }
    }

    #[test]
    fn others_are_told_who_and_for_how_long() {
        let user = &Subject::new("ann").unwrap();
        let told = |is_typing, expires_in_seconds| {
            let typing = Typing {
                user,
                is_typing,
                expires_in_seconds,
            };
            serde_json::to_string(&typing).unwrap()
        };
        assert_eq!(
            told(true, Some(5)),
            r#"{"user":"ann","typing":true,"expires_in":5}"#
        );
        assert_eq!(told(false, None), r#"{"user":"ann","typing":false}"#);
    }
}
