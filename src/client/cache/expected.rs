//! What the user has just set in the inbox, shown before the server has confirmed it.
//!
//! ```text
//!   expect(conversation, fields) ─▶ shown at once ─┬▶ answered(…): the row that the server answers
//!                                                  ├▶ apply(…): a newer row says the same
//!                                                  └▶ refused(…): as it was before
//! ```
//!
//! What one conversation waits for is confirmed in the order in which it was set, and of two values the
//! later one shows: who pins, unpins and pins again sees no flicker while the answers come. A
//! request whose answer was lost is sent again; it says what is to be, not what is to change.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Applied, Inbox, Members, Row, is_true, number};
use crate::domain::{ids::ConversationId, patch::merge};

/// Changes of one conversation that are waited for. Past it the oldest is not shown any more.
const WAITING_MAX: usize = 100;

/// A change that is shown and not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    conversation: ConversationId,
    number: u64,
}

/// All that is expected, by conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Expectations {
    begun: u64,
    waiting: HashMap<ConversationId, Waiting>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Waiting {
    /// Oldest first.
    changes: VecDeque<(u64, Members)>,
    /// The row of the server with all of them.
    shown: Row,
}

impl Expectations {
    /// The row as it shows; none if nothing is expected of it.
    pub(super) fn shown(&self, conversation: ConversationId) -> Option<&Row> {
        let waiting = self.waiting.get(&conversation)?;
        Some(&waiting.shown)
    }
}

impl Inbox {
    /// The user has set these members of a row, and a request that says so is about to be sent; they
    /// show from now on. Reading up to an entry also sets the counts, as
    /// `{"read": 41, "unread": 0, "mentions": 0}`.
    pub fn expect(&mut self, conversation: ConversationId, fields: Members) -> Expected {
        self.expected.begun += 1;
        let number = self.expected.begun;
        let waiting = self.expected.waiting.entry(conversation).or_default();
        waiting.changes.push_back((number, fields));
        if waiting.changes.len() > WAITING_MAX {
            waiting.changes.pop_front();
        }
        self.settle(conversation);
        Expected {
            conversation,
            number,
        }
    }

    /// The request was answered with the row as it is now.
    pub fn answered(&mut self, expected: Expected, row: Members) -> Applied {
        let applied = self.apply(row);
        self.refused(expected);
        applied
    }

    /// The request was refused: what it set shows no more.
    pub fn refused(&mut self, expected: Expected) {
        if let Some(waiting) = self.expected.waiting.get_mut(&expected.conversation) {
            waiting
                .changes
                .retain(|(number, _)| *number != expected.number);
        }
        self.show(expected.conversation);
    }

    /// The server has said something newer: what was expected of it is over.
    pub(super) fn settle(&mut self, conversation: ConversationId) {
        if let (Some(row), Some(waiting)) = (
            self.rows.get(&conversation),
            self.expected.waiting.get_mut(&conversation),
        ) {
            let is_over = |(_, fields): &(u64, Members)| says(&row.fields, fields);
            while waiting.changes.front().is_some_and(is_over) {
                waiting.changes.pop_front();
            }
        }
        self.show(conversation);
    }

    /// Shows what the server has said with what is expected.
    pub(super) fn show(&mut self, conversation: ConversationId) {
        let row = self.rows.get(&conversation);
        let row = row.filter(|row| !is_true(&row.fields, "removed"));
        let Some(waiting) = self.expected.waiting.get_mut(&conversation) else {
            return;
        };
        let (Some(row), false) = (row, waiting.changes.is_empty()) else {
            self.expected.waiting.remove(&conversation);
            return;
        };
        waiting.shown = row.clone();
        for (_, fields) in &waiting.changes {
            merge(&mut waiting.shown.fields, fields.clone());
        }
    }

    /// The same for all rows.
    pub(super) fn show_all(&mut self) {
        let waiting: Vec<_> = self.expected.waiting.keys().copied().collect();
        for id in waiting {
            self.show(id);
        }
    }
}

/// Whether a row says what was expected. The counts follow from what is read, and the server says
/// when something was pinned.
fn says(row: &Members, expected: &Members) -> bool {
    expected.iter().all(|(name, value)| {
        let said = row.get(name).unwrap_or(&Value::Null);
        match name.as_str() {
            "read" => number(row, "read") >= value.as_i64(),
            "unread" | "mentions" => true,
            "pinned_at" => said.is_null() == value.is_null(),
            _ => said == value,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{Reconcile, Threads},
        *,
    };

    const ID: &str = "AZjzwgAAcACAAAAAAAAAAQ";

    fn members(value: &Value) -> Members {
        value.as_object().unwrap().clone()
    }

    fn row(version: i64, fields: &Value) -> Members {
        let mut row = members(fields);
        row.insert("conversation".into(), ID.into());
        row.insert("version".into(), version.into());
        row
    }

    fn id() -> ConversationId {
        ID.parse().unwrap()
    }

    /// A row with three unread messages, at version 5.
    fn inbox() -> Inbox {
        let mut inbox = Inbox::default();
        inbox.apply(row(
            5,
            &json!({"read": 2, "unread": 3, "mentions": 1, "pinned_at": null, "archived": false}),
        ));
        inbox
    }

    fn shown(inbox: &Inbox, name: &str) -> Value {
        inbox.row(id()).unwrap().fields[name].clone()
    }

    #[test]
    fn reading_shows_at_once_and_until_a_row_says_so() {
        let mut inbox = inbox();
        let asked = |inbox: &Inbox| Reconcile::new(inbox).question(inbox, &Threads::new());
        let before = asked(&inbox);
        inbox.expect(
            id(),
            members(&json!({"read": 5, "unread": 0, "mentions": 0})),
        );
        assert_eq!(shown(&inbox, "unread"), 0);
        assert_eq!(inbox.rows()[0].1.fields["mentions"], 0);
        assert_eq!(asked(&inbox), before, "only what the server has said");
        // Another message came first.
        inbox.apply(row(6, &json!({"read": 2, "unread": 4})));
        assert_eq!(shown(&inbox, "unread"), 0);
        inbox.apply(row(8, &json!({"read": 6, "unread": 1, "mentions": 0})));
        assert_eq!(
            (shown(&inbox, "unread"), shown(&inbox, "read")),
            (json!(1), json!(6))
        );
        inbox.apply(row(9, &json!({"read": 5, "unread": 2})));
        assert_eq!(shown(&inbox, "unread"), 2);
    }

    #[test]
    fn what_is_refused_shows_as_it_was() {
        let mut inbox = inbox();
        let before = inbox.row(id()).cloned();
        let pinned = inbox.expect(id(), members(&json!({"pinned_at": 70})));
        let archived = inbox.expect(id(), members(&json!({"archived": true})));
        inbox.refused(pinned);
        assert_eq!(
            (shown(&inbox, "pinned_at"), shown(&inbox, "archived")),
            (json!(null), json!(true))
        );
        inbox.refused(archived);
        inbox.refused(archived);
        assert_eq!(inbox.row(id()).cloned(), before);
    }

    #[test]
    fn the_last_of_several_changes_shows_while_the_answers_come() {
        let mut inbox = inbox();
        let changes = [json!(70), json!(null), json!(71)]
            .map(|at| inbox.expect(id(), members(&json!({"pinned_at": at}))));
        inbox.answered(changes[0], row(6, &json!({"pinned_at": 60})));
        assert_eq!(shown(&inbox, "pinned_at"), 71);
        inbox.apply(row(7, &json!({"pinned_at": null})));
        assert_eq!(shown(&inbox, "pinned_at"), 71);
        inbox.answered(changes[1], row(7, &json!({"pinned_at": null})));
        assert_eq!(shown(&inbox, "pinned_at"), 71);
        inbox.answered(changes[2], row(8, &json!({"pinned_at": 62})));
        assert_eq!(shown(&inbox, "pinned_at"), 62);
    }

    /// Goal: archived, and a message came before anybody was told: the answer counts.
    #[test]
    fn an_answer_ends_what_was_expected_whatever_it_says() {
        let mut inbox = inbox();
        let archived = inbox.expect(id(), members(&json!({"archived": true})));
        inbox.apply(row(7, &json!({"archived": false, "unread": 4})));
        assert_eq!(shown(&inbox, "archived"), true);
        let answer = row(6, &json!({"archived": true}));
        assert_eq!(inbox.answered(archived, answer), Applied::Stale);
        assert_eq!(shown(&inbox, "archived"), false);
    }

    #[test]
    fn nothing_is_expected_of_what_was_removed() {
        let mut inbox = inbox();
        inbox.expect(id(), members(&json!({"archived": true})));
        inbox.apply(row(6, &json!({"removed": true})));
        assert_eq!(inbox.row(id()), None);
        inbox.apply(row(9, &json!({"archived": false})));
        assert_eq!(shown(&inbox, "archived"), false);
        inbox.expect(id(), members(&json!({"archived": true})));
        inbox.forget(id());
        assert_eq!(inbox.row(id()), None);
    }

    #[test]
    fn past_its_bound_the_oldest_change_is_not_waited_for() {
        let mut inbox = inbox();
        inbox.expect(id(), members(&json!({"muted_until": "forever"})));
        for _ in 0..WAITING_MAX {
            inbox.expect(id(), members(&json!({"archived": true})));
        }
        assert_eq!(inbox.row(id()).unwrap().fields.get("muted_until"), None);
        assert_eq!(inbox.expected.waiting[&id()].changes.len(), WAITING_MAX);
    }
}
