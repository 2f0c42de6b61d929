//! What a session needs from the bridge and must wait for.
//!
//! Two lanes, in each one operation at a time: what the session itself needs, and what its user
//! asks for. A request that waits for a conversation holds up no SUBACK and no page of the log.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt as _, future::BoxFuture};

use super::Shared;
use crate::{
    bridge::{
        BridgeError,
        conversations::Caller,
        receipts::Inflight,
        sessions::{Held, Missed, Wanted},
    },
    domain::{
        message::{Position, SharedEntry},
        problem::{Problem, ProblemKind, TIMED_OUT},
        request::{Answer, Request},
    },
    mqtt::{
        packet::PacketId,
        replay::{PageRequest, Pending},
        session::{Ask, SubscriptionChange},
        subscriptions::Coverage,
    },
};

/// Something to wait for.
#[derive(Debug)]
pub(super) enum Operation {
    Persist {
        change: SubscriptionChange,
        expiry_seconds: u32,
    },
    Read(PageRequest),
    Answer {
        ask: Box<Ask>,
        caller: Caller,
    },
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Completed {
    Persisted {
        is_stored: bool,
    },
    Page {
        page: PageRequest,
        entries: Option<Vec<SharedEntry>>,
    },
    Answered {
        ask: Box<Ask>,
        answer: Answer,
    },
    /// Another node has taken the session.
    TakenOver,
}

/// Operations that wait for each other.
#[derive(Default)]
pub(super) struct Lane {
    running: Option<BoxFuture<'static, Completed>>,
    waiting: VecDeque<Operation>,
}

impl Lane {
    pub(super) fn push(&mut self, operation: Operation) {
        self.waiting.push_back(operation);
    }

    /// What is completed, or pending if nothing is.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
        held: Held,
    ) -> Poll<Completed> {
        if self.running.is_none() {
            let Some(operation) = self.waiting.pop_front() else {
                return Poll::Pending;
            };
            self.running = Some(operation.start(shared.clone(), held));
        }
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        let completed = ready!(running.poll_unpin(cx));
        self.running = None;
        self.waiting.shrink_to_fit(); // mostly to nothing: an idle connection is small
        Poll::Ready(completed)
    }
}

impl Operation {
    /// Starts it. What the store refuses because it is away is reported, not repeated here:
    /// the device, or the session, asks again.
    fn start(self, shared: Arc<Shared>, held: Held) -> BoxFuture<'static, Completed> {
        Box::pin(async move {
            match self {
                Self::Persist {
                    change,
                    expiry_seconds,
                } => persist(&shared, held, change, expiry_seconds).await,
                Self::Read(page) => read(&shared, held, page).await,
                Self::Answer { ask, caller } => {
                    let answer = answer(&shared, held, &ask, &caller).await;
                    Completed::Answered { ask, answer }
                }
            }
        })
    }
}

async fn answer(shared: &Shared, held: Held, ask: &Ask, caller: &Caller) -> Answer {
    let Request {
        operation,
        arguments,
        ..
    } = &ask.request;
    let answer = shared
        .bridge
        .request(caller, held, operation, arguments.clone());
    let answer = tokio::time::timeout(shared.request_timeout, answer).await;
    answer.unwrap_or_else(|_| {
        tracing::warn!(operation, "a request took too long");
        Problem::new(ProblemKind::Unavailable, TIMED_OUT).into()
    })
}

async fn persist(
    shared: &Shared,
    held: Held,
    change: SubscriptionChange,
    expiry_seconds: u32,
) -> Completed {
    let subscriptions = serde_json::to_value(&change.subscriptions).unwrap_or_default();
    let (before, after) = (wanted(&change.before), wanted(&change.after));
    let stored = shared
        .bridge
        .persist_session(held, &subscriptions, expiry_seconds, &before, &after)
        .await;
    match stored {
        Ok(()) => Completed::Persisted { is_stored: true },
        Err(BridgeError::TakenOver) => Completed::TakenOver,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a subscription is not stored"
            );
            Completed::Persisted { is_stored: false }
        }
    }
}

async fn read(shared: &Shared, held: Held, page: PageRequest) -> Completed {
    let PageRequest {
        conversation,
        after,
        entries_max,
    } = page;
    let log = shared
        .bridge
        .log_after(held.user, conversation, after, entries_max);
    let entries = match log.await {
        Ok(entries) => Some(entries),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a page of the log is not read"
            );
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            None
        }
    };
    Completed::Page { page, entries }
}

/// In the words of the bridge.
pub(super) fn wanted(coverage: &Coverage) -> Wanted {
    match coverage {
        Coverage::All => None,
        Coverage::Only(conversations) => Some(conversations.clone()),
    }
}

/// In the words of the protocol core.
pub(super) fn restore_pending(missed: Missed) -> Pending {
    let Missed {
        conversation,
        cursor,
        head,
    } = missed;
    Pending {
        conversation,
        cursor,
        head,
    }
}

/// In the words of the store: packet id 0 is acknowledged and not settled.
pub(super) fn inflight(unsettled: Vec<(Position, Option<PacketId>)>) -> Inflight {
    unsettled
        .into_iter()
        .map(|(position, packet_id)| (packet_id.map_or(0, PacketId::get), position))
        .collect()
}
