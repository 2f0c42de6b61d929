//! Many conversations of two: one sends, the other receives.

use crate::{
    args::Pairs,
    report::Report,
    traffic::{Group, Run, prepare},
};

pub(crate) async fn run(run: &Run, args: &Pairs) -> anyhow::Result<Report> {
    let groups = prepare(usize::try_from(args.count)?, |pair| group(run, args, pair)).await?;
    run.measure("pairs", groups, &args.load).await
}

async fn group(run: &Run, args: &Pairs, pair: usize) -> anyhow::Result<Group> {
    let (sender, receiver) = (format!("s{pair}"), format!("r{pair}"));
    let names = [sender.clone(), receiver.clone()];
    let topics = run.target.conversation(&pair.to_string(), &names).await?;
    let receivers = vec![run.subscriber(&receiver, &topics).await?];
    let sender = run.sender(&sender, &[topics], &args.sending).await?;
    Ok(Group { sender, receivers })
}
