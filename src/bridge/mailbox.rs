//! What a connected session is told: verdicts, commits, receipts, and that it must go.
//!
//! A mailbox is bounded without losing anything: past its bound, commits are kept as
//! "behind from here to there", and the session reads the log.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::{Accepted, Refusal};
use crate::domain::{
    ids::{ClientMessageId, ConversationId, DeviceId},
    message::{NewMessage, SharedEntry},
};

/// Entries of one conversation that were committed; shared by all receivers.
#[derive(Debug)]
pub struct Notice {
    pub conversation: ConversationId,
    pub from: i64,
    pub to: i64,
    /// The newest of them, in order; perhaps none.
    pub entries: Vec<SharedEntry>,
}

/// A participant's new standing, as JSON; shared by all receivers.
#[derive(Debug)]
pub struct ReceiptNotice {
    pub conversation: ConversationId,
    pub payload: Bytes,
}

/// Who types, or does not any more, as JSON; shared by all receivers.
#[derive(Debug)]
pub struct TypingNotice {
    pub conversation: ConversationId,
    pub payload: Bytes,
}

/// A message that was not accepted, named so that its sender knows which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMessage {
    pub refusal: Refusal,
    pub conversation: ConversationId,
    pub id: ClientMessageId,
}

/// Something a connected session must know.
#[derive(Debug)]
pub enum Event {
    /// What became of a publish.
    Verdict {
        ticket: u64,
        verdict: Result<Accepted, Box<RefusedMessage>>,
    },
    /// What became of a report on `c/{cid}/receipts`: whether it was stored.
    Reported {
        ticket: u64,
        conversation: ConversationId,
        result: Result<(), Refusal>,
    },
    /// What became of a word on `c/{cid}/typing`: whether the user may say so.
    Typed {
        ticket: u64,
        conversation: ConversationId,
        result: Result<(), Refusal>,
    },
    /// Of a commit, the part that this user may see.
    Commit {
        notice: Arc<Notice>,
        from: i64,
        to: i64,
        /// Whether the user takes part from `from` on, and did not before.
        begins: bool,
    },
    /// Commits that did not fit: read the log.
    Behind {
        conversation: ConversationId,
        from: i64,
        to: i64,
    },
    Receipt(Arc<ReceiptNotice>),
    Typing(Arc<TypingNotice>),
    /// Something for this user alone, on a topic that begins with `me/`.
    Mine {
        topic: &'static str,
        payload: Bytes,
    },
    /// This device is signed out: it must go, if it is the one that is told.
    SignedOut(DeviceId),
    /// Another connection of the same device has taken the session.
    TakenOver,
    /// The server stops.
    Shutdown,
}

/// The events of one connected session. Empty, it owns no memory.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<State>,
    waker: AtomicWaker,
    wants_inbox: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    /// How many of them are commits, receipts or the like, which a session does not ask for.
    unasked: usize,
    /// Commits past the bound; at most one range for each conversation of the user.
    behind: Vec<(ConversationId, i64, i64)>,
}

/// Commits, receipts and the like that wait for one session.
const UNASKED_MAX: usize = 512;

impl Mailbox {
    /// Leaves an event that the session waits for. There are no more of them than it has
    /// publishes in flight.
    pub fn tell(&self, event: Event) {
        self.change(|state| state.events.push(event));
    }

    /// Leaves a commit, of which `from..=to` is for this user, who `begins` to take part then,
    /// or took part before.
    pub(super) fn notice(&self, notice: &Arc<Notice>, from: i64, to: i64, begins: bool) {
        self.change(|state| {
            let conversation = notice.conversation;
            let late = state.behind.iter_mut().find(|(id, ..)| *id == conversation);
            if let Some((_, _, end)) = late {
                *end = to.max(*end);
            } else if state.unasked >= UNASKED_MAX {
                state.behind.push((conversation, from, to));
            } else {
                state.unasked += 1;
                state.events.push(Event::Commit {
                    notice: notice.clone(),
                    from,
                    to,
                    begins,
                });
            }
        });
    }

    /// Leaves a receipt; false if there is no room, and a later one must say it.
    pub(super) fn receipt(&self, receipt: &Arc<ReceiptNotice>) -> bool {
        self.push_if_room(|| Event::Receipt(receipt.clone()))
    }

    /// Leaves word of who types; false if there is no room, and it is lost.
    pub(super) fn typing(&self, typing: &Arc<TypingNotice>) -> bool {
        self.push_if_room(|| Event::Typing(typing.clone()))
    }

    /// Leaves something for the user alone; false if there is no room, and it is lost.
    pub(super) fn mine(&self, topic: &'static str, payload: &Bytes) -> bool {
        self.push_if_room(|| {
            let payload = payload.clone();
            Event::Mine { topic, payload }
        })
    }

    /// Leaves an event that is sent at most once.
    fn push_if_room(&self, event: impl FnOnce() -> Event) -> bool {
        self.change(|state| {
            let has_room = state.unasked < UNASKED_MAX;
            if has_room {
                state.unasked += 1;
                state.events.push(event());
            }
            has_room
        })
    }

    /// Remembers whether the session's subscriptions cover `me/inbox`, which costs a query
    /// for each change: nobody makes it for those who do not want it.
    pub fn set_wants_inbox(&self, wants_inbox: bool) {
        self.wants_inbox.store(wants_inbox, Ordering::Release);
    }

    pub(super) fn wants_inbox(&self) -> bool {
        self.wants_inbox.load(Ordering::Acquire)
    }

    /// Takes all events, oldest first, or wakes the task when there are some.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Vec<Event>> {
        // Registered before looking: an event that comes in between wakes us.
        self.waker.register(cx.waker());
        let mut state = self.lock();
        if state.events.is_empty() {
            return Poll::Pending;
        }
        state.unasked = 0;
        let mut events = std::mem::take(&mut state.events);
        let behind = std::mem::take(&mut state.behind);
        drop(state);
        events.extend(
            behind
                .into_iter()
                .map(|(conversation, from, to)| Event::Behind {
                    conversation,
                    from,
                    to,
                }),
        );
        Poll::Ready(events)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let was_empty = state.events.is_empty();
        let result = change(&mut state);
        let must_wake = was_empty && !state.events.is_empty();
        drop(state);
        if must_wake {
            self.waker.wake();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for the verdict on a message.
#[derive(Debug)]
pub enum Reply {
    Session { mailbox: Arc<Mailbox>, ticket: u64 },
    Request(tokio::sync::oneshot::Sender<Result<Accepted, Refusal>>),
}

impl Reply {
    pub(super) fn send(self, message: &NewMessage, verdict: Result<Accepted, Refusal>) {
        match self {
            Self::Session { mailbox, ticket } => {
                let verdict = verdict.map_err(|refusal| {
                    let (conversation, id) = (message.conversation, message.content.id.clone());
                    Box::new(RefusedMessage {
                        refusal,
                        conversation,
                        id,
                    })
                });
                mailbox.tell(Event::Verdict { ticket, verdict });
            }
            // Whoever asked may have gone; the message is stored all the same.
            Self::Request(request) => drop(request.send(verdict)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn notice(from: i64, to: i64) -> Arc<Notice> {
        let conversation = ConversationId(uuid::Uuid::from_u128(1));
        Arc::new(Notice {
            conversation,
            from,
            to,
            entries: Vec::new(),
        })
    }

    fn take(mailbox: &Mailbox) -> Vec<Event> {
        let mut cx = Context::from_waker(Waker::noop());
        match mailbox.poll_take(&mut cx) {
            Poll::Ready(events) => events,
            Poll::Pending => Vec::new(),
        }
    }

    /// Goal: a session that does not look loses no commit, and its mailbox does not grow.
    #[test]
    fn past_its_bound_a_mailbox_remembers_the_range() {
        let mailbox = Mailbox::default();
        let last = i64::try_from(UNASKED_MAX).unwrap() + 100;
        (1..=last)
            .for_each(|number| mailbox.notice(&notice(number, number), number, number, false));
        let events = take(&mailbox);
        assert_eq!(events.len(), UNASKED_MAX + 1);
        let first_missing = i64::try_from(UNASKED_MAX).unwrap() + 1;
        assert!(matches!(
            events.last(),
            Some(Event::Behind { from, to, .. }) if *from == first_missing && *to == last
        ));
        assert!(take(&mailbox).is_empty());
    }

    /// Goal: what is told at most once has the same bound, and says what it drops.
    #[test]
    fn past_its_bound_a_mailbox_takes_nothing_more_for_the_user_alone() {
        let mailbox = Mailbox::default();
        let payload = Bytes::from_static(b"{}");
        let took = (0..UNASKED_MAX + 3).filter(|_| mailbox.mine("me/inbox", &payload));
        assert_eq!(took.count(), UNASKED_MAX);
        assert_eq!(take(&mailbox).len(), UNASKED_MAX);
        assert!(mailbox.mine("me/inbox", &payload));
    }
}
