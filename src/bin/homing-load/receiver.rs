//! One receiver: reads, acknowledges and checks every message.

use tokio::time::interval;

use crate::{
    client::{Client, ClientError},
    clock::{Clock, Nanos},
    histogram::Histogram,
    inbox::{Packet, Publish},
    payload::{self, Run},
    sender::{Finish, TICK},
    tracker::{Tally, Tracker},
    wire,
};

/// How long a receiver that has everything still listens for what comes twice.
const SETTLE_NANOS: Nanos = 300_000_000;

/// One connection that receives from one topic.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) run: Run,
    /// Without any message for so long after the sender is done, the rest is given up.
    pub(crate) patience: Nanos,
    pub(crate) clock: Clock,
    pub(crate) tracker: Tracker,
    pub(crate) outcome: Received,
}

#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) expected: u64,
    pub(crate) tally: Tally,
    /// When the last new message came.
    pub(crate) last: Nanos,
    pub(crate) delivery: Histogram,
}

impl Receiver {
    /// Receives until all that was sent is here, or nothing comes any more.
    pub(crate) async fn run(mut self, finish: Finish) -> Result<Received, ClientError> {
        let mut ticks = interval(TICK);
        let mut finished_at = None;
        loop {
            tokio::select! {
                filled = self.client.fill() => {
                    filled?;
                    self.take_messages()?;
                    self.client.flush().await?;
                }
                _ = ticks.tick() => {
                    let now = self.clock.now();
                    if let Some(expected) = finish.get() {
                        let since = *finished_at.get_or_insert(now);
                        if self.is_over(expected, now, since) {
                            break;
                        }
                    }
                }
            }
        }
        self.outcome.tally = self.tracker.tally();
        Ok(self.outcome)
    }

    fn is_over(&mut self, expected: u64, now: Nanos, finished_at: Nanos) -> bool {
        self.outcome.expected = expected;
        let is_complete = self.tracker.tally().delivered >= expected;
        let quiet = now.saturating_sub(self.outcome.last.max(finished_at));
        quiet
            > if is_complete {
                SETTLE_NANOS
            } else {
                self.patience
            }
    }

    fn take_messages(&mut self) -> Result<(), ClientError> {
        let now = self.clock.now();
        while let Some(packet) = self.client.inbox.take()? {
            let Packet::Publish(publish) = packet else {
                continue;
            };
            if let Some(packet_id) = publish.packet_id {
                wire::puback(&mut self.client.out, packet_id);
            }
            match mark(&publish, &self.topic, self.run) {
                Some(mark) => {
                    let is_new = self.tracker.note(mark, publish.is_repeat);
                    if let (true, Some(message)) = (is_new, mark.message) {
                        self.outcome
                            .delivery
                            .record(now.saturating_sub(message.due));
                        self.outcome.last = now;
                    }
                }
                None => self.tracker.note_misdelivered(),
            }
        }
        Ok(())
    }
}

/// What a message of this receiver's own topic says.
fn mark(publish: &Publish<'_>, topic: &str, run: Run) -> Option<payload::Mark> {
    if publish.topic == topic.as_bytes() {
        payload::read(publish.payload, run)
    } else {
        None
    }
}
