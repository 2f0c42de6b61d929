//! Asking the server what of all this is wrong, in as many requests as it takes.
//!
//! ```text
//!   Reconcile::new ─▶ question(…) ─▶ a request ─▶ answer(…): rows are applied; what to read next
//!                         ▲                            │
//!                         └──────── until none ◀───────┘
//! ```
//!
//! What is asked is made when it is asked, and kept until it is answered: whoever loses an answer asks
//! for the question again. A reconciliation that is not finished is dropped without loss; the next
//! one says the same, since the same time.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::{Applied, Inbox, Members, hash::Hash, is_true, number, text, thread::Thread};
use crate::domain::ids::ConversationId;

/// Conversations in one request: as many as the server takes.
const ASKED_MAX: usize = 500;
/// Entries that the hashes of one request cover: as many as the server looks at.
const HASHED_MAX: usize = 10_000;
/// Rows of one page: as many as the server gives.
const PAGE_ROWS: i64 = 100;

/// The conversations of which messages are held.
pub type Threads = HashMap<ConversationId, Thread>;

/// What is to be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// `POST /v1/reconcile` with this body, or `q/reconcile`.
    Differences(Members),
    /// `GET /v1/inbox` with these parameters, or `q/inbox`.
    Changed(Members),
}

/// What was said of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub conversation: ConversationId,
    /// What it did to the row in the inbox.
    pub applied: Applied,
    /// Where the log ended, if it was said: for [`Outgoing::answered`](super::Outgoing::answered).
    pub last_seq: Option<i64>,
    pub next: Next,
}

/// What is to be done about messages that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// None are held, or they are right.
    Nothing,
    /// Ask for the messages that have changed since this entry (`changed_since`), apply them, and
    /// say so ([`Thread::changed_up_to`]).
    Changes { since: i64 },
    /// The thread was dropped, as it may be wrong: read it again.
    Anew(Wrong),
    /// It was dropped: the user takes no part any more.
    Gone,
}

/// Why all that is held may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The log has begun a new epoch.
    Epoch,
    /// The log ends before it.
    Ahead,
    /// The log holds other entries.
    Mismatch,
}

/// An answer without what each has; the question is still to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to this question has `as_of` and `conversations`; ask again")]
pub struct NoAnswer;

/// What remains to be asked beyond conversations by name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// What changed since; it is told with the last ones.
    Changed(i64),
    /// That was too much: in pages, from this place on.
    Pages(i64, Option<String>),
}

/// What is said of a conversation.
#[derive(Clone, Debug)]
struct Held {
    conversation: ConversationId,
    seq: Option<i64>,
    hash: Option<Hash>,
}

/// A reconciliation on its way.
#[derive(Clone, Debug)]
pub struct Reconcile {
    left: VecDeque<ConversationId>,
    /// The first of `left`, as the last question named them.
    asked: Vec<Held>,
    rest: Rest,
    /// Whether everything is asked about, and when that began.
    is_whole: bool,
    as_of: Option<i64>,
}

impl Reconcile {
    /// Asks about everything that is known, and for what has changed besides
    /// [since](Inbox::as_of).
    #[must_use]
    pub fn new(inbox: &Inbox) -> Self {
        Self {
            left: inbox.asked_about().into(),
            asked: Vec::new(),
            rest: inbox.as_of().map_or(Rest::Nothing, Rest::Changed),
            is_whole: inbox.as_of().is_some(),
            as_of: None,
        }
    }

    /// Asks about the rows of which a [patch was missed](Inbox::missed).
    #[must_use]
    pub fn missed(inbox: &Inbox) -> Self {
        Self {
            left: inbox.missed().into(),
            asked: Vec::new(),
            rest: Rest::Nothing,
            is_whole: false,
            as_of: None,
        }
    }

    /// What is to be asked next; none if all is answered.
    pub fn question(&mut self, inbox: &Inbox, threads: &Threads) -> Option<Question> {
        let mut arguments = Members::new();
        self.asked.clear();
        match (&self.rest, self.left.len()) {
            (Rest::Nothing, 0) => return None,
            (Rest::Pages(since, after), 0) => {
                arguments.insert("changed_since".to_owned(), (*since).into());
                arguments.insert("limit".to_owned(), PAGE_ROWS.into());
                let after = after
                    .clone()
                    .map(|after| ("after".to_owned(), after.into()));
                arguments.extend(after);
                return Some(Question::Changed(arguments));
            }
            (Rest::Changed(since), 0..=ASKED_MAX) => {
                arguments.insert("since".to_owned(), (*since).into());
            }
            _ => {}
        }
        let count = self.left.len().min(ASKED_MAX);
        let hashed = HASHED_MAX / count.max(1);
        let held = self.left.iter().take(count).map(|id| {
            let thread = threads.get(id);
            Held {
                conversation: *id,
                seq: thread.and_then(Thread::synced),
                hash: thread.and_then(|thread| thread.hash(hashed)),
            }
        });
        self.asked.extend(held);
        let named: Vec<_> = self.asked.iter().map(|held| held.json(inbox)).collect();
        arguments.insert("conversations".to_owned(), named.into());
        Some(Question::Differences(arguments))
    }

    /// Applies an answer, and says what it told of each conversation.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if it is none; nothing has changed then.
    pub fn answer(
        &mut self,
        mut answer: Members,
        inbox: &mut Inbox,
        threads: &mut Threads,
    ) -> Result<Vec<Told>, NoAnswer> {
        let as_of = number(&answer, "as_of").ok_or(NoAnswer)?;
        let Some(Value::Array(pieces)) = answer.remove("conversations") else {
            return Err(NoAnswer);
        };
        self.as_of.get_or_insert(as_of);
        let asked = self.answered(&answer);
        let mut told = Vec::new();
        for piece in pieces {
            let Value::Object(piece) = piece else {
                continue;
            };
            let Some(id) = text(&piece, "conversation").and_then(|id| id.parse().ok()) else {
                continue;
            };
            let held = asked.iter().find(|held| held.conversation == id);
            let mut difference = Difference::new(id, piece);
            if difference.proves_nothing(held) {
                difference.wrong = None;
                self.left.push_back(id); // with what is left of its hash
            }
            told.push(difference.apply(inbox, threads));
        }
        let named: HashSet<_> = told.iter().map(|told| told.conversation).collect();
        let same = asked
            .iter()
            .filter(|held| !named.contains(&held.conversation));
        told.extend(same.map(Held::is_right));
        if self.is_whole && self.left.is_empty() && self.rest == Rest::Nothing {
            inbox.compared(self.as_of.unwrap_or(as_of));
        }
        Ok(told)
    }

    /// Takes what was answered from what is left.
    fn answered(&mut self, answer: &Members) -> Vec<Held> {
        let mut asked = std::mem::take(&mut self.asked);
        if let (Rest::Pages(since, _), true) = (&self.rest, self.left.is_empty()) {
            let next = text(answer, "next_after");
            self.rest = next.map_or(Rest::Nothing, |next| {
                Rest::Pages(*since, Some(next.to_owned()))
            });
            return asked;
        }
        let cut = number(answer, "unanswered_from").and_then(|place| usize::try_from(place).ok());
        asked.truncate(cut.map_or(usize::MAX, |place| place.max(1)));
        self.left.drain(..asked.len());
        if let (Rest::Changed(since), true) = (&self.rest, self.left.is_empty()) {
            self.rest = if answer.contains_key("more") {
                Rest::Pages(*since, None)
            } else {
                Rest::Nothing
            };
        }
        asked
    }
}

impl Held {
    fn json(&self, inbox: &Inbox) -> Value {
        let row = inbox.rows.get(&self.conversation);
        let mut held = Members::new();
        let members = [
            ("seq", self.seq),
            ("version", row.map(|row| row.version)),
            ("epoch", row.and_then(|row| row.epoch)),
        ];
        held.insert(
            "conversation".to_owned(),
            self.conversation.to_string().into(),
        );
        for (name, value) in members {
            held.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        held.extend(self.hash.map(|hash| ("hash".to_owned(), hash.json())));
        held.into()
    }

    /// Nothing was said of it: its log ends where it is held.
    fn is_right(&self) -> Told {
        Told {
            conversation: self.conversation,
            applied: Applied::Stale,
            last_seq: self.seq,
            next: Next::Nothing,
        }
    }
}

/// What an answer says of one conversation.
struct Difference {
    conversation: ConversationId,
    /// None if there is none, or none that the user may know of.
    row: Option<Members>,
    wrong: Option<Wrong>,
}

impl Difference {
    /// Of a difference, or of a row on a page.
    fn new(conversation: ConversationId, mut piece: Members) -> Self {
        let reason = piece.get("gap").and_then(Value::as_object);
        let wrong = match reason.and_then(|gap| text(gap, "reason")) {
            Some("epoch") => Some(Wrong::Epoch),
            Some("ahead") => Some(Wrong::Ahead),
            _ => is_true(&piece, "mismatch").then_some(Wrong::Mismatch),
        };
        let row = match piece.remove("row") {
            Some(Value::Object(row)) => Some(row),
            _ => piece.contains_key("version").then_some(piece),
        };
        Self {
            conversation,
            row,
            wrong,
        }
    }

    /// Whether the hash was of entries that have been erased, or are not the user's any more.
    fn proves_nothing(&self, held: Option<&Held>) -> bool {
        let hashed_from = held.and_then(|held| Some(held.hash?.from));
        let first_seq = self.row.as_ref().and_then(|row| number(row, "first_seq"));
        self.wrong == Some(Wrong::Mismatch) && hashed_from < first_seq
    }

    fn apply(self, inbox: &mut Inbox, threads: &mut Threads) -> Told {
        let conversation = self.conversation;
        let told = |applied, last_seq, next| Told {
            conversation,
            applied,
            last_seq,
            next,
        };
        let Some(row) = self.row else {
            let is_known = inbox.rows.contains_key(&conversation);
            inbox.forget(conversation);
            let applied = if is_known {
                Applied::Changed
            } else {
                Applied::Stale
            };
            return told(applied, None, gone(conversation, threads));
        };
        let ends = (number(&row, "first_seq"), number(&row, "last_seq"));
        let epoch = number(&row, "epoch");
        let applied = inbox.apply(row);
        let Some(shown) = inbox.row(conversation) else {
            return told(applied, ends.1, gone(conversation, threads));
        };
        if epoch < shown.epoch {
            return told(applied, None, Next::Nothing); // what came meanwhile is newer
        }
        let is_anew = applied == Applied::Anew;
        let next = match self.wrong.or(is_anew.then_some(Wrong::Epoch)) {
            Some(wrong) => match threads.remove(&conversation) {
                Some(thread) if thread.synced().is_some() => Next::Anew(wrong),
                _ => Next::Nothing,
            },
            None => follow(threads.get_mut(&conversation), ends),
        };
        told(applied, ends.1, next)
    }
}

fn gone(conversation: ConversationId, threads: &mut Threads) -> Next {
    match threads.remove(&conversation) {
        Some(_) => Next::Gone,
        None => Next::Nothing,
    }
}

/// Tells a thread where its log begins and ends; what it lacks then.
fn follow(thread: Option<&mut Thread>, (first_seq, last_seq): (Option<i64>, Option<i64>)) -> Next {
    let Some(thread) = thread else {
        return Next::Nothing;
    };
    if let Some(first_seq) = first_seq {
        thread.begins_at(first_seq);
    }
    if let Some(last_seq) = last_seq {
        thread.heard_of(last_seq);
    }
    let since = thread.gap().map(|gap| gap.from - 1);
    since.map_or(Next::Nothing, |since| Next::Changes { since })
}

#[cfg(test)]
mod tests;
