//! `homing-load`: loads an MQTT broker and checks that every message arrives once, in order.
//!
//! ```text
//!   scenario/*  sets up        sender ──▶ broker ──▶ receiver      both on client, wire, inbox
//!   traffic     runs, adds up     └── window, histogram, tracker ──┘
//!   report      prints         process: CPU and memory of the server, from /proc
//! ```
//!
//! It shares its machine with the server that it measures, so it is cheap: one thread, its
//! own MQTT 3.1.1 client, packets written from templates and read where they lie.

mod args;
mod client;
mod clock;
mod histogram;
mod homing;
mod inbox;
mod metrics;
mod pacer;
mod payload;
mod process;
mod receiver;
mod report;
mod scenario;
mod sender;
mod target;
mod text;
mod tracker;
mod traffic;
mod window;
mod wire;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    rc::Rc,
};

use anyhow::Context as _;
use clap::Parser as _;
use tokio::{runtime, task::LocalSet};

use crate::{
    args::{Cli, Scenario},
    client::ClientError,
    homing::HomingError,
    report::Report,
    scenario::{fanout, idle, offline, pairs, push, receipts, storm},
    target::Target,
    traffic::Run,
};

const EXIT_VIOLATIONS: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_REFUSED: u8 = 3;
const EXIT_UNREACHABLE: u8 = 4;

fn main() -> ExitCode {
    match measure_and_print(&Cli::parse()) {
        Ok(report) if report.violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_VIOLATIONS),
        Err(error) => {
            let _ = writeln!(io::stderr(), "homing-load: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn measure_and_print(cli: &Cli) -> anyhow::Result<Report> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = LocalSet::new().block_on(&runtime, measure(cli))?;
    let text = if cli.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        report.to_string()
    };
    io::stdout()
        .write_all(text.as_bytes())
        .context("the report cannot be written")?;
    Ok(report)
}

async fn measure(cli: &Cli) -> anyhow::Result<Report> {
    let target = Target::open(&cli.target).await?;
    let run = Rc::new(Run::new(target, cli.patience));
    match &cli.scenario {
        Scenario::Pairs(args) => pairs::run(&run, args).await,
        Scenario::Fanout(args) => fanout::run(&run, args).await,
        Scenario::Idle(args) => idle::run(&run, args).await,
        Scenario::Offline(args) => offline::run(run, args).await,
        Scenario::ConnectStorm(args) => storm::run(run, args).await,
        Scenario::Push(args) => push::run(&run, args).await,
        Scenario::Receipts(args) => receipts::run(run, args).await,
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match (
        error.downcast_ref::<ClientError>(),
        error.downcast_ref::<HomingError>(),
    ) {
        (Some(error), _) if error.is_refusal() => EXIT_REFUSED,
        (_, Some(HomingError::Refused { .. })) => EXIT_REFUSED,
        (None, None) => EXIT_USAGE,
        _ => EXIT_UNREACHABLE,
    }
}
