//! `homing push explain`: which devices of a user a message woke, or why not.

use std::time::Duration;

use clap::Args;
use homing::{
    config::Config,
    domain::{ids::Subject, message::Sequence},
};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Common, Place};
use crate::commands::{
    failure::Failure,
    output,
    rest::{Rest, not_ours},
};

const EXAMPLES: &str = "\
Examples:
  homing push explain bob AZjzwgAAcACAAAAAAAAAAQ 17

Times count from the commit of the message.";

/// Say which devices of a user a message woke, or why not
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::commands) struct Explain {
    #[command(flatten)]
    place: Place,
    /// The sequence of the message
    #[arg(value_name = "SEQ", value_parser = sequence)]
    sequence: Sequence,
    #[command(flatten)]
    common: Common,
}

fn sequence(text: &str) -> Result<Sequence, String> {
    let number = text.parse().map_err(|_| "no number".to_owned())?;
    Sequence::new(number).map_err(|error| error.to_string())
}

/// The answer of the broker; what is not printed is left out.
#[derive(Deserialize)]
struct Report {
    user: Subject,
    seq: i64,
    committed_at: i64,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    client_id: String,
    route: Option<String>,
    decisions: Vec<Decision>,
    waiting: Option<Waiting>,
    silence: Option<String>,
}

#[derive(Deserialize)]
struct Decision {
    kind: String,
    from: i64,
    to: i64,
    outcome: String,
    reason: String,
    after_millis: i64,
    took_millis: Option<i64>,
}

#[derive(Deserialize)]
struct Waiting {
    state: String,
    due_at: i64,
    attempts: i32,
    postponed: Option<String>,
}

impl Explain {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        let conversation = self.place.conversation.to_string();
        let sequence = self.sequence.get().to_string();
        let path = [
            "v1",
            "conversations",
            &conversation,
            "messages",
            &sequence,
            "pushes",
        ];
        let user = [("user", self.place.user.as_str())];
        let answer = Rest::as_operator(self.common.target, settings)?
            .query(&path, &user)
            .await?;
        if self.common.json {
            output::json(&answer)?;
            return Ok(());
        }
        let report = Report::deserialize(&answer).map_err(|_| not_ours(&answer))?;
        for line in report.lines() {
            output::line(&output::printable(&line))?;
        }
        Ok(())
    }
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}, message {}, committed {}",
            self.user,
            self.seq,
            point(self.committed_at)
        )];
        if self.devices.is_empty() {
            lines.push("no devices".to_owned());
        }
        for device in &self.devices {
            let route = device.route.as_deref().unwrap_or("no push token");
            lines.push(format!("{} ({route})", device.client_id));
            lines.extend(device.decisions.iter().map(Decision::line));
            lines.extend(device.waiting.iter().map(|it| it.line(self.committed_at)));
            let silence = device.silence.iter();
            lines.extend(silence.map(|why| format!("  nothing: {}", why.replace('_', " "))));
        }
        lines
    }
}

impl Decision {
    fn line(&self) -> String {
        let Self {
            kind,
            from,
            to,
            outcome,
            reason,
            ..
        } = self;
        let took = self
            .took_millis
            .map_or_else(String::new, |millis| format!(", took {}", span(millis)));
        format!(
            "  +{}  {kind} {from}-{to}: {outcome}, {reason}{took}",
            span(self.after_millis)
        )
    }
}

impl Waiting {
    fn line(&self, committed_at: i64) -> String {
        let Self {
            state, attempts, ..
        } = self;
        let postponed = self
            .postponed
            .as_ref()
            .map_or_else(String::new, |rule| format!(", postponed by {rule}"));
        let due = span(self.due_at - committed_at);
        format!("  {state}: due +{due}, {attempts} failed attempts{postponed}")
    }
}

fn span(millis: i64) -> String {
    let millis = u64::try_from(millis).unwrap_or(0);
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

fn point(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| millis.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_block_for_each_device() {
        let report: Report = serde_json::from_value(serde_json::json!({
            "user": "bob", "seq": 17, "committed_at": 1_700_000_000_000_i64,
            "devices": [
                {
                    "client_id": "phone", "route": "fcm:my-project:production", "silence": null,
                    "decisions": [
                        {"kind": "wake", "from": 15, "to": 17, "outcome": "retry",
                         "reason": "HTTP 503", "after_millis": 1012, "took_millis": 230},
                        {"kind": "wake", "from": 15, "to": 17, "outcome": "postponed",
                         "reason": "quiet_hours", "after_millis": 61_000, "took_millis": null},
                    ],
                    "waiting": {"state": "backoff", "due_at": 1_700_003_600_000_i64,
                                "attempts": 1, "postponed": "quiet_hours"},
                },
                {"client_id": "lap\ntop", "route": null, "decisions": [], "waiting": null,
                 "silence": "no_token"},
            ],
        }))
        .unwrap();
        assert_eq!(
            report.lines(),
            [
                "bob, message 17, committed 2023-11-14T22:13:20Z",
                "phone (fcm:my-project:production)",
                "  +1s 12ms  wake 15-17: retry, HTTP 503, took 230ms",
                "  +1m 1s  wake 15-17: postponed, quiet_hours",
                "  backoff: due +1h, 1 failed attempts, postponed by quiet_hours",
                "lap\ntop (no push token)",
                "  nothing: no token",
            ]
        );
    }
}
