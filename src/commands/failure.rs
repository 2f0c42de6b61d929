//! How a command fails: what happened, what to do about it, and the exit code.

use std::{io, process::ExitCode};

use homing::{client::error::DeviceError, lifecycle::Exit, store::StoreError};

use super::output;

/// Why a command did not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failure,
            text: text.into(),
            hint: None,
        }
    }

    pub(super) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Says what to do.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// What happened.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Tells the person, and gives the code to the script.
    pub(super) fn report(&self) -> ExitCode {
        // Clean: whoever read the output has closed it, and wants nothing more.
        if self.exit != Exit::Clean {
            output::note(&format!("error: {}", self.text));
            if let Some(hint) = &self.hint {
                output::note(&format!("hint: {hint}"));
            }
        }
        self.exit.into()
    }
}

/// Output that cannot be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let failure = Self::new(format!("output: {error}"));
        if error.kind() == io::ErrorKind::BrokenPipe {
            return failure.exit(Exit::Clean);
        }
        failure
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::new(error.to_string());
        if error.is_transient() {
            failure
                .exit(Exit::Unavailable)
                .hint("does Postgres run, and is store.url right? `homing doctor` looks")
        } else {
            failure
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            DeviceError::Address(_) => failure.exit(Exit::Usage),
            DeviceError::Unreachable { .. } => failure
                .exit(Exit::Unavailable)
                .hint("start the broker with `homing serve`, or name another one with --mqtt"),
            DeviceError::Unavailable { .. } | DeviceError::Lost { .. } => failure
                .exit(Exit::Unavailable)
                .hint("try again; the broker's log and its /readyz say what it waits for"),
            DeviceError::Unauthorized { .. } => failure.exit(Exit::Refused).hint(
                "see `homing token --help`; a broker with `auth.keys` takes only tokens of those keys",
            ),
            DeviceError::Forbidden { .. } => failure
                .exit(Exit::Refused)
                .hint("`homing conversation add CID USER` lets a user take part"),
            DeviceError::Refused { .. } => failure.exit(Exit::Refused),
            DeviceError::TakenOver => failure
                .exit(Exit::Refused)
                .hint("use another --client-id, or end the other connection"),
            DeviceError::Protocol { .. } => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_a_refusal_from_an_outage() {
        let reason = || "no".to_owned();
        for (error, exit) in [
            (DeviceError::Address("x".to_owned()), Exit::Usage),
            (
                DeviceError::Unavailable { reason: reason() },
                Exit::Unavailable,
            ),
            (DeviceError::Lost { reason: reason() }, Exit::Unavailable),
            (
                DeviceError::Unauthorized { reason: reason() },
                Exit::Refused,
            ),
            (DeviceError::TakenOver, Exit::Refused),
            (DeviceError::Protocol { reason: reason() }, Exit::Failure),
        ] {
            assert_eq!(Failure::from(error).exit, exit);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit, Exit::Clean);
    }
}
