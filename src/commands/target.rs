//! Which broker a client command talks to, and with which token: the one that runs on the
//! data directory, unless the command line names another.

use std::{fs, io, path::Path, time::Duration};

use clap::Args;
use homing::{
    bridge::identity::{NewToken, Secret, issue},
    config::Config,
    domain::ids::Subject,
    lifecycle::Exit,
};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::failure::Failure;

/// Written by `homing serve` when it is ready, removed when it stops.
const RUNNING_FILE: &str = "running.json";
const SECRET_FILE: &str = "token.secret";
/// How long the tokens live that a client command makes for itself.
const TOKEN_TIME_TO_LIVE: Duration = Duration::from_hours(1);

/// Another broker than the one of the data directory.
#[derive(Clone, Debug, Args)]
pub(super) struct TargetArgs {
    /// The broker's MQTT address [default: that of the broker running on the data directory]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) mqtt: Option<String>,
    /// The broker's HTTP address, as in `http://127.0.0.1:8080` [default: likewise]
    #[arg(long, value_name = "URL")]
    pub(super) http: Option<String>,
    /// A token [default: one is signed with the data directory's secret]
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
}

/// The addresses of a running broker.
#[derive(Debug, Deserialize)]
pub(super) struct RunningBroker {
    pub(super) mqtt: String,
    pub(super) http: String,
    pub(super) pid: u32,
}

impl RunningBroker {
    /// Reads what a broker has left in its data directory; it may have ended since.
    pub(super) fn find(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let path = data_dir.join(RUNNING_FILE);
        let unreadable =
            |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
        match fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).map(Some).map_err(|error| unreadable(&error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&error)
                .hint("run the command as the user who runs the broker, or use --mqtt, --http and --token")),
        }
    }
}

impl RunningBroker {
    /// Whether its process is still there.
    pub(super) fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // Somebody else's process cannot be asked, but is there.
        pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
    }
}

/// The broker to talk to.
#[derive(Debug)]
pub(super) struct Target {
    args: TargetArgs,
    settings: Config,
}

impl Target {
    pub(super) fn new(args: TargetArgs, settings: Config) -> Self {
        Self { args, settings }
    }

    /// `host:port` of the MQTT listener, looked up anew each time: a broker that was started
    /// again may have another.
    pub(super) fn mqtt(&self) -> Result<String, Failure> {
        match &self.args.mqtt {
            Some(address) => Ok(address.clone()),
            None => Ok(self.running()?.mqtt),
        }
    }

    /// The URL of the HTTP listener.
    pub(super) fn http(&self) -> Result<String, Failure> {
        match &self.args.http {
            Some(url) => Ok(url.clone()),
            None => Ok(self.running()?.http),
        }
    }

    /// A token for a user: the given one, or a new one.
    pub(super) fn user_token(&self, subject: &Subject) -> Result<String, Failure> {
        match &self.args.token {
            Some(token) => Ok(token.clone()),
            None => sign(&self.settings, subject, TOKEN_TIME_TO_LIVE, Scope::User),
        }
    }

    /// A token that may administer.
    pub(super) fn admin_token(&self, subject: &Subject) -> Result<String, Failure> {
        match &self.args.token {
            Some(token) => Ok(token.clone()),
            None => sign(&self.settings, subject, TOKEN_TIME_TO_LIVE, Scope::Admin),
        }
    }

    /// Whether a new token can be had when the old one has expired.
    pub(super) fn signs_tokens(&self) -> bool {
        self.args.token.is_none()
    }

    fn running(&self) -> Result<RunningBroker, Failure> {
        let data_dir = &self.settings.data_dir;
        RunningBroker::find(data_dir)?.ok_or_else(|| {
            Failure::new(format!("no broker runs on the data directory {}", data_dir.display()))
                .exit(Exit::Unavailable)
                .hint("start one with `homing serve`, find it with --data-dir, or name it with --mqtt, --http and --token")
        })
    }
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    User,
    Admin,
}

/// Signs a token with the secret of the data directory.
pub(super) fn sign(
    settings: &Config,
    subject: &Subject,
    time_to_live: Duration,
    scope: Scope,
) -> Result<String, Failure> {
    if let Some(keys) = &settings.auth.keys {
        return Err(Failure::new(format!(
            "this broker believes only tokens signed by the keys of {}",
            keys.display()
        ))
        .hint("give a token of theirs with --token"));
    }
    let data_dir = &settings.data_dir;
    if !data_dir.join(SECRET_FILE).exists() {
        return Err(Failure::new(format!("{} holds no {SECRET_FILE}", data_dir.display())).hint(
            "`homing serve` makes it at its first start; find the data directory with --data-dir",
        ));
    }
    let secret = Secret::open(data_dir).map_err(|error| Failure::new(error.to_string()))?;
    let token = NewToken {
        subject,
        time_to_live,
        is_admin: scope == Scope::Admin,
        issuer: settings.auth.issuer.as_deref(),
        audience: settings.auth.audience.as_deref(),
    };
    let now_unix = OffsetDateTime::now_utc().unix_timestamp();
    Ok(issue(&secret, &token, u64::try_from(now_unix).unwrap_or(0)))
}
