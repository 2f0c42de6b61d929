//! The messages of one conversation, with edits, retractions and reactions applied.
//!
//! What changes a message is applied in the order of the log, each once. What comes early waits
//! for what is missing; what comes before the first page waits for it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Applied, Members, is_true, number, text};
use crate::domain::ids::Subject;

/// Members that the server sets once and that no edit replaces.
const LASTING: [&str; 9] = [
    "seq",
    "id",
    "from",
    "at",
    "type",
    "reply_to",
    "expires_at",
    "reactions",
    "version",
];
/// What is left of a message without its content.
const TOMBSTONE: [&str; 6] = ["seq", "id", "from", "at", "type", "version"];

/// Entries that are missing: ask for what has changed since `from - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub from: i64,
    pub to: i64,
}

/// What is known of one conversation's messages.
#[derive(Clone, Debug)]
pub struct Thread {
    me: Subject,
    messages: BTreeMap<i64, Members>,
    /// All entries up to here are applied to the messages that are held; none before the
    /// first page.
    synced: Option<i64>,
    /// Entries that came before others which are missing.
    early: BTreeMap<i64, Members>,
    /// What was before has been erased.
    first: i64,
    /// The newest entry that was heard of.
    head: i64,
}

impl Thread {
    /// An empty thread of the user `me`.
    #[must_use]
    pub fn new(me: Subject) -> Self {
        Self {
            me,
            messages: BTreeMap::new(),
            synced: None,
            early: BTreeMap::new(),
            first: 1,
            head: 0,
        }
    }

    /// An entry of the log, as `c/{cid}/messages` brings it.
    pub fn entry(&mut self, entry: Members) -> Applied {
        let Some(seq) = number(&entry, "seq") else {
            return Applied::Unreadable;
        };
        self.head = self.head.max(seq);
        if seq < self.first || self.synced >= Some(seq) || self.early.contains_key(&seq) {
            return Applied::Stale;
        }
        if is_true(&entry, "too_large") {
            return Applied::Missed;
        }
        self.early.insert(seq, entry);
        self.catch_up();
        Applied::Changed
    }

    /// A message of a page or of a list of changes, merged by the server.
    pub fn message(&mut self, message: Members) -> Applied {
        let (Some(seq), Some(version)) = (number(&message, "seq"), number(&message, "version"))
        else {
            return Applied::Unreadable;
        };
        if seq < self.first {
            return Applied::Stale;
        }
        if let Some(known) = self.messages.get(&seq) {
            // What has expired has the version of what it was.
            let expires = is_true(&message, "expired") && !is_true(known, "expired");
            let newest = number(known, "version").unwrap_or(seq);
            if newest > version || (newest == version && !expires) {
                return Applied::Stale;
            }
        }
        self.messages.insert(seq, message);
        Applied::Changed
    }

    /// Hides the content of messages whose time is over, in milliseconds since 1970.
    pub fn hide_expired(&mut self, now_millis: i64) {
        for message in self.messages.values_mut() {
            if number(message, "expires_at").is_some_and(|at| at <= now_millis) {
                bury(message, "expired");
            }
        }
    }

    /// A page was applied whose conversation ended at `last_seq` then. Only the first one says how
    /// far the thread is in step: later pages hold other messages. What has changed them since
    /// may have come before them, and found nothing to change.
    pub fn page(&mut self, last_seq: i64) {
        self.head = self.head.max(last_seq);
        match self.synced {
            None => self.changed_up_to(last_seq),
            Some(synced) => self.synced = Some(synced.min(last_seq)),
        }
    }

    /// All changes since [`Gap::from`] up to `last_seq` were applied.
    pub fn changed_up_to(&mut self, last_seq: i64) {
        self.head = self.head.max(last_seq);
        self.synced = self.synced.max(Some(last_seq));
        self.early.retain(|seq, _| *seq > last_seq);
        self.catch_up();
    }

    /// The conversation has entries up to `last_seq`, as its row in the inbox says.
    pub fn heard_of(&mut self, last_seq: i64) {
        self.head = self.head.max(last_seq);
    }

    /// What was before `first_seq` has been erased, as the row in the inbox or a `gap` says.
    pub fn begins_at(&mut self, first_seq: i64) {
        self.first = self.first.max(first_seq);
        self.messages.retain(|seq, _| *seq >= first_seq);
        self.early.retain(|seq, _| *seq >= first_seq);
        self.synced = self.synced.map(|synced| synced.max(first_seq - 1));
        self.catch_up();
    }

    /// Up to where everything is applied; none before the first page.
    #[must_use]
    pub fn synced(&self) -> Option<i64> {
        self.synced
    }

    /// What is missing. It may be on its way: wait a moment before asking.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        let from = self.synced? + 1;
        let to = self
            .early
            .keys()
            .next()
            .map_or(self.head, |early| early - 1);
        (from <= to).then_some(Gap { from, to })
    }

    /// The messages that are held, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Members> {
        self.messages.values()
    }

    fn catch_up(&mut self) {
        while let Some(synced) = self.synced
            && let Some(entry) = self.early.remove(&(synced + 1))
        {
            self.apply(synced + 1, entry);
            self.synced = Some(synced + 1);
        }
    }

    fn apply(&mut self, seq: i64, mut entry: Members) {
        let kind = text(&entry, "type").unwrap_or_default();
        if !matches!(kind, "edit" | "retract" | "reaction") {
            entry.insert("version".to_owned(), seq.into());
            self.message(entry);
            return;
        }
        let target = number(&entry, "ref").and_then(|target| self.messages.get_mut(&target));
        let Some(target) = target else { return };
        if number(target, "version") >= Some(seq) || is_true(target, "retracted") {
            return; // the page that brought it was younger
        }
        if is_true(target, "expired") && kind != "retract" {
            target.insert("version".to_owned(), seq.into());
            return; // nothing is left to be changed
        }
        match kind {
            "edit" => edit(target, entry),
            "retract" => bury(target, "retracted"),
            _ => react(target, &entry, &self.me),
        }
        target.insert("version".to_owned(), seq.into());
    }
}

fn edit(target: &mut Members, entry: Members) {
    let names_nobody_new = !entry.contains_key("mentions");
    target.retain(|name, _| {
        LASTING.contains(&name.as_str()) || (name == "mentions" && names_nobody_new)
    });
    for (name, value) in entry {
        match name.as_str() {
            "at" => drop(target.insert("edited_at".to_owned(), value)),
            "seq" | "id" | "from" | "type" | "ref" => {}
            _ => drop(target.insert(name, value)),
        }
    }
}

/// The content goes; `why` is the member that says so.
fn bury(message: &mut Members, why: &str) {
    message.retain(|name, _| TOMBSTONE.contains(&name.as_str()));
    message.insert(why.to_owned(), true.into());
}

fn react(target: &mut Members, entry: &Members, me: &Subject) {
    let body = entry.get("body").and_then(Value::as_object);
    let Some((key, removes)) =
        body.and_then(|body| Some((text(body, "key")?, is_true(body, "remove"))))
    else {
        return;
    };
    let reactions = target.entry("reactions").or_insert_with(|| json!({}));
    let Some(reactions) = reactions.as_object_mut() else {
        return;
    };
    let known = reactions.get(key).and_then(Value::as_object);
    let count = known.and_then(|known| number(known, "count")).unwrap_or(0);
    let was_mine = known.is_some_and(|known| is_true(known, "mine"));
    let count = if removes { count - 1 } else { count + 1 };
    let is_mine = if text(entry, "from") == Some(me.as_str()) {
        !removes
    } else {
        was_mine
    };
    if count > 0 {
        reactions.insert(key.to_owned(), json!({"count": count, "mine": is_mine}));
    } else {
        reactions.remove(key);
    }
    if reactions.is_empty() {
        target.remove("reactions");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(value: Value) -> Members {
        match value {
            Value::Object(members) => members,
            other => panic!("{other}"),
        }
    }

    /// Two messages, an edit, three reactions of which one is taken back, a retraction.
    fn log() -> Vec<Members> {
        let change = |seq: i64, from: &str, kind: &str, target: i64, body: Value| json!({"seq": seq, "id": seq.to_string(), "from": from, "at": seq * 10, "type": kind, "ref": target, "body": body});
        let text = |seq: i64, body: &str| json!({"seq": seq, "id": seq.to_string(), "from": "ann", "at": seq * 10, "type": "text", "body": body});
        [
            text(1, "one"),
            change(2, "bob", "reaction", 1, json!({"key": "+"})),
            text(3, "secret"),
            change(4, "me", "reaction", 1, json!({"key": "+"})),
            change(5, "ann", "edit", 1, json!("one!")),
            change(6, "bob", "reaction", 1, json!({"key": "+", "remove": true})),
            change(7, "ann", "retract", 3, Value::Null),
            change(8, "me", "reaction", 1, json!({"key": "?"})),
        ]
        .into_iter()
        .map(members)
        .collect()
    }

    fn thread() -> Thread {
        let mut thread = Thread::new(Subject::new("me").unwrap());
        thread.page(0);
        thread
    }

    fn shown(thread: &Thread) -> Value {
        thread.messages().cloned().map(Value::Object).collect()
    }

    fn expected() -> Value {
        json!([
            {"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "one!", "edited_at": 50,
             "version": 8, "reactions": {"+": {"count": 1, "mine": true}, "?": {"count": 1, "mine": true}}},
            {"seq": 3, "id": "3", "from": "ann", "at": 30, "type": "text", "retracted": true, "version": 7},
        ])
    }

    #[test]
    fn a_thread_shows_what_became_of_its_messages() {
        let mut thread = thread();
        for entry in log() {
            assert_eq!(thread.entry(entry.clone()), Applied::Changed);
            assert_eq!(thread.entry(entry), Applied::Stale);
        }
        assert_eq!(shown(&thread), expected());
        assert_eq!(thread.gap(), None);
    }

    /// Goal: an older page was read before a change that came before it, and found nothing.
    #[test]
    fn an_older_page_that_comes_late_is_completed() {
        let mut thread = Thread::new(Subject::new("me").unwrap());
        thread.page(4);
        let edit = log().remove(4);
        assert_eq!(thread.entry(edit), Applied::Changed);
        assert_eq!((thread.synced(), thread.gap()), (Some(5), None));
        let first = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "one",
            "version": 4});
        thread.message(members(first.clone()));
        thread.page(4);
        assert_eq!(thread.gap(), Some(Gap { from: 5, to: 5 }));
        let edited = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "one!",
            "edited_at": 50, "version": 5});
        thread.message(members(edited.clone()));
        thread.changed_up_to(5);
        assert_eq!((shown(&thread), thread.gap()), (json!([edited]), None));
    }

    #[test]
    fn what_was_too_large_to_be_sent_is_asked_for() {
        let mut thread = thread();
        let stub =
            json!({"seq": 1, "too_large": true, "href": "/v1/conversations/x/messages?after=0"});
        assert_eq!(thread.entry(members(stub)), Applied::Missed);
        assert_eq!(thread.entry(log().remove(1)), Applied::Changed);
        assert_eq!(shown(&thread), json!([]));
        assert_eq!(thread.gap(), Some(Gap { from: 1, to: 1 }));
        let first = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "one",
            "version": 1});
        thread.message(members(first));
        thread.changed_up_to(1);
        let reacted = &shown(&thread)[0];
        assert_eq!(
            (&reacted["version"], &reacted["reactions"]["+"]["count"]),
            (&json!(2), &json!(1))
        );
    }

    /// Goal: by the clock or by the word of the server, what has expired is gone, and stays gone.
    #[test]
    fn what_expires_is_hidden() {
        let said = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "secret", "expires_at": 70});
        let gone = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "expired": true, "version": 1});
        let mut by_clock = thread();
        by_clock.entry(members(said.clone()));
        let mut by_word = by_clock.clone();
        by_clock.hide_expired(69);
        assert_eq!(shown(&by_clock)[0]["body"], "secret");
        by_clock.hide_expired(70);
        assert_eq!(shown(&by_clock), json!([gone]));
        assert_eq!(by_word.message(members(gone.clone())), Applied::Changed);
        assert_eq!(by_word.message(members(gone.clone())), Applied::Stale);
        let edit = json!({"seq": 2, "id": "2", "from": "ann", "at": 20, "type": "edit", "ref": 1, "body": "again"});
        by_word.entry(members(edit));
        assert_eq!(shown(&by_word)[0].get("body"), None);
    }

    #[test]
    fn an_edit_leaves_what_it_does_not_speak_of() {
        let mut thread = thread();
        let edit = |seq: i64| json!({"seq": seq, "id": seq.to_string(), "from": "ann", "at": seq * 10, "type": "edit", "ref": 1, "body": "new"});
        let message = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "old",
            "mentions": ["bob"], "expires_at": 99, "urgent": true});
        thread.entry(members(message));
        thread.entry(members(edit(2)));
        let mut expected = json!([{"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "new",
            "mentions": ["bob"], "expires_at": 99, "edited_at": 20, "version": 2}]);
        assert_eq!(shown(&thread), expected);
        let mut naming = edit(3);
        naming["mentions"] = json!(["me"]);
        thread.entry(members(naming));
        (
            expected[0]["mentions"],
            expected[0]["edited_at"],
            expected[0]["version"],
        ) = (json!(["me"]), json!(30), json!(3));
        assert_eq!(shown(&thread), expected);
        // It disappears without an entry of the log.
        let gone = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "version": 3, "expired": true});
        assert_eq!(thread.message(members(gone.clone())), Applied::Changed);
        assert_eq!(thread.message(members(gone)), Applied::Stale);
        assert_eq!(thread.message(members(expected[0].clone())), Applied::Stale);
        assert_eq!(shown(&thread)[0]["body"], Value::Null);
    }

    #[test]
    fn what_comes_before_the_first_page_waits_for_it() {
        let mut thread = Thread::new(Subject::new("me").unwrap());
        for entry in log().split_off(5) {
            thread.entry(entry);
        }
        assert_eq!((shown(&thread), thread.gap()), (json!([]), None));
        // A page of the moment after entry 6.
        let page = json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "body": "one!",
            "edited_at": 50, "version": 6, "reactions": {"+": {"count": 1, "mine": true}}});
        let other = json!({"seq": 3, "id": "3", "from": "ann", "at": 30, "type": "text", "body": "secret", "version": 3});
        thread.message(members(page));
        thread.message(members(other));
        thread.page(6);
        assert_eq!(shown(&thread), expected());
    }

    #[test]
    fn a_gap_is_named_and_closed_by_the_changes_since() {
        let mut thread = thread();
        let log = log();
        thread.entry(log[0].clone());
        thread.entry(log[7].clone());
        assert_eq!(thread.gap(), Some(Gap { from: 2, to: 7 }));
        for message in expected().as_array().unwrap() {
            thread.message(members(message.clone()));
        }
        thread.changed_up_to(8);
        assert_eq!((shown(&thread), thread.gap()), (expected(), None));
        thread.heard_of(9);
        assert_eq!(thread.gap(), Some(Gap { from: 9, to: 9 }));
    }

    #[test]
    fn what_has_been_erased_is_neither_shown_nor_missed() {
        let mut thread = thread();
        for entry in log().drain(..3) {
            thread.entry(entry);
        }
        thread.heard_of(8);
        thread.begins_at(6);
        assert_eq!(shown(&thread), json!([]));
        assert_eq!(thread.gap(), Some(Gap { from: 6, to: 8 }));
        for entry in log() {
            thread.entry(entry);
        }
        let late = json!({"seq": 1, "version": 8});
        assert_eq!(thread.message(members(late)), Applied::Stale);
        assert_eq!((shown(&thread), thread.gap()), (json!([]), None));
        // Before the first page it is not known how far the thread is in step.
        let mut fresh = Thread::new(Subject::new("me").unwrap());
        fresh.begins_at(6);
        fresh.heard_of(8);
        assert_eq!(fresh.gap(), None);
    }

    proptest! {
        /// Goal: whatever the order, and however often entries come, a thread shows the same.
        #[test]
        fn threads_converge_in_any_order(
            order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
            again in proptest::collection::vec(0..8_usize, 0..20),
        ) {
            let (mut thread, log) = (thread(), log());
            for place in again.iter().chain(&order).chain(&again) {
                thread.entry(log[*place].clone());
            }
            prop_assert_eq!(shown(&thread), expected());
        }
    }
}
