//! What a device still has to get, conversation by conversation.
//!
//! Live delivery and replay are one thing: the log after the cursor. A commit notice brings
//! the newest entries along, so that a device that keeps up needs no query; a device that
//! does not keep up reads pages. Conversations take turns, so a loud one starves no other.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::domain::{ids::ConversationId, message::SharedEntry};

/// Conversations with nothing to deliver that are remembered, to recognise stale notices.
const QUIET_MAX: usize = 32;

/// A page of the log that the session wants read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub conversation: ConversationId,
    /// The sequence before the first entry wanted.
    pub after: i64,
    pub entries_max: usize,
}

/// Where a device stands in a conversation that has something for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub conversation: ConversationId,
    /// The last settled sequence; 0 is before the first.
    pub cursor: i64,
    /// The newest sequence.
    pub head: i64,
}

/// What comes next for a device.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Deliver(SharedEntry),
    Read(PageRequest),
}

/// Everything a device still has to get. Quiet, it owns almost no memory.
#[derive(Debug, Default)]
pub struct Replay {
    conversations: HashMap<ConversationId, Conversation>,
    /// Conversations with entries in memory or pages to read, next first.
    turns: VecDeque<ConversationId>,
    /// Entries in memory, all conversations together.
    waiting: usize,
    waiting_max: usize,
}

#[derive(Debug)]
struct Conversation {
    /// The newest sequence that was handed out, waits, or is not for the user: nothing up to
    /// here needs to be read.
    in_memory: i64,
    /// The newest sequence that is known to exist.
    head: i64,
    /// Entries up to `in_memory`, in order.
    waiting: VecDeque<SharedEntry>,
    /// The page that is being read, and `head` when it was asked for.
    reading: Option<(PageRequest, i64)>,
    has_turn: bool,
}

impl Conversation {
    fn at(cursor: i64) -> Self {
        Self {
            in_memory: cursor,
            head: cursor,
            waiting: VecDeque::new(),
            reading: None,
            has_turn: false,
        }
    }

    /// Keeps an entry if it is the next one; says whether it was.
    fn keep(&mut self, entry: SharedEntry) -> bool {
        let sequence = entry.position.sequence.get();
        let is_next = sequence == self.in_memory + 1;
        if is_next {
            self.in_memory = sequence;
            self.waiting.push_back(entry);
        }
        is_next
    }

    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.in_memory >= self.head && self.reading.is_none()
    }
}

impl Replay {
    /// For a device that may have `waiting_max` entries waiting in memory.
    #[must_use]
    pub fn new(waiting_max: usize) -> Self {
        Self {
            waiting_max,
            ..Self::default()
        }
    }

    /// A conversation has something that the device missed.
    pub fn resume(&mut self, pending: Pending) {
        let conversation = self
            .conversations
            .entry(pending.conversation)
            .or_insert_with(|| Conversation::at(pending.cursor));
        conversation.head = conversation.head.max(pending.head);
        self.give_turn(pending.conversation);
    }

    /// The user takes part from entry `from` on, and did not before: what lies between the
    /// user's last participation and this one is no gap to be read.
    pub fn begin(&mut self, id: ConversationId, from: i64) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            let has_all = conversation.reading.is_none()
                && conversation.in_memory >= conversation.head
                && conversation.head < from;
            if has_all {
                (conversation.in_memory, conversation.head) = (from - 1, from - 1);
            }
        }
    }

    /// Entries `from..=to` were committed and are for the user; `entries` holds some or all of
    /// them, in order, and perhaps others of the same commit that are not.
    ///
    /// A conversation never heard of stands right before `from`: what came before was
    /// pending at [`Replay::resume`], or settled.
    pub fn hear(&mut self, id: ConversationId, from: i64, to: i64, entries: &[SharedEntry]) {
        let conversation = self
            .conversations
            .entry(id)
            .or_insert_with(|| Conversation::at(from - 1));
        if to <= conversation.head {
            return; // heard before
        }
        conversation.head = to;
        if conversation.reading.is_none() {
            for entry in entries {
                let is_theirs = (from..=to).contains(&entry.position.sequence.get());
                if is_theirs && self.waiting < self.waiting_max && conversation.keep(entry.clone())
                {
                    self.waiting += 1;
                }
            }
        }
        self.give_turn(id);
    }

    /// A page that [`Next::Read`] asked for was read. It holds what the device may see, in
    /// order; it is empty if there is nothing for it (any more). Answers the first and the last
    /// entry that it skips.
    pub fn read(&mut self, page: PageRequest, entries: Vec<SharedEntry>) -> Option<(i64, i64)> {
        let conversation = self.conversations.get_mut(&page.conversation)?;
        // Nothing if it was asked before the conversation was forgotten.
        let (_, head) = conversation.reading.take_if(|(asked, _)| *asked == page)?;
        let mut skipped = None;
        match entries.first() {
            // What lies before the first entry is not for this user: erased, or not a
            // participant then.
            Some(first) => {
                let before = first.position.sequence.get() - 1;
                if conversation.in_memory < before {
                    skipped = Some((conversation.in_memory + 1, before));
                    conversation.in_memory = before;
                }
            }
            None if conversation.head == head => conversation.head = conversation.in_memory,
            None => {} // something was committed since: ask again
        }
        for entry in entries {
            if conversation.keep(entry) {
                self.waiting += 1;
            }
        }
        conversation.head = conversation.head.max(conversation.in_memory);
        self.give_turn(page.conversation);
        skipped
    }

    /// A page could not be read: ask again.
    pub fn read_failed(&mut self, page: PageRequest) {
        if let Some(conversation) = self.conversations.get_mut(&page.conversation) {
            conversation.reading.take_if(|(asked, _)| *asked == page);
            self.give_turn(page.conversation);
        }
    }

    /// Forgets a conversation whose messages the device no longer wants or may not see.
    pub fn forget(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.remove(&id) {
            self.waiting -= conversation.waiting.len();
            self.turns.retain(|turn| *turn != id);
        }
    }

    /// The conversations it knows.
    pub fn conversations(&self) -> impl Iterator<Item = ConversationId> {
        self.conversations.keys().copied()
    }

    /// What to do next; `may_deliver` says whether another message may go out.
    pub fn next(&mut self, may_deliver: bool) -> Option<Next> {
        if !may_deliver {
            return None;
        }
        loop {
            let id = self.turns.pop_front()?;
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            conversation.has_turn = false;
            if let Some(entry) = conversation.waiting.pop_front() {
                self.waiting -= 1;
                self.give_turn(id);
                self.forget_quiet();
                return Some(Next::Deliver(entry));
            }
            if conversation.in_memory < conversation.head && conversation.reading.is_none() {
                let page = PageRequest {
                    conversation: id,
                    after: conversation.in_memory,
                    entries_max: self.waiting_max.saturating_sub(self.waiting).max(1),
                };
                conversation.reading = Some((page, conversation.head));
                return Some(Next::Read(page));
            }
        }
    }

    /// Whether everything known was handed out.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.conversations.values().all(Conversation::is_quiet)
    }

    fn give_turn(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id)
            && !conversation.has_turn
            && !conversation.is_quiet()
            && conversation.reading.is_none()
        {
            conversation.has_turn = true;
            self.turns.push_back(id);
        }
    }

    fn forget_quiet(&mut self) {
        if self.conversations.len() > QUIET_MAX + self.turns.len() {
            self.conversations
                .retain(|_, conversation| !conversation.is_quiet());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::message::{LogEntry, Position, Sequence};

    fn id(number: u128) -> ConversationId {
        ConversationId(uuid::Uuid::from_u128(number))
    }

    fn entry(conversation: ConversationId, number: i64) -> SharedEntry {
        let position = Position {
            conversation,
            sequence: Sequence::new(number).unwrap(),
        };
        Arc::new(LogEntry::new(position, None, Bytes::new()))
    }

    fn entries(conversation: ConversationId, from: i64, to: i64) -> Vec<SharedEntry> {
        (from..=to)
            .map(|number| entry(conversation, number))
            .collect()
    }

    /// Runs until nothing is left, answering reads from a log that ends at `head`.
    fn drain(replay: &mut Replay, head: i64) -> Vec<i64> {
        let mut got = Vec::new();
        while let Some(next) = replay.next(true) {
            match next {
                Next::Deliver(entry) => got.push(entry.position.sequence.get()),
                Next::Read(page) => {
                    let to = head.min(page.after + i64::try_from(page.entries_max).unwrap());
                    replay.read(page, entries(page.conversation, page.after + 1, to));
                }
            }
        }
        got
    }

    #[test]
    fn a_notice_that_follows_the_cursor_needs_no_query() {
        let mut replay = Replay::new(8);
        replay.hear(id(1), 7, 8, &entries(id(1), 7, 8));
        assert_eq!(replay.next(true), Some(Next::Deliver(entry(id(1), 7))));
        assert_eq!(replay.next(true), Some(Next::Deliver(entry(id(1), 8))));
        assert_eq!(replay.next(true), None);
    }

    #[test]
    fn of_a_commit_only_the_part_for_the_user_goes_out() {
        let mut replay = Replay::new(8);
        replay.hear(id(1), 1, 2, &entries(id(1), 1, 4)); // removed by entry 2
        replay.hear(id(1), 7, 8, &entries(id(1), 5, 8)); // added again by entry 7
        assert_eq!(replay.next(true), Some(Next::Deliver(entry(id(1), 1))));
        assert_eq!(replay.next(true), Some(Next::Deliver(entry(id(1), 2))));
        let read = PageRequest {
            conversation: id(1),
            after: 2,
            entries_max: 8,
        };
        assert_eq!(replay.next(true), Some(Next::Read(read)));
    }

    #[test]
    fn nothing_goes_out_while_the_window_is_full() {
        let mut replay = Replay::new(8);
        replay.hear(id(1), 1, 1, &entries(id(1), 1, 1));
        assert_eq!(replay.next(false), None);
        assert_eq!(replay.next(true), Some(Next::Deliver(entry(id(1), 1))));
    }

    #[test]
    fn conversations_take_turns() {
        let mut replay = Replay::new(8);
        replay.hear(id(1), 1, 3, &entries(id(1), 1, 3));
        replay.hear(id(2), 1, 1, &entries(id(2), 1, 1));
        let order: Vec<_> = std::iter::from_fn(|| replay.next(true))
            .map(|next| match next {
                Next::Deliver(entry) => entry.position.conversation,
                Next::Read(_) => panic!("all entries are in memory"),
            })
            .collect();
        assert_eq!(order, [id(1), id(2), id(1), id(1)]);
    }

    #[test]
    fn who_was_removed_meanwhile_gets_nothing_more() {
        let mut replay = Replay::new(8);
        replay.resume(Pending {
            conversation: id(1),
            cursor: 3,
            head: 9,
        });
        let read = PageRequest {
            conversation: id(1),
            after: 3,
            entries_max: 8,
        };
        assert_eq!(replay.next(true), Some(Next::Read(read)));
        replay.read(read, Vec::new());
        assert_eq!(replay.next(true), None);
        assert!(replay.is_caught_up());
    }

    #[test]
    fn a_failed_read_is_tried_again() {
        let mut replay = Replay::new(8);
        replay.resume(Pending {
            conversation: id(1),
            cursor: 0,
            head: 1,
        });
        let page = PageRequest {
            conversation: id(1),
            after: 0,
            entries_max: 8,
        };
        assert_eq!(replay.next(true), Some(Next::Read(page)));
        assert_eq!(replay.next(true), None);
        replay.read_failed(page);
        assert!(matches!(replay.next(true), Some(Next::Read(_))));
    }

    #[test]
    fn who_comes_back_while_a_page_is_read_misses_nothing() {
        let mut replay = Replay::new(8);
        let conversation = id(1);
        replay.resume(Pending {
            conversation,
            cursor: 3,
            head: 5,
        });
        let Some(Next::Read(page)) = replay.next(true) else {
            panic!("there is something to read")
        };
        replay.hear(conversation, 9, 9, &entries(conversation, 9, 9));
        replay.read(page, Vec::new()); // read before the user was added again
        assert!(matches!(replay.next(true), Some(Next::Read(_))));
    }

    #[test]
    fn who_comes_back_at_once_needs_no_page() {
        let mut replay = Replay::new(8);
        replay.hear(id(1), 1, 2, &entries(id(1), 1, 2)); // removed by entry 2
        replay.begin(id(1), 7);
        replay.hear(id(1), 7, 7, &entries(id(1), 7, 7)); // added again by entry 7
        replay.hear(id(1), 8, 8, &entries(id(1), 8, 8));
        let got: Vec<_> = std::iter::from_fn(|| replay.next(true))
            .map(|next| match next {
                Next::Deliver(entry) => entry.position.sequence.get(),
                Next::Read(page) => panic!("all is in memory: {page:?}"),
            })
            .collect();
        assert_eq!(got, [1, 2, 7, 8]);
        assert!(replay.is_caught_up());
    }

    #[test]
    fn a_page_of_a_forgotten_conversation_is_ignored() {
        let mut replay = Replay::new(8);
        let conversation = id(1);
        let pending = Pending {
            conversation,
            cursor: 0,
            head: 5,
        };
        replay.resume(pending);
        let Some(Next::Read(old)) = replay.next(true) else {
            panic!("there is something to read")
        };
        replay.forget(conversation);
        replay.resume(Pending {
            cursor: 2,
            ..pending
        });
        assert!(matches!(replay.next(true), Some(Next::Read(_))));
        replay.read(old, Vec::new());
        assert!(!replay.is_caught_up());
    }

    proptest! {
        /// Goal: every entry after the cursor goes out once, in order, whatever notices say.
        /// Method: notices with any part of their entries, repeated and late, mixed with
        /// partial drains, against a log of 60 entries.
        #[test]
        fn every_entry_goes_out_once_and_in_order(
            cursor in 0..10_i64,
            steps in prop::collection::vec((0..4_u8, 1..60_i64, 0..5_i64), 1..40),
        ) {
            let log = id(1);
            let mut replay = Replay::new(4);
            let mut head = cursor + 1;
            replay.resume(Pending { conversation: log, cursor, head });
            let mut got = Vec::new();
            for (kind, number, length) in steps {
                match kind {
                    0 => {
                        let (from, to) = (head + 1, head + 1 + length);
                        let known = entries(log, from, to);
                        head = to;
                        replay.hear(log, from, to, &known[..known.len().min(usize::try_from(number).unwrap() % 4)]);
                    }
                    1 => replay.hear(log, number.min(head), head, &entries(log, number.min(head), head)),
                    2 => got.extend(drain(&mut replay, head)),
                    _ => {
                        match replay.next(true) {
                            Some(Next::Deliver(entry)) => got.push(entry.position.sequence.get()),
                            Some(Next::Read(page)) => replay.read_failed(page),
                            None => {}
                        }
                    }
                }
            }
            got.extend(drain(&mut replay, head));
            prop_assert_eq!(got, (cursor + 1..=head).collect::<Vec<_>>());
            prop_assert_eq!(replay.waiting, 0);
        }
    }
}
