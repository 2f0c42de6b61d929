//! Connections that only exist: what they cost in memory and CPU.

use std::{pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use tokio::{
    task::JoinSet,
    time::{Instant, interval_at, sleep},
};

use crate::{
    args::Idle,
    client::{Client, ClientError},
    report::{Cpu, Memory, Report},
    traffic::{Run, prepare_each},
    wire::{self, Session},
};

/// What the server allocates only while connections open may be freed again.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn run(run: &Run, args: &Idle) -> anyhow::Result<Report> {
    let count = usize::try_from(args.connections)?;
    let before = run.target.server.resident();
    let began = run.clock.now();
    let mut connections = JoinSet::new();
    let mut opening = pin!(prepare_each(count, |number| connect(run, args, number)));
    while let Some(client) = opening.try_next().await? {
        connections.spawn_local(hold(client, args.keep_alive));
    }
    let span = run.clock.now() - began;
    sleep(SETTLE).await;
    let after = run.target.server.resident();
    let (cpu_before, watched_from) = (run.target.server.cpu(), run.clock.now());
    sleep(Duration::from_secs(args.seconds.into())).await;
    let used = cpu_before.until(run.target.server.cpu());

    let mut report = Report::new("idle", &run.target, count, span);
    report.cpu = Some(Cpu::new(
        &run.target,
        used,
        run.clock.now() - watched_from,
        None,
    ));
    report.memory = before
        .zip(after)
        .map(|(before, after)| Memory::new(before, after, count));
    let (mut closed, mut first) = (0, None);
    while let Some(ended) = connections.try_join_next() {
        closed += 1;
        first = first.or(ended.ok().and_then(Result::err));
    }
    if let Some(error) = first {
        report.violations.push(format!(
            "{closed} idle connections ended, the first: {error}"
        ));
    }
    Ok(report)
}

async fn connect(run: &Run, args: &Idle, number: usize) -> anyhow::Result<Client> {
    let name = format!("i{number}");
    let mut login = run.target.login(&name)?;
    login.keep_alive_seconds = args.keep_alive;
    let mut client = Client::connect(run.target.address, &login, Session::Clean, 0).await?;
    client.subscribe(&run.target.quiet_filter(&name)).await?;
    Ok(client)
}

/// Pings and waits, until the server ends it.
async fn hold(mut client: Client, keep_alive_seconds: u16) -> Result<(), ClientError> {
    let is_pinging = keep_alive_seconds > 0;
    let period = Duration::from_secs(u64::from(keep_alive_seconds.max(1))) / 2;
    let mut pings = interval_at(Instant::now() + period, period);
    loop {
        tokio::select! {
            filled = client.fill() => {
                filled?;
                while client.inbox.take()?.is_some() {}
            }
            _ = pings.tick(), if is_pinging => {
                client.out.extend_from_slice(&wire::PINGREQ);
                client.flush().await?;
            }
        }
    }
}
