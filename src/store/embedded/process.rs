//! Processes that are not (or no longer) our children: who lives, and whose they are.
//!
//! Every process of a cluster carries its `cluster_name` in its command line, which anyone
//! may read; so orphans are found without rights to look into them. Where there is no
//! `/proc`, only the pid is known, and Postgres' own interlocks decide.

use std::{fs, path::Path};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, test_kill_process},
};

/// Whether the process runs. One that has ended but was not yet collected does not.
pub(super) fn is_alive(pid: i32) -> bool {
    let Some(known) = Pid::from_raw(pid) else {
        return false;
    };
    if test_kill_process(known) == Err(Errno::SRCH) {
        return false;
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return !has_proc();
    };
    // The name in parentheses may hold anything; the state follows the last one.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// Whether the process runs and belongs to this cluster.
pub(super) fn belongs_to(pid: i32, cluster_name: &str) -> bool {
    if !is_alive(pid) {
        return false;
    }
    if !has_proc() {
        return true;
    }
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    read("comm").trim_ascii() == b"postgres"
        && String::from_utf8_lossy(&read("cmdline")).contains(cluster_name)
}

/// Every process of this cluster, the postmaster and its backends alike.
pub(super) fn of_cluster(cluster_name: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| belongs_to(pid, cluster_name))
        .collect()
}

/// Sends a signal; a process that is gone is no error.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(known) = Pid::from_raw(pid)
        && let Err(error) = kill_process(known, signal)
    {
        tracing::debug!(%error, pid, ?signal, "a signal was not delivered");
    }
}

/// Whether processes can be looked at.
pub(super) fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn an_ended_process_is_not_alive_even_before_it_is_collected() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(is_alive(pid));
        assert!(!belongs_to(pid, "homing"));

        child.kill().unwrap();
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_raw(pid).unwrap()), ended).unwrap();

        assert!(!is_alive(pid));
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }
}
