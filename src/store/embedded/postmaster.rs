//! The main process of Postgres: started by us, or by a homing before us.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{binaries::Binaries, error::EmbeddedError, output::Log, place::Place, process};

/// How often a process that is not our child is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Postgres itself kills what does not heed SIGQUIT after 5 s.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What differs from Postgres' own defaults, and why.
const SETTINGS: &[(&str, &str)] = &[
    // Only the socket, only its owner (and root).
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    // What is acknowledged is on the disk.
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    // One service with few connections and short, indexed queries.
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    ("max_wal_size", "1GB"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("huge_pages", "off"),
    // After the crash of one backend Postgres recovers by itself.
    ("restart_after_crash", "on"),
    // The log goes where we put it, and holds what is odd.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_checkpoints", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// Neither set up by the user's environment nor in the language of the user.
const FOREIGN_VARIABLES: &[&str] = &[
    "PGDATA",
    "PGPORT",
    "PGHOST",
    "PGUSER",
    "PGPASSWORD",
    "PGDATABASE",
    "PGOPTIONS",
    "PGTZ",
];

/// A running (or just ended) postmaster. Dropped while it runs, it is asked to stop.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: i32,
    /// None: adopted.
    child: Option<Child>,
    cluster_name: String,
}

impl Postmaster {
    pub(super) fn spawn(
        place: &Place,
        binaries: &Binaries,
        log: &Log,
    ) -> Result<Self, EmbeddedError> {
        let mut command = command(&binaries.postgres, place);
        command.arg("-D").arg(&place.pgdata);
        for (name, value) in SETTINGS {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .arg("-c")
            .arg(format!("cluster_name={}", place.cluster_name));
        command.arg("-c").arg(format!(
            "unix_socket_directories={}",
            place.socket_dir.display()
        ));
        let (stdout, stderr) = log.open()?;
        let child = command
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(EmbeddedError::io("run", &binaries.postgres))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .expect("it just started");
        Ok(Self {
            pid,
            child: Some(child),
            cluster_name: place.cluster_name.clone(),
        })
    }

    /// Takes over one that a homing before us has started; none if there is none.
    pub(super) fn adopt(place: &Place, pid: i32) -> Option<Self> {
        let cluster_name = place.cluster_name.clone();
        process::belongs_to(pid, &cluster_name).then_some(Self {
            pid,
            child: None,
            cluster_name,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Its status if it has ended. That of an adopted one nobody can know; it reads as 0.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.child {
            Some(child) => child.try_wait().ok().flatten(),
            None => (!process::belongs_to(self.pid, &self.cluster_name)).then(ExitStatus::default),
        }
    }

    /// Waits for its end. Nothing is lost if this is cancelled.
    pub(super) async fn wait(&mut self) {
        if let Some(child) = &mut self.child
            && child.wait().await.is_ok()
        {
            return;
        }
        while self.ended().is_none() {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops it in order (open transactions are rolled back, a checkpoint is written); after
    /// `deadline` at once, which the next start repairs from the log of the database.
    pub(super) async fn stop(&mut self, deadline: Duration) {
        for (signal, wait) in [(Signal::INT, deadline), (Signal::QUIT, QUIT_TIMEOUT)] {
            if self.ended().is_some() {
                return;
            }
            process::signal(self.pid, signal);
            if timeout(wait, self.wait()).await.is_ok() {
                return;
            }
            tracing::warn!(pid = self.pid, ?signal, waited = ?wait, "postgres did not stop in time");
        }
        process::signal(self.pid, Signal::KILL);
        self.wait().await;
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if self.ended().is_none() {
            process::signal(self.pid, Signal::INT);
        }
    }
}

/// A program of Postgres as the cluster's owner, away from our terminal's Ctrl-C.
pub(super) fn command(program: &Path, place: &Place) -> Command {
    let mut command = Command::new(program);
    for name in FOREIGN_VARIABLES {
        command.env_remove(name);
    }
    command
        .env("LC_ALL", "C")
        .current_dir(&place.home)
        .process_group(0)
        .stdin(Stdio::null());
    if place.owner.is_lent {
        command.uid(place.owner.uid).gid(place.owner.gid);
    }
    command
}
