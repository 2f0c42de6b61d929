//! Devices that were away come back at once: how long until each has what it missed?

use std::{process, rc::Rc};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{come_back, forget, join_all, leave_session};
use crate::{
    args::Offline,
    client::ClientError,
    clock::Nanos,
    histogram::Histogram,
    receiver::Received,
    report::{Cpu, Report},
    sender::Finish,
    target::Topics,
    traffic::{self, Group, Run, prepare},
    wire::Login,
};

/// More senders would only send faster, which is not what is measured.
const SENDERS_MAX: usize = 16;
const BUFFER_BYTES: usize = 4096;

/// What one device saw of its return.
struct Return {
    connack: Nanos,
    received: Received,
}

pub(crate) async fn run(run: Rc<Run>, args: &Offline) -> anyhow::Result<Report> {
    let count = usize::try_from(args.devices)?;
    let senders = count.min(SENDERS_MAX);
    let devices = prepare(count, |number| device(&run, number, number % senders)).await?;
    let groups = prepare(senders, |number| group(&run, args, &devices, number)).await?;
    let mut sums = traffic::run(groups).await?;
    if let Some(command) = &args.meanwhile {
        let ended = process::Command::new("sh").args(["-c", command]).status();
        let status = ended.context("sh cannot be run")?;
        anyhow::ensure!(
            status.success(),
            "what was to be done meanwhile failed: {status}"
        );
    }

    let (cpu_before, began) = (run.target.server.cpu(), run.clock.now());
    let mut returns = JoinSet::new();
    for (login, topics) in devices.iter().cloned() {
        returns.spawn_local(come_back_and_receive(
            Rc::clone(&run),
            login,
            topics,
            args.messages,
        ));
    }
    let returns: Vec<Return> = join_all(returns)
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let used = cpu_before.until(run.target.server.cpu());

    let (mut connacks, mut drains) = (Histogram::default(), Histogram::default());
    for one in &returns {
        sums.add_received(&one.received);
        connacks.record(one.connack);
        if one.received.last > began {
            drains.record(one.received.last - began);
        }
    }
    let span = returns
        .iter()
        .map(|one| one.received.last)
        .max()
        .unwrap_or(0)
        .saturating_sub(began);
    let mut report = Report::new("offline", &run.target, count, span);
    report.latency("CONNACK", connacks.quantiles());
    report.latency("drained", drains.quantiles());
    let deliveries = args.messages * count as u64;
    report.cpu = Some(Cpu::new(&run.target, used, span, Some(deliveries)));
    sums.write_drain_to(&mut report);

    let logins: Vec<Login> = devices.into_iter().map(|(login, _)| login).collect();
    forget(&run, &logins).await?;
    Ok(report)
}

/// A device with its conversation, subscribed and gone.
async fn device(run: &Run, number: usize, sender: usize) -> anyhow::Result<(Login, Topics)> {
    let (sender, device) = (format!("s{sender}"), format!("d{number}"));
    let login = run.target.login(&device)?;
    let topics = run
        .target
        .conversation(&number.to_string(), &[sender, device])
        .await?;
    leave_session(run, &login, &topics.filter).await?;
    Ok((login, topics))
}

/// A sender without receivers, for its part of the devices.
async fn group(
    run: &Run,
    args: &Offline,
    devices: &[(Login, Topics)],
    number: usize,
) -> anyhow::Result<Group> {
    let own = devices
        .iter()
        .skip(number)
        .step_by(devices.len().min(SENDERS_MAX));
    let topics: Vec<Topics> = own.map(|(_, topics)| topics.clone()).collect();
    let mut sender = run
        .sender(&format!("s{number}"), &topics, &args.sending)
        .await?;
    sender.stop.messages_max = args.messages * topics.len() as u64;
    Ok(Group {
        sender,
        receivers: Vec::new(),
    })
}

async fn come_back_and_receive(
    run: Rc<Run>,
    login: Login,
    topics: Topics,
    messages: u64,
) -> Result<Return, ClientError> {
    let (client, connack) = come_back(&run, &login, BUFFER_BYTES).await?;
    let finish = Finish::default();
    finish.send_replace(Some(messages));
    let received = run
        .receiver(client, &topics)
        .run(finish.subscribe())
        .await?;
    Ok(Return { connack, received })
}
