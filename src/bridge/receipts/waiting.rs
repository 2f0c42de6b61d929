//! Who waits until what was gathered is stored.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    bridge::{
        Refusal,
        mailbox::{Event, Mailbox},
    },
    domain::ids::{ConversationId, UserId},
};

/// One that waits.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A connection that ends, so that the next one finds its session and its cursors.
    Flush(oneshot::Sender<()>),
    /// A report that is answered.
    Report {
        user: UserId,
        conversation: ConversationId,
        reply: ReportReply,
    },
}

/// Where the answer to a report goes.
#[derive(Debug)]
pub enum ReportReply {
    Session { mailbox: Arc<Mailbox>, ticket: u64 },
    Request(oneshot::Sender<Result<(), Refusal>>),
}

impl ReportReply {
    pub(super) fn send(self, conversation: ConversationId, result: Result<(), Refusal>) {
        match self {
            Self::Session { mailbox, ticket } => mailbox.tell(Event::Reported {
                ticket,
                conversation,
                result,
            }),
            // Whoever asked may have gone; the position is stored all the same.
            Self::Request(request) => drop(request.send(result)),
        }
    }
}

/// The users and conversations of the reports among them.
pub(super) fn reports(waiting: &[Waiting]) -> Vec<(UserId, ConversationId)> {
    let reports = waiting.iter().filter_map(|waiting| match waiting {
        Waiting::Report {
            user, conversation, ..
        } => Some((*user, *conversation)),
        Waiting::Flush(_) => None,
    });
    reports.collect()
}

/// It is stored; `take_part` says of each report whether its user takes part.
pub(super) fn answer(waiting: Vec<Waiting>, take_part: &[bool]) {
    let mut take_part = take_part.iter();
    for waiting in waiting {
        match waiting {
            // Whoever waited may have gone.
            Waiting::Flush(done) => drop(done.send(())),
            Waiting::Report {
                conversation,
                reply,
                ..
            } => {
                let result = match take_part.next() {
                    Some(true) => Ok(()),
                    _ => Err(Refusal::NotParticipant),
                };
                reply.send(conversation, result);
            }
        }
    }
}

/// It will not be stored: nobody waits any more.
pub(super) fn give_up(waiting: Vec<Waiting>) {
    for waiting in waiting {
        match waiting {
            Waiting::Flush(done) => drop(done),
            Waiting::Report {
                conversation,
                reply,
                ..
            } => reply.send(conversation, Err(Refusal::Unavailable)),
        }
    }
}
