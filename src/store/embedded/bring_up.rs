//! From whatever an earlier life left behind to a database that answers.

use std::{fs, process::ExitStatus, time::Duration};

use rustix::process::Signal;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio::time::{Instant, sleep, timeout};

use super::{
    EmbeddedPostgres,
    error::{EmbeddedError, Output},
    pidfile::{self, PidFile},
    place::SOCKET_LOCK_NAME,
    postmaster::Postmaster,
    process,
};

const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Repairing after a crash takes minutes when much was written since a checkpoint, and an
/// interrupted repair begins anew; so this is only an end to what is stuck.
const READY_TIMEOUT: Duration = Duration::from_hours(1);
const STILL_WAITING_INTERVAL: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what an earlier postmaster holds may stand in the way of a new one.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(30);
/// Backends notice the death of their postmaster by themselves, unless they are busy.
const ORPHANS_QUIT_AFTER: Duration = Duration::from_secs(2);
const ORPHANS_KILL_AFTER: Duration = Duration::from_secs(7);

/// `database "homing" does not exist`.
const NO_DATABASE: &str = "3D000";
const WRONG_PASSWORD: &str = "28P01";
const DISK_FULL: &str = "53100";
/// The server is starting, stopping or has no connection to spare.
const NOT_NOW: &[&str] = &["57P01", "57P02", "57P03", "53300"];

impl EmbeddedPostgres {
    /// Adopts the postmaster that runs, or starts one, and waits until the database answers.
    pub(super) async fn bring_up(&mut self) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        loop {
            match self.attempt().await {
                Err(error) if error.is_still_in_use() && began.elapsed() < IN_USE_TIMEOUT => {
                    sleep(POLL_INTERVAL * 10).await;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        let pid = self.pid();
        self.status.send_modify(|status| status.pid = pid);
        Ok(())
    }

    async fn attempt(&mut self) -> Result<(), EmbeddedError> {
        let log_start = self.log.end();
        if self
            .postmaster
            .as_mut()
            .is_none_or(|known| known.ended().is_some())
        {
            self.postmaster = self.clear_the_way().await;
        }
        if let Some(running) = &self.postmaster {
            tracing::info!(
                pid = running.pid(),
                "adopting the Postgres that is running already"
            );
            if self.wait_ready(log_start).await?.is_none() {
                return Ok(());
            }
            // It was about to stop.
            self.clear_the_way().await;
        }
        self.log.trim();
        let log_start = self.log.end();
        let postmaster = Postmaster::spawn(&self.place, &self.binaries, &self.log)?;
        tracing::debug!(pid = postmaster.pid(), "postgres started");
        self.postmaster = Some(postmaster);
        match self.wait_ready(log_start).await? {
            None => Ok(()),
            Some(status) => Err(EmbeddedError::of_program(
                "postgres",
                status,
                self.place.home.clone(),
                self.log.tail(log_start),
            )),
        }
    }

    /// Finds the postmaster that runs. If there is none, waits until its orphans are gone:
    /// they hold its shared memory, and what they still write nobody else may touch.
    async fn clear_the_way(&self) -> Option<Postmaster> {
        let began = Instant::now();
        loop {
            if let Some(file) = PidFile::read(&self.place.pgdata)
                && let Some(postmaster) = Postmaster::adopt(&self.place, file.pid)
            {
                return Some(postmaster);
            }
            let orphans = process::of_cluster(&self.place.cluster_name);
            if orphans.is_empty() {
                break;
            }
            let waited = began.elapsed();
            if waited > ORPHANS_QUIT_AFTER {
                // With their postmaster gone, their end is that of a crash: repaired at start.
                let signal = if waited > ORPHANS_KILL_AFTER {
                    Signal::KILL
                } else {
                    Signal::QUIT
                };
                tracing::debug!(?orphans, ?signal, "backends have outlived their postmaster");
                for pid in orphans {
                    process::signal(pid, signal);
                }
            }
            sleep(POLL_INTERVAL).await;
        }
        self.remove_stale_locks();
        None
    }

    /// Postgres takes any living (or not yet collected) process of the same user for the one
    /// in its lock files; we have just seen that none is of this cluster. Where we cannot see
    /// that, it is left to Postgres.
    fn remove_stale_locks(&self) {
        if !process::has_proc() {
            return;
        }
        let locks = [
            self.place.pgdata.join(pidfile::FILE_NAME),
            self.place.socket_dir.join(SOCKET_LOCK_NAME),
        ];
        for path in locks {
            if fs::remove_file(&path).is_ok() {
                tracing::info!(path = %path.display(), "removed the lock of a killed postmaster");
            }
        }
    }

    /// Waits until the database answers. If the postmaster ends instead: its status.
    async fn wait_ready(&mut self, log_start: u64) -> Result<Option<ExitStatus>, EmbeddedError> {
        let began = Instant::now();
        let mut report_at = STILL_WAITING_INTERVAL;
        while began.elapsed() < READY_TIMEOUT {
            if began.elapsed() > report_at {
                report_at += STILL_WAITING_INTERVAL;
                tracing::info!(waited = ?began.elapsed(), log = %self.place.log.display(), "waiting for postgres");
            }
            let Some(postmaster) = &mut self.postmaster else {
                break;
            };
            if let Some(status) = postmaster.ended() {
                return Ok(Some(status));
            }
            let pid = postmaster.pid();
            let file = PidFile::read(&self.place.pgdata);
            let is_ready = file.is_some_and(|file| file.pid == pid && file.is_ready);
            if is_ready && self.database_answers().await? {
                return Ok(None);
            }
            sleep(POLL_INTERVAL).await;
        }
        Err(EmbeddedError::NotReady {
            pid: self.pid().unwrap_or_default(),
            seconds: READY_TIMEOUT.as_secs(),
            output: self.log.tail(log_start),
        })
    }

    /// Connects once; creates the database if it is not there yet.
    async fn database_answers(&self) -> Result<bool, EmbeddedError> {
        let connect = async {
            match self.options().connect().await {
                Err(sqlx::Error::Database(error))
                    if error.code().as_deref() == Some(NO_DATABASE) =>
                {
                    let mut conn = self.options().database("postgres").connect().await?;
                    conn.execute("create database homing").await?;
                    conn.close().await
                }
                Err(error) => Err(error),
                Ok(conn) => conn.close().await,
            }
        };
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => self.refused(error),
            Err(_) => Ok(false),
        }
    }

    /// Whether an unsuccessful connect is a reason to try again (`Ok`) or to give up.
    fn refused(&self, error: sqlx::Error) -> Result<bool, EmbeddedError> {
        let code = match &error {
            sqlx::Error::Io(_) => return Ok(false),
            sqlx::Error::Database(error) => error.code(),
            _ => None,
        };
        match code.as_deref() {
            Some(code) if NOT_NOW.contains(&code) => Ok(false),
            Some(WRONG_PASSWORD) => Err(EmbeddedError::Permission {
                path: self.place.password.clone(),
                problem: "is not the cluster's password: restore it from a backup".to_owned(),
                output: Output::default(),
            }),
            Some(DISK_FULL) => Err(EmbeddedError::DiskFull {
                path: self.place.home.clone(),
                output: Output::default(),
            }),
            _ => Err(EmbeddedError::Database(error)),
        }
    }
}
