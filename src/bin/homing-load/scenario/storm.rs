//! Persistent sessions with nothing new come back at once: how long until the last CONNACK?

use std::rc::Rc;

use tokio::task::JoinSet;

use super::{come_back, forget, join_all, leave_session};
use crate::{
    args::ConnectStorm,
    histogram::Histogram,
    report::{Cpu, Report},
    traffic::{Run, prepare},
    wire::Login,
};

pub(crate) async fn run(run: Rc<Run>, args: &ConnectStorm) -> anyhow::Result<Report> {
    let count = usize::try_from(args.connections)?;
    let logins: Vec<Login> = prepare(count, |number| session(&run, number)).await?;

    let (cpu_before, began) = (run.target.server.cpu(), run.clock.now());
    let mut returns = JoinSet::new();
    for login in &logins {
        let (run, login) = (Rc::clone(&run), login.clone());
        returns.spawn_local(async move { come_back(&run, &login, 0).await });
    }
    let returns = join_all(returns).await;
    let span = run.clock.now() - began;
    let used = cpu_before.until(run.target.server.cpu());

    let mut report = Report::new("connect-storm", &run.target, count, span);
    let (mut connacks, mut forgotten, mut failures) = (Histogram::default(), 0, Vec::new());
    for one in returns {
        match one {
            Ok((client, connack)) => {
                connacks.record(connack);
                forgotten += u64::from(!client.is_session_present);
            }
            Err(error) => failures.push(error),
        }
    }
    report.latency("CONNACK", connacks.quantiles());
    report.cpu = Some(Cpu::new(&run.target, used, span, None));
    if forgotten > 0 {
        report
            .violations
            .push(format!("{forgotten} sessions were forgotten"));
    }
    if let Some(first) = failures.first() {
        report.violations.push(format!(
            "{} could not come back, the first: {first}",
            failures.len()
        ));
    }
    forget(&run, &logins).await?;
    Ok(report)
}

async fn session(run: &Run, number: usize) -> anyhow::Result<Login> {
    let name = format!("d{number}");
    let login = run.target.login(&name)?;
    leave_session(run, &login, &run.target.quiet_filter(&name)).await?;
    Ok(login)
}
