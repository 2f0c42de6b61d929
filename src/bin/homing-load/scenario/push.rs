//! Messages for devices that are away: how soon has each been pushed, and what does it cost?
//!
//! The server must push through something that accepts made-up tokens: the example program
//! `fake-providers` writes a profile for it.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::{
    args::{Load, Push},
    metrics::PushFigures,
    report::{Cpu, Report},
    target::Topics,
    traffic::{Group, Run, prepare},
};

/// More senders would not send faster.
const SENDERS_MAX: usize = 16;
/// How often the server is asked how many it has pushed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(run: &Run, args: &Push) -> anyhow::Result<Report> {
    let count = usize::try_from(args.devices)?;
    let senders = count.min(SENDERS_MAX);
    ensure!(
        count.is_multiple_of(senders),
        "--devices must be below {SENDERS_MAX} or a multiple of it"
    );
    let topics = prepare(count, |number| device(run, args, number, number % senders)).await?;
    let groups = prepare(senders, |number| group(run, args, &topics, number)).await?;
    let load = Load {
        seconds: 0,
        messages: Some((count / senders) as u64),
        rate: Some(args.rate),
    };
    let before = figures(run).await?;
    let (cpu_before, began) = (run.target.server.cpu(), run.clock.now());
    let mut report = run.measure("push", groups, &load).await?;
    let pushed = until_pushed(run, &before, args.devices).await?;
    let used = cpu_before.until(run.target.server.cpu());
    let span = run.clock.now() - began;
    report.cpu = Some(Cpu::new(&run.target, used, span, Some(pushed.count)));
    report.seconds = crate::clock::seconds(span);
    report.latency("commit-push", pushed.quantiles());
    if pushed.count != u64::from(args.devices) {
        let violation = format!("{} devices, {} notifications", args.devices, pushed.count);
        report.violations.push(violation);
    }
    Ok(report)
}

/// A device with its conversation, which is away.
async fn device(run: &Run, args: &Push, number: usize, sender: usize) -> anyhow::Result<Topics> {
    let (sender, device) = (format!("s{sender}"), format!("d{number}"));
    let homing = run.target.homing().context("only Homing pushes")?;
    let user = run.target.user(&device);
    let run_number = u32::from_str_radix(&run.target.run_name(), 16)?;
    let body = serde_json::json!({
        "provider": "apns", "app": args.app, "environment": "production",
        "token": format!("{run_number:08x}{number:056x}"),
    });
    homing.put_push_token(&user, &body).await?;
    run.target
        .conversation(&number.to_string(), &[sender, device])
        .await
}

/// A sender with its part of the devices, one message for each.
async fn group(run: &Run, args: &Push, topics: &[Topics], number: usize) -> anyhow::Result<Group> {
    let own = topics
        .iter()
        .skip(number)
        .step_by(topics.len().min(SENDERS_MAX));
    let own: Vec<Topics> = own.cloned().collect();
    let sender = run
        .sender(&format!("s{number}"), &own, &args.sending)
        .await?;
    Ok(Group {
        sender,
        receivers: Vec::new(),
    })
}

async fn figures(run: &Run) -> anyhow::Result<PushFigures> {
    let homing = run.target.homing().context("only Homing pushes")?;
    Ok(PushFigures::read(&homing.metrics().await?))
}

/// Waits until all have been pushed, or nothing more is.
async fn until_pushed(run: &Run, before: &PushFigures, count: u32) -> anyhow::Result<PushFigures> {
    let (mut last, mut moved_at) = (0, run.clock.now());
    loop {
        let pushed = figures(run).await?.since(before);
        if pushed.count != last {
            (last, moved_at) = (pushed.count, run.clock.now());
        }
        let is_stalled = run.clock.now() - moved_at > run.patience;
        if pushed.count >= u64::from(count) || is_stalled {
            return Ok(pushed);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
