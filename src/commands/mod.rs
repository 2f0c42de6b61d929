//! The command line: one file per command, and what they share.
//!
//! Results go to stdout, everything else to stderr. A script can tell by the exit code what
//! happened: see [`homing::lifecycle::Exit`].

mod check_config;
mod conversation;
mod doctor;
mod failure;
mod migrate;
mod output;
mod push;
mod rest;
mod send;
mod serve;
mod tail;
mod target;
mod token;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use failure::Failure;
use homing::config::{Config, Overrides};
use secrecy::SecretString;

const EXAMPLES: &str = "\
Examples:
  homing serve                                    a broker with its own Postgres in ./data
  homing conversation create alice bob            prints the conversation id
  homing tail CID --user bob --client-id phone    what bob's phone receives
  homing send CID 'on my way' --user alice        returns when the message is stored
  homing push explain bob CID 17                  which devices a message woke, or why not
  homing doctor                                   what is wrong with this machine

Exit codes: 0 done, 1 failure, 2 usage, 3 refused by the server, 4 no server or no store.
Settings come from --config FILE and from the environment, as in HOMING__MQTT__LISTEN=127.0.0.1:0;
`homing check-config --json` shows them all.";

/// A messaging broker: plain MQTT in front, Postgres behind, every acknowledged message stored.
#[derive(Debug, Parser)]
#[command(name = "homing", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Command,
}

/// Where the settings come from, besides the environment.
#[derive(Debug, Args)]
struct Sources {
    /// The data directory: embedded Postgres, token secret, addresses of the running broker
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings that override the defaults (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Token(token::Token),
    #[command(subcommand)]
    Conversation(conversation::Conversation),
    Send(send::Send),
    #[command(subcommand)]
    Push(push::Push),
    Tail(tail::Tail),
    Migrate(migrate::Migrate),
    CheckConfig(check_config::CheckConfig),
    Doctor(doctor::Doctor),
}

/// Runs the command that the process was started with.
pub(crate) async fn run() -> ExitCode {
    let Cli { sources, command } = Cli::parse();
    match Box::pin(dispatch(&sources, command)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(sources: &Sources, command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(serve) => serve.run(sources).await,
        Command::Token(token) => token.run(&sources.load(None)?),
        Command::Conversation(conversation) => conversation.run(sources.load(None)?).await,
        Command::Send(send) => send.run(sources.load(None)?).await,
        Command::Push(push) => push.run(sources.load(None)?).await,
        Command::Tail(tail) => tail.run(sources.load(None)?).await,
        Command::Migrate(migrate) => migrate.run(sources).await,
        Command::CheckConfig(check_config) => check_config.run(sources),
        Command::Doctor(doctor) => doctor.run(sources).await,
    }
}

impl Sources {
    fn load(&self, database_url: Option<SecretString>) -> Result<Config, Failure> {
        let overrides = Overrides {
            data_dir: self.data_dir.clone(),
            database_url,
        };
        Config::from_process(self.config.as_deref(), overrides).map_err(|error| {
            Failure::new(format!("settings: {error}"))
                .hint("broker-config/default.toml explains every setting")
        })
    }
}
