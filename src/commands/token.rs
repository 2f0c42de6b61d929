//! `homing token`: signs a token for a user.

use std::time::Duration;

use clap::Args;
use homing::{config::Config, domain::ids::Subject};
use serde_json::json;

use super::{
    failure::Failure,
    output,
    target::{Scope, sign},
};

const EXAMPLES: &str = "\
Examples:
  homing token --user alice
  mosquitto_sub -V mqttv5 -u bob -P \"$(homing token --user bob)\" -i phone -c -q 1 -t 'c/#'
  curl -H \"Authorization: Bearer $(homing token --user ops --admin --ttl 5m)\" http://127.0.0.1:8080/metrics";

/// Print a token for a user, signed with the data directory's secret
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Token {
    /// The user it speaks for
    #[arg(long)]
    user: Subject,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Let it administer: every conversation, every user
    #[arg(long)]
    admin: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Token {
    pub(super) fn run(&self, settings: &Config) -> Result<(), Failure> {
        let scope = if self.admin {
            Scope::Admin
        } else {
            Scope::User
        };
        let token = sign(settings, &self.user, self.ttl, scope)?;
        if self.json {
            let seconds = self.ttl.as_secs();
            output::json(&json!({ "token": token, "user": self.user, "expires_in": seconds }))?;
        } else {
            output::line(&token)?;
        }
        Ok(())
    }
}
