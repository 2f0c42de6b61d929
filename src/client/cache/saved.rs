//! Saving what a device shows, and loading it when the application starts again.
//!
//! ```text
//!   to_json ─▶ a file or a row of the application's ─▶ from_json ─▶ shown at once ─▶ Reconcile
//! ```
//!
//! What is saved names its format: none is guessed at. What was handed to a connection is to be handed
//! over once more, under its id. An [`Expected`](super::Expected) is saved with the request that it
//! stands for: it counts again once its inbox has been loaded.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Inbox, Outgoing, Thread};

/// Rises with every change of what is saved.
const FORMAT: u64 = 1;

/// A text that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error(
        "saved in format {0}, and this library reads format {FORMAT}: keep it for the library that wrote it; or drop it, and ask the server for what is not the user's own"
    )]
    Format(u64),
    #[error("not saved by this library, or damaged: drop it, and ask the server")]
    Unreadable(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Saved<T> {
    format: u64,
    content: T,
}

/// What every format has.
#[derive(Deserialize)]
struct Header {
    format: u64,
}

fn save<T: Serialize>(content: &T) -> String {
    let saved = Saved {
        format: FORMAT,
        content,
    };
    serde_json::to_string(&saved).expect("all keys are texts or numbers")
}

fn load<T: DeserializeOwned>(text: &str) -> Result<T, SavedError> {
    let header: Header = serde_json::from_str(text).map_err(SavedError::Unreadable)?;
    if header.format != FORMAT {
        return Err(SavedError::Format(header.format));
    }
    let saved: Saved<T> = serde_json::from_str(text).map_err(SavedError::Unreadable)?;
    Ok(saved.content)
}

impl Inbox {
    /// To be saved.
    #[must_use]
    pub fn to_json(&self) -> String {
        save(self)
    }

    /// As it was saved.
    ///
    /// # Errors
    ///
    /// [`SavedError`] if it was not saved so.
    pub fn from_json(text: &str) -> Result<Self, SavedError> {
        load(text)
    }
}

impl Thread {
    /// To be saved.
    #[must_use]
    pub fn to_json(&self) -> String {
        save(self)
    }

    /// As it was saved.
    ///
    /// # Errors
    ///
    /// [`SavedError`] if it was not saved so.
    pub fn from_json(text: &str) -> Result<Self, SavedError> {
        load(text)
    }
}

impl Outgoing {
    /// To be saved.
    #[must_use]
    pub fn to_json(&self) -> String {
        save(self)
    }

    /// As it was saved; what was being sent is pending.
    ///
    /// # Errors
    ///
    /// [`SavedError`] if it was not saved so.
    pub fn from_json(text: &str) -> Result<Self, SavedError> {
        let mut outgoing: Self = load(text)?;
        outgoing.disconnected();
        Ok(outgoing)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::{
        super::{Expected, Members},
        *,
    };
    use crate::domain::{
        ids::{ClientMessageId, ConversationId, Subject},
        message::Sequence,
    };

    fn members(value: Value) -> Members {
        match value {
            Value::Object(members) => members,
            other => panic!("{other}"),
        }
    }

    fn id(number: u128) -> ConversationId {
        ConversationId(Uuid::from_u128(number))
    }

    /// Any text, and numbers of any size.
    fn any_content() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            proptest::num::f64::NORMAL.prop_map(Value::from),
            Just(Value::Null),
            any::<String>().prop_map(|name| json!({name: [1, {"deep": true}]})),
        ]
    }

    /// Rows, patches that build on others, and what the user set.
    fn any_inbox() -> impl Strategy<Value = Inbox> {
        let step = (0..4_u8, 0..3_u128, 1..9_i64, 1..3_i64, any_content());
        proptest::collection::vec(step, 0..30).prop_map(|steps| {
            let mut inbox = Inbox::default();
            for (what, number, version, epoch, content) in steps {
                let mut row = members(
                    json!({"conversation": id(number), "version": version, "epoch": epoch,
                    "activity_at": version, "title": content, "last_message": {"seq": version}}),
                );
                match what {
                    0 => drop(inbox.apply(row)),
                    1 => {
                        row.insert("since_version".into(), (version - 1).into());
                        inbox.apply(row);
                    }
                    2 => drop(inbox.expect(id(number), members(json!({"title": content})))),
                    _ => inbox.begun(version),
                }
            }
            inbox
        })
    }

    fn any_thread() -> impl Strategy<Value = Thread> {
        let step = (0..5_u8, 1..12_i64, any_content());
        proptest::collection::vec(step, 0..40).prop_map(|steps| {
            let mut thread = Thread::new(Subject::new("me").unwrap());
            for (what, seq, content) in steps {
                let entry = members(
                    json!({"seq": seq, "id": seq.to_string(), "from": "ann", "at": seq,
                    "type": "text", "body": content, "version": seq}),
                );
                match what {
                    0 => drop(thread.message(entry)),
                    1 => thread.page(seq),
                    2 => thread.begins_at(seq / 3),
                    _ => drop(thread.entry(entry)),
                }
            }
            thread
        })
    }

    fn any_outgoing() -> impl Strategy<Value = Outgoing> {
        let step = (0..6_u8, 0..9_u8, 0..2_u128, any_content());
        proptest::collection::vec(step, 0..30).prop_map(|steps| {
            let mut outgoing = Outgoing::default();
            for (what, message, number, content) in steps {
                let text = format!("m{message}");
                match what {
                    0 | 1 => {
                        let message = ClientMessageId::new(text).unwrap();
                        outgoing.begin(id(number), &message, members(json!({"body": content})));
                    }
                    2 => outgoing.handed_over(&text),
                    3 => outgoing.refused(&text, &content.to_string()),
                    4 => drop(outgoing.ask()),
                    _ => {
                        let place = Sequence::new(i64::from(message)).ok();
                        outgoing.acknowledged(&text, place);
                    }
                }
            }
            outgoing
        })
    }

    /// Goal: what was being sent when the application ended is sent again under its id.
    #[test]
    fn what_was_being_sent_is_pending_when_it_is_loaded() {
        let mut outgoing = Outgoing::default();
        for name in ["a", "b"] {
            let name = ClientMessageId::new(name.to_owned()).unwrap();
            outgoing.begin(id(1), &name, members(json!({"body": "hello"})));
        }
        outgoing.handed_over("a");
        assert_eq!(outgoing.pending().len(), 1);
        let loaded = Outgoing::from_json(&outgoing.to_json()).unwrap();
        let pending = loaded.pending();
        let pending: Vec<_> = pending.iter().map(|(name, _)| *name).collect();
        assert_eq!(pending, ["a", "b"]);
        assert_eq!(loaded.pending()[0].1.envelope["body"], "hello");
    }

    /// Goal: the answer to a request that was made before the end still counts.
    #[test]
    fn what_was_expected_is_answered_after_loading() {
        let mut inbox = Inbox::default();
        let row = json!({"conversation": id(1), "version": 1, "archived": false});
        inbox.apply(members(row));
        let expected = inbox.expect(id(1), members(json!({"archived": true})));
        let expected = serde_json::to_string(&expected).unwrap();
        let mut loaded = Inbox::from_json(&inbox.to_json()).unwrap();
        assert_eq!(loaded.row(id(1)).unwrap().fields["archived"], true);
        let expected: Expected = serde_json::from_str(&expected).unwrap();
        loaded.refused(expected);
        assert_eq!(loaded.row(id(1)).unwrap().fields["archived"], false);
    }

    #[test]
    fn what_is_not_of_this_format_is_refused_and_says_what_to_do() {
        let newer = r#"{"format":2,"content":{"rows":[]}}"#;
        let error = Inbox::from_json(newer).unwrap_err();
        assert!(matches!(error, SavedError::Format(2)), "{error}");
        assert!(error.to_string().contains("keep it"), "{error}");
        let thread = Thread::new(Subject::new("me").unwrap()).to_json();
        for text in ["", "7", "{}", r#"{"format":1}"#, &thread[1..], &thread] {
            let error = Outgoing::from_json(text).unwrap_err();
            assert!(
                matches!(error, SavedError::Unreadable(_)),
                "{text}: {error}"
            );
            assert!(error.to_string().contains("ask the server"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn an_inbox_is_loaded_as_it_was_saved(inbox in any_inbox()) {
            prop_assert_eq!(Inbox::from_json(&inbox.to_json()).unwrap(), inbox);
        }

        #[test]
        fn a_thread_is_loaded_as_it_was_saved(thread in any_thread()) {
            prop_assert_eq!(Thread::from_json(&thread.to_json()).unwrap(), thread);
        }

        #[test]
        fn what_was_sent_is_loaded_as_it_was_saved(mut outgoing in any_outgoing()) {
            let loaded = Outgoing::from_json(&outgoing.to_json()).unwrap();
            outgoing.disconnected();
            prop_assert_eq!(loaded, outgoing);
        }
    }
}
