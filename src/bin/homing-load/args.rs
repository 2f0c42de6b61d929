//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  homing-load pairs --seconds 10                     16 pairs at the maximum rate, broker of ./data
  homing-load --data-dir /srv/homing pairs --pairs 100 --rate 500
  homing-load --target plain --mqtt 127.0.0.1:1884 --server-pid 4711 pairs
  homing-load --json idle --connections 10000

Exit status: 0, or 1 if messages were lost, doubled, reordered or never acknowledged,
2 for a wrong command line, 3 if the server refused something, 4 if it cannot be reached.";

/// Loads an MQTT broker, checks that every message arrives once and in order, and prints figures.
#[derive(Debug, Parser)]
#[command(name = "homing-load", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Print one JSON object.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Give up on missing messages after so many seconds of silence.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) patience: u32,
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Homing's conversations, or plain topics of any other broker.
    #[arg(long, global = true, value_enum, default_value_t = TargetKind::Homing)]
    pub(crate) target: TargetKind,
    /// The MQTT address; by default Homing's own, from the data directory.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) mqtt: Option<String>,
    /// The REST address, such as `http://127.0.0.1:8080`; by default from the data directory.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) http: Option<String>,
    /// Homing's data directory: its addresses, its process and its token secret are there.
    #[arg(long, global = true, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// The user name for a plain broker.
    #[arg(long, global = true, requires = "password")]
    pub(crate) username: Option<String>,
    /// The password for a plain broker.
    #[arg(long, global = true, requires = "username")]
    pub(crate) password: Option<String>,
    /// A process of the server; its descendants count too. May be repeated.
    #[arg(long = "server-pid", global = true, value_name = "PID")]
    pub(crate) server_pids: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetKind {
    Homing,
    Plain,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// One sender and one receiver in each of many conversations.
    Pairs(Pairs),
    /// One sender and many receivers in one conversation.
    Fanout(Fanout),
    /// Many connections that do nothing: what do they cost? Start the server afresh before it.
    Idle(Idle),
    /// Devices that were away come back at once and get what they missed.
    Offline(Offline),
    /// Persistent sessions with nothing new come back at once.
    ConnectStorm(ConnectStorm),
    /// Devices that are away are pushed, each once, through fake providers.
    Push(Push),
    /// A large group reads one message; its author is told how many have.
    Receipts(Receipts),
}

/// How one sender sends.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sending {
    /// Unacknowledged publishes of each sender.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=32_000))]
    pub(crate) window: u16,
    /// Size of the body in bytes; the whole payload has 73 more.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=60_000))]
    pub(crate) bytes: u32,
}

/// How long, and how fast.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// Send for so long.
    #[arg(long, default_value_t = 10, conflicts_with = "messages")]
    pub(crate) seconds: u32,
    /// Send so many messages from each sender, instead.
    #[arg(long, value_name = "N")]
    pub(crate) messages: Option<u64>,
    /// Messages per second of all senders together; latencies then count from when a message
    /// was due. Without it: as fast as acknowledgements come.
    #[arg(long, value_name = "PER SECOND", value_parser = positive)]
    pub(crate) rate: Option<f64>,
}

/// Whether the server must keep what it has not delivered yet.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Receiving {
    /// Receivers have persistent sessions, as phones do; they end after the run.
    #[arg(long)]
    pub(crate) persistent: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Pairs {
    /// Conversations, each with a sender and a receiver.
    #[arg(id = "pairs", long = "pairs", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) receiving: Receiving,
    #[command(flatten)]
    pub(crate) sending: Sending,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fanout {
    /// Devices that receive every message.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) receivers: u32,
    #[command(flatten)]
    pub(crate) receiving: Receiving,
    #[command(flatten)]
    pub(crate) sending: Sending,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Idle {
    /// Connections, each with one subscription.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Watch the CPU for so long.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// Each connection pings twice in so many seconds; 0 is never.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) keep_alive: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Offline {
    /// Devices that were away, each in a conversation of its own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) devices: u32,
    /// Messages that each of them missed.
    #[arg(long, default_value_t = 20)]
    pub(crate) messages: u64,
    /// Run this in a shell while they are away and all is acknowledged: a crash of the server, say.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) meanwhile: Option<String>,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectStorm {
    /// Sessions that come back at once.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Push {
    /// Devices, each in a conversation of its own, with one message each.
    #[arg(long, default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) devices: u32,
    /// Messages per second of all senders together.
    #[arg(long, value_name = "PER SECOND", default_value_t = 1000.0, value_parser = positive)]
    pub(crate) rate: f64,
    /// The bundle id that the server is configured with.
    #[arg(long, default_value = "com.example.chat")]
    pub(crate) app: String,
    #[command(flatten)]
    pub(crate) sending: Sending,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Receipts {
    /// Participants beside the author.
    #[arg(long, default_value_t = 499, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) readers: u32,
    /// They read one after the other within so long.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_target_may_stand_after_the_scenario() {
        let words = [
            "homing-load",
            "pairs",
            "--rate",
            "500",
            "--target",
            "plain",
            "--json",
        ];
        let cli = Cli::try_parse_from(words).unwrap();
        assert!(cli.json && cli.target.target == TargetKind::Plain);
        assert!(Cli::try_parse_from(["homing-load", "pairs", "--rate", "0"]).is_err());
    }
}
