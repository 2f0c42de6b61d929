//! Groups of a sender and its receivers, run together and added up.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;

use crate::{
    args::{Load, Sending},
    client::{Client, ClientError},
    clock::{Clock, Nanos},
    histogram::Histogram,
    pacer::{Pacer, Schedule},
    payload::Template,
    receiver::{Received, Receiver},
    report::{Cpu, Messages, Report},
    sender::{Finish, Sender, Sent, Stop},
    target::{Target, Topics},
    tracker::Tracker,
    window::Window,
    wire::Session,
};

/// Connections and requests that are opened at the same time while a run is prepared.
const SETUP_CONCURRENCY: usize = 64;
/// One read of a busy connection.
const BUFFER_BYTES: usize = 16 * 1024;
const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// What all scenarios need.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) target: Target,
    pub(crate) clock: Clock,
    pub(crate) patience: Nanos,
}

/// A sender and those who receive what it sends.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) sender: Sender,
    pub(crate) receivers: Vec<Receiver>,
}

/// The sums of a run.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    messages: Messages,
    puback: Histogram,
    lateness: Histogram,
    delivery: Histogram,
    /// When the last message was acknowledged or delivered.
    last: Nanos,
}

impl Run {
    pub(crate) fn new(target: Target, patience_seconds: u32) -> Self {
        let patience = Nanos::from(patience_seconds) * NANOS_PER_SECOND;
        Self {
            target,
            clock: Clock::start(),
            patience,
        }
    }

    /// A sender that is connected and has nothing to send yet.
    pub(crate) async fn sender(
        &self,
        name: &str,
        topics: &[Topics],
        sending: &Sending,
    ) -> anyhow::Result<Sender> {
        let login = self.target.login(name)?;
        let mut client =
            Client::connect(self.target.address, &login, Session::Clean, BUFFER_BYTES).await?;
        if let Some(filter) = self.target.refusals_filter() {
            client.subscribe(filter).await?;
        }
        let bytes = usize::try_from(sending.bytes)?;
        let template = |topics: &Topics| Template::new(&topics.publish, self.target.run, bytes);
        Ok(Sender {
            client,
            templates: topics.iter().map(template).collect(),
            window: Window::new(sending.window),
            schedule: None,
            stop: Stop {
                messages_max: 0,
                at: Nanos::MAX,
                patience: self.patience,
            },
            clock: self.clock,
            outcome: Sent::default(),
        })
    }

    pub(crate) async fn subscriber(
        &self,
        name: &str,
        topics: &Topics,
        session: Session,
    ) -> anyhow::Result<Receiver> {
        let login = self.target.login(name)?;
        let address = self.target.address;
        let mut client = Client::connect(address, &login, session, BUFFER_BYTES).await?;
        client.subscribe(&topics.filter).await?;
        Ok(self.receiver(client, topics))
    }

    pub(crate) fn receiver(&self, client: Client, topics: &Topics) -> Receiver {
        Receiver {
            client,
            topic: topics.deliver.clone(),
            run: self.target.run,
            patience: self.patience,
            clock: self.clock,
            tracker: Tracker::default(),
            outcome: Received::default(),
        }
    }

    /// When the senders of `load` stop, if they begin now.
    pub(crate) fn stop(&self, load: &Load) -> Stop {
        let at = self.clock.now() + Nanos::from(load.seconds) * NANOS_PER_SECOND;
        match load.messages {
            Some(messages_max) => Stop {
                messages_max,
                at: Nanos::MAX,
                patience: self.patience,
            },
            None => Stop {
                messages_max: u64::MAX,
                at,
                patience: self.patience,
            },
        }
    }

    /// Sends and receives everything, and reports it.
    pub(crate) async fn measure(
        &self,
        scenario: &'static str,
        mut groups: Vec<Group>,
        load: &Load,
    ) -> anyhow::Result<Report> {
        let connections = groups.iter().map(|group| 1 + group.receivers.len()).sum();
        let pacer = load
            .rate
            .map(|rate| Pacer::start(self.clock, groups.len(), rate));
        let (pacer, schedules) = pacer.unzip();
        let mut schedules: Vec<Schedule> = schedules.unwrap_or_default();
        for group in groups.iter_mut().rev() {
            group.sender.schedule = schedules.pop();
            group.sender.stop = self.stop(load);
        }
        let cpu_before = self.target.server.cpu();
        let began = self.clock.now();
        let sums = run(groups).await?;
        drop::<Option<Pacer>>(pacer);
        let used = cpu_before.until(self.target.server.cpu());
        let span = sums.last.saturating_sub(began);
        let mut report = Report::new(scenario, &self.target, connections, span);
        report.cpu = Some(Cpu::new(
            &self.target,
            used,
            span,
            Some(sums.messages.delivered),
        ));
        sums.write_to(&mut report);
        Ok(report)
    }
}

/// Does `one` for every number below `count`, some at a time, in order.
pub(crate) fn prepare_each<T, F: Future<Output = anyhow::Result<T>>>(
    count: usize,
    one: impl FnMut(usize) -> F,
) -> impl Stream<Item = anyhow::Result<T>> {
    stream::iter(0..count).map(one).buffered(SETUP_CONCURRENCY)
}

/// The same, and keeps what comes of it.
pub(crate) async fn prepare<T, F: Future<Output = anyhow::Result<T>>>(
    count: usize,
    one: impl FnMut(usize) -> F,
) -> anyhow::Result<Vec<T>> {
    prepare_each(count, one).try_collect().await
}

/// Runs all groups to their end; the first connection that breaks ends everything.
pub(crate) async fn run(groups: Vec<Group>) -> Result<Sums, ClientError> {
    let mut senders = JoinSet::new();
    let mut receivers = JoinSet::new();
    let mut receivers_of = BTreeMap::new();
    for (number, group) in groups.into_iter().enumerate() {
        let finish = Finish::default();
        receivers_of.insert(number, group.receivers.len() as u64);
        for receiver in group.receivers {
            receivers.spawn_local(receiver.run(finish.subscribe()));
        }
        senders.spawn_local(async move { (number, group.sender.run(finish).await) });
    }
    let mut sums = Sums::default();
    let mut excused = 0;
    while let Some(ended) = senders.join_next().await {
        let (number, sent) = ended.expect("a sender neither panics nor is cancelled");
        let sent = sent?;
        excused += (sent.published - sent.acknowledged) * receivers_of.get(&number).unwrap_or(&0);
        sums.add_sent(&sent);
    }
    while let Some(ended) = receivers.join_next().await {
        sums.add_received(&ended.expect("a receiver neither panics nor is cancelled")?);
    }
    // What was never acknowledged may be missing.
    sums.messages.lost = sums.messages.lost.saturating_sub(excused);
    Ok(sums)
}

impl Sums {
    fn add_sent(&mut self, sent: &Sent) {
        self.messages.sent += sent.published;
        self.messages.acknowledged += sent.acknowledged;
        self.messages.refused += sent.refused;
        self.messages.pubacks_out_of_order += sent.out_of_order;
        if self.messages.first_refusal.is_none() {
            self.messages.first_refusal.clone_from(&sent.refusal);
        }
        self.puback.merge(&sent.puback);
        self.lateness.merge(&sent.lateness);
        self.last = self.last.max(sent.last);
    }

    pub(crate) fn add_received(&mut self, received: &Received) {
        self.messages.expected += received.expected;
        self.messages.lost += received.expected.saturating_sub(received.tally.delivered);
        self.messages.add(received.tally);
        self.delivery.merge(&received.delivery);
        self.last = self.last.max(received.last);
    }

    /// The sending, and the age of what was sent, are not what a drain measures.
    pub(crate) fn write_drain_to(mut self, report: &mut Report) {
        self.delivery = Histogram::default();
        self.write_to(report);
        if let Some(messages) = &mut report.messages {
            messages.acknowledged_per_second = None;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
    pub(crate) fn write_to(mut self, report: &mut Report) {
        let per_second = |count: u64| count as f64 / report.seconds.max(1e-9);
        let acknowledged = per_second(self.messages.acknowledged);
        self.messages.acknowledged_per_second = Some(acknowledged);
        self.messages.delivered_per_second = per_second(self.messages.delivered);
        report.violations.extend(self.messages.violations());
        report.messages = Some(self.messages);
        report.latency("PUBACK", self.puback.quantiles());
        report.latency("delivery", self.delivery.quantiles());
        report.latency("own lateness", self.lateness.quantiles());
    }
}
