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

/// Goal: an entry that is read again after it was retracted comes so; the version rises all the same.
#[test]
fn a_retraction_of_what_came_retracted_is_its_newest_change() {
    let mut thread = thread();
    for entry in [
        json!({"seq": 1, "id": "1", "from": "ann", "at": 10, "type": "text", "retracted": true}),
        json!({"seq": 2, "id": "2", "from": "ann", "at": 20, "type": "retract", "ref": 1}),
    ] {
        thread.entry(members(entry));
    }
    let shown = &shown(&thread)[0];
    assert_eq!(
        (&shown["version"], &shown["retracted"]),
        (&json!(2), &json!(true))
    );
}

#[test]
fn what_was_too_large_to_be_sent_is_asked_for() {
    let mut thread = thread();
    let stub = json!({"seq": 1, "too_large": true, "href": "/v1/conversations/x/messages?after=0"});
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

/// Goal: only what came as an entry is hashed, and nothing that has been erased.
#[test]
fn what_is_hashed_came_entry_by_entry() {
    let range = |thread: &Thread| thread.hash(9).map(|hash| (hash.from, hash.to));
    let (mut thread, log) = (thread(), log());
    for place in [0, 2, 1] {
        thread.entry(log[place].clone());
    }
    assert_eq!(range(&thread), Some((1, 3)));
    assert_eq!(thread.hash(2).unwrap().from, 2);
    thread.changed_up_to(3);
    thread.begins_at(3);
    assert_eq!(range(&thread), Some((3, 3)));
    thread.changed_up_to(6);
    assert_eq!(range(&thread), None);
    thread.entry(log[6].clone());
    assert_eq!(range(&thread), Some((7, 7)));
    thread.page(6);
    assert_eq!(range(&thread), None, "an older page came late");
    thread.entry(log[6].clone());
    assert_eq!(range(&thread), Some((7, 7)));
    thread.begins_at(9);
    thread.entry(log[7].clone());
    assert_eq!(range(&thread), None);
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
