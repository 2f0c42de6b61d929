//! `homing push check`: whether the keys of the configured apps can be used.

use clap::Args;
use homing::{config::Config, push::provider};
use serde_json::json;

use crate::commands::{failure::Failure, output};

const EXAMPLES: &str = "\
Examples:
  homing push check --config broker-config/production.toml

It reads the key files and connects nowhere. Exit code 1 if an app cannot be pushed to.";

/// Check the keys of the apps that are configured
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::commands) struct Check {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self, settings: &Config) -> Result<(), Failure> {
        let checks = provider::check(&settings.push);
        if self.json {
            let apps: Vec<_> = checks
                .iter()
                .map(|(route, outcome)| {
                    let problem = outcome.as_ref().err().map(ToString::to_string);
                    let usable = outcome.as_ref().ok();
                    json!({
                        "route": route.to_string(),
                        "problem": problem,
                        "application_server_key":
                            usable.and_then(|usable| usable.application_server_key.clone()),
                    })
                })
                .collect();
            output::json(&apps)?;
        } else {
            for (route, outcome) in &checks {
                match outcome {
                    Ok(usable) => {
                        output::line(&format!("ok    {route}"))?;
                        if let Some(key) = &usable.application_server_key {
                            output::line(&format!("      applicationServerKey {key}"))?;
                        }
                    }
                    // It names the app.
                    Err(problem) => output::line(&format!("fail  {problem}"))?,
                }
            }
        }
        if checks.is_empty() {
            return Err(Failure::new("no app is configured: nothing is pushed")
                .hint("see [push] in broker-config/default.toml"));
        }
        match checks
            .iter()
            .filter(|(_, outcome)| outcome.is_err())
            .count()
        {
            0 => Ok(()),
            1 => Err(Failure::new("one app cannot be pushed to")),
            failed => Err(Failure::new(format!("{failed} apps cannot be pushed to"))),
        }
    }
}
