//! One receiver: reads, acknowledges and checks every message.

use std::time::Duration;

use tokio::time::interval;

use crate::{
    client::{Client, ClientError},
    clock::{Clock, Nanos},
    histogram::Histogram,
    inbox::{Packet, Publish},
    payload::{self, Run},
    sender::Finished,
    tracker::{Tally, Tracker},
    wire,
};

/// How often a receiver looks whether it is done, once its sender is.
const TICK: Duration = Duration::from_millis(100);
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
    pub(crate) async fn run(mut self, mut finished: Finished) -> Result<Received, ClientError> {
        let mut ticks = interval(TICK);
        let mut finished_at = None;
        loop {
            // First what came together with the CONNACK or the SUBACK.
            self.take_messages()?;
            self.client.flush().await?;
            tokio::select! {
                filled = self.client.fill() => filled?,
                // No ticks while messages flow: every wake-up costs what is measured.
                told = finished.wait_for(Option::is_some), if finished_at.is_none() => {
                    self.outcome.expected = told.map_or(None, |count| *count).unwrap_or(0);
                    finished_at = Some(self.clock.now());
                    ticks.reset(); // not the ones of all the time before
                }
                _ = ticks.tick(), if finished_at.is_some() => {}
            }
            if finished_at.is_some_and(|at| self.is_over(at)) {
                break;
            }
        }
        self.outcome.tally = self.tracker.tally();
        Ok(self.outcome)
    }

    fn is_over(&self, finished_at: Nanos) -> bool {
        let is_complete = self.tracker.tally().delivered >= self.outcome.expected;
        let quiet = self
            .clock
            .now()
            .saturating_sub(self.outcome.last.max(finished_at));
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        payload::Template,
        sender::Finish,
        wire::{Login, Session},
    };

    const RUN: Run = *b"5f3a09c2";
    const TOPIC: &str = "load/1";

    /// A session that was away: its messages follow the CONNACK in one write.
    fn backlog() -> Vec<u8> {
        let mut bytes = vec![0x20, 2, 1, 0];
        let mut template = Template::new(TOPIC, RUN, 10);
        for (packet_id, number) in [(1, 0), (2, 1), (3, 2)] {
            template.write(&mut bytes, packet_id, number, 0);
        }
        bytes
    }

    #[tokio::test]
    async fn what_comes_with_the_connack_is_received_and_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&backlog()).await.unwrap();
            let (mut connect, mut pubacks) = ([0; 17], [0; 12]);
            stream.read_exact(&mut connect).await.unwrap();
            stream.read_exact(&mut pubacks).await.unwrap();
            (stream, pubacks)
        };
        let device = async {
            let login = Login {
                client_id: "abc".into(),
                username: None,
                password: None,
                keep_alive_seconds: 0,
            };
            let client = Client::connect(address, &login, Session::Persistent, 0)
                .await
                .unwrap();
            let receiver = Receiver {
                client,
                topic: TOPIC.to_owned(),
                run: RUN,
                patience: 10_000_000_000, // ten seconds, for a busy machine
                clock: Clock::start(),
                tracker: Tracker::default(),
                outcome: Received::default(),
            };
            let finish = Finish::default();
            finish.send_replace(Some(3));
            receiver.run(finish.subscribe()).await.unwrap()
        };

        let ((_stream, pubacks), received) = tokio::join!(server, device);

        assert_eq!(
            pubacks,
            *b"\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03"
        );
        assert_eq!(
            received.tally,
            Tally {
                delivered: 3,
                ..Tally::default()
            }
        );
    }
}
