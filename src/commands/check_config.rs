//! `homing check-config`: reads the settings as `homing serve` would.

use clap::Args;
use secrecy::SecretString;

use super::{Sources, failure::Failure, output};

const EXAMPLES: &str = "\
Examples:
  homing check-config --config broker-config/production.toml
  HOMING__MQTT__INFLIGHT_MAX=8 homing check-config --json";

/// Check the settings; print `ok`, or all of them as JSON
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckConfig {
    /// As in `homing serve`
    #[arg(long, value_name = "URL")]
    database_url: Option<SecretString>,
    /// Print the settings in force, without secrets
    #[arg(long)]
    json: bool,
}

impl CheckConfig {
    pub(super) fn run(self, sources: &Sources) -> Result<(), Failure> {
        let settings = sources.load(self.database_url)?;
        if self.json {
            output::json(&settings)?;
        } else {
            output::line("ok")?;
        }
        Ok(())
    }
}
