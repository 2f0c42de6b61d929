//! `homing push mute`: no notifications about a conversation for one user.

use std::time::Duration;

use clap::Args;
use homing::config::Config;
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Common, Place};
use crate::commands::{
    failure::Failure,
    output,
    rest::{Rest, not_ours},
};

const EXAMPLES: &str = "\
Examples:
  homing push mute bob AZjzwgAAcACAAAAAAAAAAQ --for 8h
  homing push mute bob AZjzwgAAcACAAAAAAAAAAQ --off";

/// Mute a conversation for one of its participants, or end that
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::commands) struct Mute {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    how_long: HowLong,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct HowLong {
    /// For so long
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Until it is ended
    #[arg(long)]
    forever: bool,
    /// Not any more
    #[arg(long)]
    off: bool,
}

impl Mute {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        let muted_until = match self.how_long.duration {
            Some(duration) => json!(after(duration)),
            None if self.how_long.forever => json!("forever"),
            None => Value::Null,
        };
        let conversation = self.place.conversation.to_string();
        let path = ["v1", "conversations", &conversation, "notifications"];
        let body = json!({ "muted_until": muted_until });
        let answer = Rest::as_user(self.common.target, settings, &self.place.user)?
            .request(Method::PUT, &path, Some(&body))
            .await?;
        if self.common.json {
            output::json(&answer)?;
        } else {
            output::line(&told(&answer).ok_or_else(|| not_ours(&answer))?)?;
        }
        Ok(())
    }
}

/// In milliseconds since 1970.
fn after(duration: Duration) -> i64 {
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let duration = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    i64::try_from(now)
        .unwrap_or_default()
        .saturating_add(duration)
}

/// The answer in words.
fn told(answer: &Value) -> Option<String> {
    let muted_until = answer.get("muted_until")?;
    if muted_until.is_null() {
        return Some("not muted".to_owned());
    }
    if muted_until == "forever" {
        return Some("muted".to_owned());
    }
    let nanos = i128::from(muted_until.as_i64()?) * 1_000_000;
    let until = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some(format!("muted until {}", until.format(&Rfc3339).ok()?))
}
