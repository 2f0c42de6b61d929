//! `homing push`: who can be woken, who is left alone, whether notifications could leave, and
//! what became of them.

mod check;
mod explain;
mod mute;
mod register;

use clap::{Args, Subcommand};
use homing::{
    config::Config,
    domain::ids::{ConversationId, Subject},
};

use super::{failure::Failure, target::TargetArgs};

/// Explain what a message did, register devices, mute conversations, check the apps
#[derive(Debug, Subcommand)]
pub(super) enum Push {
    Explain(explain::Explain),
    Register(register::Register),
    Mute(mute::Mute),
    Check(check::Check),
}

/// A user in a conversation.
#[derive(Debug, Args)]
struct Place {
    /// The user
    user: Subject,
    /// The conversation
    #[arg(value_name = "CID")]
    conversation: ConversationId,
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Push {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        match self {
            Self::Explain(explain) => explain.run(settings).await,
            Self::Register(register) => register.run(settings).await,
            Self::Mute(mute) => mute.run(settings).await,
            Self::Check(check) => check.run(&settings),
        }
    }
}
