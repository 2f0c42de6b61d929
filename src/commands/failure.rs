//! How a command fails: what happened, what to do about it, and the exit code.

use std::{io, process::ExitCode};

use homing::client::error::DeviceError;

use super::output;

/// What a script can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Whoever read the output has closed it: nothing is wrong.
    ReaderGone = 0,
    /// Something went wrong here.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The server said no; repeating changes nothing.
    Refusal = 3,
    /// The server or its store cannot be reached; repeating may help.
    Outage = 4,
}

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
        if self.exit != Exit::ReaderGone {
            output::note(&format!("error: {}", self.text));
            if let Some(hint) = &self.hint {
                output::note(&format!("hint: {hint}"));
            }
        }
        ExitCode::from(self.exit as u8)
    }
}

/// Output that cannot be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let failure = Self::new(format!("output: {error}"));
        if error.kind() == io::ErrorKind::BrokenPipe {
            return failure.exit(Exit::ReaderGone);
        }
        failure
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            DeviceError::Address(_) => failure.exit(Exit::Usage),
            DeviceError::Unreachable { .. } => failure
                .exit(Exit::Outage)
                .hint("start the broker with `homing serve`, or name another one with --mqtt"),
            DeviceError::Unavailable { .. } | DeviceError::Lost { .. } => failure
                .exit(Exit::Outage)
                .hint("try again; the broker's log and its /readyz say what it waits for"),
            DeviceError::Unauthorized { .. } => failure.exit(Exit::Refusal).hint(
                "see `homing token --help`; a broker with `auth.keys` takes only tokens of those keys",
            ),
            DeviceError::Refused { .. } => failure.exit(Exit::Refusal).hint(
                "does the conversation exist, and does the user take part in it? See `homing conversation add --help`",
            ),
            DeviceError::TakenOver => failure
                .exit(Exit::Refusal)
                .hint("use another --client-id, or end the other connection"),
            DeviceError::Protocol { .. } => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_refusal_from_outage() {
        let reason = || "no".to_owned();
        for (error, exit) in [
            (DeviceError::Address("x".to_owned()), Exit::Usage),
            (DeviceError::Unavailable { reason: reason() }, Exit::Outage),
            (DeviceError::Lost { reason: reason() }, Exit::Outage),
            (
                DeviceError::Unauthorized { reason: reason() },
                Exit::Refusal,
            ),
            (DeviceError::TakenOver, Exit::Refusal),
            (DeviceError::Protocol { reason: reason() }, Exit::Failure),
        ] {
            assert_eq!(Failure::from(error).exit, exit);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit, Exit::ReaderGone);
    }
}
