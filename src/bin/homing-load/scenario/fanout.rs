//! One conversation: one sends, many receive.

use std::{iter, slice};

use crate::{
    args::Fanout,
    report::Report,
    traffic::{Group, Run, prepare},
};

const SENDER: &str = "s";

pub(crate) async fn run(run: &Run, args: &Fanout) -> anyhow::Result<Report> {
    let count = usize::try_from(args.receivers)?;
    let receivers: Vec<String> = (0..count).map(|number| format!("r{number}")).collect();
    let names: Vec<String> = iter::once(SENDER.to_owned())
        .chain(receivers.clone())
        .collect();
    let topics = run.target.conversation("all", &names).await?;

    let session = args.receiving.session();
    let listening = prepare(count, |number| {
        run.subscriber(&receivers[number], &topics, session)
    })
    .await?;
    let sender = run
        .sender(SENDER, slice::from_ref(&topics), &args.sending)
        .await?;
    let group = Group {
        sender,
        receivers: listening,
    };
    let report = run.measure("fanout", vec![group], &args.load).await?;
    args.receiving.end(run, &receivers).await?;
    Ok(report)
}
