//! `homing doctor`: what is wrong with this machine or this set-up, and the cure.

mod machine;
mod postgres;
mod setup;

use clap::Args;
use secrecy::SecretString;
use serde::Serialize;

use super::{Sources, failure::Failure, output, target::RunningBroker};

const EXAMPLES: &str = "\
Examples:
  homing doctor
  homing doctor --config broker-config/production.toml --json

Exit code 1 if anything fails; a warning is no failure.";

/// Say what is wrong with this machine or set-up, and the cure
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    /// As in `homing serve`
    #[arg(long, value_name = "URL")]
    database_url: Option<SecretString>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    subject: &'static str,
    verdict: Verdict,
    finding: String,
    /// What to do about it; empty if nothing is to be done.
    cure: String,
}

impl Check {
    fn ok(subject: &'static str, finding: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: Verdict::Ok,
            finding: finding.into(),
            cure: String::new(),
        }
    }

    fn warn(subject: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            cure: cure.into(),
            ..Self::ok(subject, finding)
        }
    }

    fn fail(subject: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            cure: cure.into(),
            ..Self::ok(subject, finding)
        }
    }

    fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let arrow = if self.cure.is_empty() { "" } else { " -> " };
        format!(
            "{verdict}  {}: {}{arrow}{}",
            self.subject, self.finding, self.cure
        )
    }
}

impl Doctor {
    pub(super) async fn run(self, sources: &Sources) -> Result<(), Failure> {
        let settings = sources.load(self.database_url)?;
        let running = RunningBroker::find(&settings.data_dir)?.filter(RunningBroker::is_alive);
        let mut checks = vec![
            machine::clock(),
            machine::open_files(&settings.mqtt),
            machine::data_dir(&settings.data_dir),
            machine::disk(&settings.data_dir),
        ];
        checks.push(postgres::check(&settings).await);
        checks.extend(setup::listeners(&settings, running.as_ref()));
        checks.extend(setup::tls(&settings.tls));
        checks.push(setup::tokens(&settings));
        if self.json {
            output::json(&checks)?;
        } else {
            for check in &checks {
                output::line(&check.line())?;
            }
        }
        match checks
            .iter()
            .filter(|check| check.verdict == Verdict::Fail)
            .count()
        {
            0 => Ok(()),
            1 => Err(Failure::new("one check failed")),
            failed => Err(Failure::new(format!("{failed} checks failed"))),
        }
    }
}
