//! `postmaster.pid`, as Postgres writes it into its data directory.

use std::{fs, path::Path};

pub(super) const FILE_NAME: &str = "postmaster.pid";

/// What the file says; it may be older than what is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: i32,
    pub(super) is_ready: bool,
}

impl PidFile {
    pub(super) fn read(pgdata: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(pgdata.join(FILE_NAME)).ok()?)
    }

    /// Line 1 is the pid; line 8, written last, the state.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|&pid| pid > 1)?;
        let is_ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
        Some(Self { pid, is_ready })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_ready_by_its_eighth_line() {
        let text = "4711\n/d\n1795363000\n5432\n/d/run\n\n  123  456\nready   \n";
        assert_eq!(
            PidFile::parse(text),
            Some(PidFile {
                pid: 4711,
                is_ready: true
            })
        );
        let starting = text.replace("ready   ", "starting");
        assert_eq!(
            PidFile::parse(&starting),
            Some(PidFile {
                pid: 4711,
                is_ready: false
            })
        );
        assert_eq!(
            PidFile::parse("4711\n").map(|file| file.is_ready),
            Some(false)
        );
        assert_eq!(PidFile::parse("garbage\n"), None);
        assert_eq!(PidFile::parse("-1\n"), None);
    }
}
