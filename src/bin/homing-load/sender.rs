//! One sender: publishes as fast as its window allows, or when its schedule says.

use std::time::Duration;

use tokio::{sync::watch, time::interval};

use crate::{
    client::{Client, ClientError},
    clock::{Clock, Nanos},
    histogram::Histogram,
    inbox::Packet,
    pacer::Schedule,
    payload::Template,
    window::Window,
    wire,
};

/// How often ends and stalls are looked for, when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// One write takes at most about this much, however late a schedule runs.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// How many messages a sender has sent to each receiver, once it is done.
pub(crate) type Finish = watch::Sender<Option<u64>>;
pub(crate) type Finished = watch::Receiver<Option<u64>>;

/// When a sender stops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) messages_max: u64,
    /// No publish after this.
    pub(crate) at: Nanos,
    /// Without any acknowledgement for so long, the rest is given up.
    pub(crate) patience: Nanos,
}

/// One connection that publishes to one topic or, in turn, to several.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) client: Client,
    pub(crate) templates: Vec<Template>,
    pub(crate) window: Window,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) stop: Stop,
    pub(crate) clock: Clock,
    pub(crate) outcome: Sent,
}

#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    /// Refusals told on the side, and the first of them.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<String>,
    pub(crate) out_of_order: u64,
    pub(crate) last: Nanos,
    pub(crate) puback: Histogram,
    /// How late this program itself was, if there is a schedule.
    pub(crate) lateness: Histogram,
}

impl Sender {
    /// Publishes until it may stop and all is acknowledged; then tells the receivers.
    pub(crate) async fn run(mut self, finish: Finish) -> Result<Sent, ClientError> {
        let mut ticks = interval(TICK);
        let wake = self
            .schedule
            .as_ref()
            .map(|schedule| schedule.wake.clone())
            .unwrap_or_default();
        self.outcome.last = self.clock.now();
        loop {
            let now = self.clock.now();
            let is_done = self.publish_due(now);
            self.client.flush().await?;
            let is_stalled = now.saturating_sub(self.outcome.last) > self.stop.patience;
            if (is_done && self.window.is_empty()) || (is_stalled && !self.window.is_empty()) {
                break;
            }
            tokio::select! {
                filled = self.client.fill() => filled?,
                () = wake.notified() => {}
                _ = ticks.tick() => {}
            }
            self.take_answers()?;
        }
        finish.send_replace(Some(self.outcome.published / self.templates.len() as u64));
        self.outcome.out_of_order = self.window.out_of_order();
        Ok(self.outcome)
    }

    /// Appends what is due and fits into the window. Says whether nothing will ever be due.
    fn publish_due(&mut self, now: Nanos) -> bool {
        let topics = self.templates.len() as u64;
        while self.client.out.len() < WRITE_BYTES_MAX {
            let message = self.outcome.published;
            if message >= self.stop.messages_max || now >= self.stop.at {
                return true;
            }
            let due = self
                .schedule
                .as_ref()
                .map_or(now, |schedule| schedule.due(message));
            if due > now {
                return false;
            }
            let Some(packet_id) = self.window.publish(due) else {
                return false;
            };
            if self.schedule.is_some() {
                self.outcome.lateness.record(now - due);
            }
            let template = usize::try_from(message % topics).expect("an index of a vector");
            let number = message / topics;
            self.templates[template].write(&mut self.client.out, packet_id, number, due);
            self.outcome.published += 1;
        }
        false
    }

    fn take_answers(&mut self) -> Result<(), ClientError> {
        let now = self.clock.now();
        while let Some(packet) = self.client.inbox.take()? {
            match packet {
                Packet::Puback { packet_id } => {
                    if let Some(due) = self.window.acknowledge(packet_id) {
                        self.outcome.puback.record(now.saturating_sub(due));
                        self.outcome.acknowledged += 1;
                        self.outcome.last = now;
                    }
                }
                Packet::Publish(publish) => {
                    self.outcome.refused += 1;
                    let text = || String::from_utf8_lossy(publish.payload).into_owned();
                    self.outcome.refusal.get_or_insert_with(text);
                    if let Some(packet_id) = publish.packet_id {
                        wire::puback(&mut self.client.out, packet_id);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
