//! Why the embedded Postgres could not be started, and what to do about it.

use std::{fmt, io, path::PathBuf, process::ExitStatus};

/// Every variant says in its text what to do; [`Output`] carries Postgres' own words.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no initdb and postgres of version {minimum} or newer in {searched}: install them (apt-get install postgresql), set store.pg_bin_dir to their folder, or set store.url to a Postgres of your own",
        minimum = super::binaries::MAJOR_MIN
    )]
    BinariesMissing { searched: String },
    #[error(
        "the cluster in {} was made by Postgres {cluster}, but only {found} is installed: install Postgres {cluster} or set store.pg_bin_dir to it; moving to a newer version needs pg_upgrade or a dump",
        .path.display()
    )]
    OtherVersion {
        path: PathBuf,
        cluster: String,
        found: String,
    },
    #[error(
        "{} is in use by another homing process{}: stop it, or choose another --data-dir",
        .data_dir.display(),
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked { data_dir: PathBuf, pid: Option<i32> },
    #[error("no space left on the disk of {}: free some and start again{output}", .path.display())]
    DiskFull { path: PathBuf, output: Output },
    #[error("{}: {problem}{output}", .path.display())]
    Permission {
        path: PathBuf,
        problem: String,
        output: Output,
    },
    #[error(
        "the cluster in {} is damaged: keep a copy of the folder, then restore a backup; the last resort is pg_resetwal{output}",
        .path.display()
    )]
    Corrupt { path: PathBuf, output: Output },
    #[error("{program} ended with {status}{output}")]
    Failed {
        program: &'static str,
        status: ExitStatus,
        output: Output,
    },
    #[error("postgres (pid {pid}) was not ready after {seconds} s{output}")]
    NotReady {
        pid: i32,
        seconds: u64,
        output: Output,
    },
    #[error("{} is missing, though the cluster was already made: {cure}", .path.display())]
    Incomplete { path: PathBuf, cure: &'static str },
    #[error(
        "postgres does not run as root, and there is neither a user `postgres` nor `nobody`: add one, or start homing as an ordinary user"
    )]
    NoUser,
    #[error("embedded postgres")]
    Database(#[source] sqlx::Error),
    #[error("{action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl EmbeddedError {
    /// An I/O error with what was done to which file; a full disk and missing rights are
    /// told apart.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                path,
                output: Output::default(),
            },
            io::ErrorKind::PermissionDenied => Self::Permission {
                path,
                problem: format!("{action}: {source}; give the user of homing rights to it"),
                output: Output::default(),
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// What the words of a program that ended mean.
    pub(super) fn of_program(
        program: &'static str,
        status: ExitStatus,
        path: PathBuf,
        output: Output,
    ) -> Self {
        let says = |needles: &[&str]| needles.iter().any(|needle| output.0.contains(needle));
        if says(&["No space left on device", "Disk quota exceeded"]) {
            Self::DiskFull { path, output }
        } else if says(DAMAGE) {
            Self::Corrupt { path, output }
        } else if says(&[
            "ermission denied",
            "has wrong ownership",
            "has invalid permissions",
        ]) {
            let problem = "wrong owner or rights: the folder and all in it must belong to the user that runs postgres, mode 0700".to_owned();
            Self::Permission {
                path,
                problem,
                output,
            }
        } else {
            Self::Failed {
                program,
                status,
                output,
            }
        }
    }

    /// Orphans of an earlier postmaster still hold its shared memory: it passes.
    pub(super) fn is_still_in_use(&self) -> bool {
        let held = [
            "is still in use",
            "\"postmaster.pid\" already exists",
            ".lock\" already exists",
        ];
        matches!(self, Self::Failed { output, .. } if held.iter().any(|held| output.0.contains(held)))
    }
}

/// How Postgres says that files are not what they should be.
const DAMAGE: &[&str] = &[
    "could not locate a valid checkpoint record",
    "could not locate required checkpoint record",
    "invalid checkpoint record",
    "is not a valid data directory",
    "database files are incompatible with server",
    "incorrect checksum in control file",
    "calculated CRC checksum does not match",
    "bogus data in lock file",
    "could not open file \"global/pg_control\"",
    "could not open file \"global/pg_filenode.map\"",
    "could not read file \"global/pg_control\"",
];

/// The last lines that a program wrote.
#[derive(Clone, Debug, Default)]
pub struct Output(String);

impl Output {
    const LINES_MAX: usize = 15;

    pub(super) fn tail_of(text: &str) -> Self {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        Self(lines[lines.len().saturating_sub(Self::LINES_MAX)..].join("\n"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; its last words:")?;
        self.0
            .lines()
            .try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn of_words(words: &str) -> EmbeddedError {
        let output = Output::tail_of(words);
        EmbeddedError::of_program("postgres", ExitStatus::from_raw(256), "/d".into(), output)
    }

    #[test]
    fn words_of_postgres_become_reasons() {
        let full = "FATAL:  could not write lock file \"postmaster.pid\": No space left on device";
        assert!(matches!(of_words(full), EmbeddedError::DiskFull { .. }));
        let damaged = "PANIC:  could not locate a valid checkpoint record";
        assert!(matches!(of_words(damaged), EmbeddedError::Corrupt { .. }));
        let owner = "FATAL:  data directory \"/d\" has wrong ownership";
        assert!(matches!(of_words(owner), EmbeddedError::Permission { .. }));
        let held = "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use";
        assert!(of_words(held).is_still_in_use());
    }

    #[test]
    fn an_error_shows_the_last_lines_only() {
        let words: Vec<String> = (1..=40).map(|line| format!("line {line}\n")).collect();
        let text = of_words(&words.join("\n")).to_string();
        assert!(
            text.contains("| line 40") && text.contains("| line 26"),
            "{text}"
        );
        assert!(!text.contains("| line 25"), "{text}");
    }

    #[test]
    fn a_full_disk_is_its_own_reason() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = EmbeddedError::io("write", "/d/x")(full);
        assert!(matches!(error, EmbeddedError::DiskFull { .. }), "{error}");
    }
}
