//! Many conversations of two: one sends, the other receives.

use crate::{
    args::Pairs,
    report::Report,
    traffic::{Group, Run, prepare},
};

pub(crate) async fn run(run: &Run, args: &Pairs) -> anyhow::Result<Report> {
    let count = usize::try_from(args.count)?;
    let groups = prepare(count, |pair| group(run, args, pair)).await?;
    let report = run.measure("pairs", groups, &args.load).await?;
    let receivers: Vec<String> = (0..count).map(receiver).collect();
    args.receiving.end(run, &receivers).await?;
    Ok(report)
}

fn receiver(pair: usize) -> String {
    format!("r{pair}")
}

async fn group(run: &Run, args: &Pairs, pair: usize) -> anyhow::Result<Group> {
    let (sender, receiver) = (format!("s{pair}"), receiver(pair));
    let names = [sender.clone(), receiver.clone()];
    let topics = run.target.conversation(&pair.to_string(), &names).await?;
    let receivers = vec![
        run.subscriber(&receiver, &topics, args.receiving.session())
            .await?,
    ];
    let sender = run.sender(&sender, &[topics], &args.sending).await?;
    Ok(Group { sender, receivers })
}
