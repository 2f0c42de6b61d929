//! The messages of one conversation, with edits, retractions and reactions applied.
//!
//! What changes a message is applied in the order of the log, each once. What comes early waits
//! for what is missing; what comes before the first page waits for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Applied, Members,
    hash::{Hash, Hashes},
    is_true, number, text,
};
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Of the last entries before `synced` that came as entries.
    hashes: Hashes,
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
            hashes: Hashes::default(),
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
            Some(synced) if synced > last_seq => {
                self.synced = Some(last_seq);
                self.hashes.keep(0);
            }
            Some(_) => {}
        }
    }

    /// All changes since [`Gap::from`] up to `last_seq` were applied. If the thread was dropped
    /// since they were asked for, they say nothing of this one.
    pub fn changed_up_to(&mut self, last_seq: i64) {
        self.head = self.head.max(last_seq);
        if self.synced < Some(last_seq) {
            self.hashes.keep(0); // messages came in place of entries
        }
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
        let held = self.synced.map_or(0, |synced| synced + 1 - first_seq);
        self.hashes.keep(usize::try_from(held).unwrap_or(0));
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

    /// The hash of the last entries up to [`synced`](Self::synced), at most `entries_max` of them;
    /// none if the last ones came as messages of a page.
    #[must_use]
    pub fn hash(&self, entries_max: usize) -> Option<Hash> {
        self.hashes.up_to(self.synced?, entries_max)
    }

    /// The messages that are held, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Members> {
        self.messages.values()
    }

    fn catch_up(&mut self) {
        while let Some(synced) = self.synced
            && let Some(entry) = self.early.remove(&(synced + 1))
        {
            self.hashes.push(&entry);
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
        if number(target, "version") >= Some(seq) {
            return; // the page that brought it was younger
        }
        // The log brings what was retracted since as such.
        if is_true(target, "retracted") || is_true(target, "expired") && kind != "retract" {
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
mod tests;
