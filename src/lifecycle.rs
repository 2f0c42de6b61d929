//! Signals, the graceful stop and its deadline.
//!
//! ```text
//!   running ──first signal, stop()──▶ soft ──tasks ended──▶ foundation ──▶ gone
//!      │                               ▲ │                      │
//!      └─ a critical task panics, ─────┘ └──────────┬───────────┘
//!         fails or just ends: exit code 1           └─ second signal, deadline ──▶ hard
//! ```
//!
//! Soft: nothing new is begun, what was begun is finished. Hard: whoever still works stops
//! where it is; nothing acknowledged is lost. The foundation is what the other tasks stand
//! on while they finish: the embedded Postgres, which is told to stop after them.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::Future,
    io,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What is left after a hard stop is waited for so long, then abandoned.
const HARD_GRACE: Duration = Duration::from_secs(2);

/// How a process of Homing ends, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to do, and stopped in order.
    Clean = 0,
    /// Something went wrong that no other code names.
    Failure = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// The server understood and said no: not a participant, a bad token.
    Refused = 3,
    /// The server, or its database, cannot be reached now; trying again may help.
    Unavailable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A critical task that ended before it should have.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{task}: {reason}")]
pub struct TaskFailure {
    pub task: &'static str,
    pub reason: String,
}

/// The life of the process: its tasks, and how they are told to stop. Clones share it.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    foundation: CancellationToken,
    tasks: TaskTracker,
    foundation_tasks: TaskTracker,
    failure: Arc<OnceLock<TaskFailure>>,
    reload: Arc<Notify>,
    shutdown_timeout: Duration,
}

impl Lifecycle {
    #[must_use]
    pub fn new(shutdown_timeout: Duration) -> Self {
        Self {
            soft: CancellationToken::new(),
            hard: CancellationToken::new(),
            foundation: CancellationToken::new(),
            tasks: TaskTracker::new(),
            foundation_tasks: TaskTracker::new(),
            failure: Arc::default(),
            reload: Arc::default(),
            shutdown_timeout,
        }
    }

    /// Cancelled when the stop begins.
    #[must_use]
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when there is no more time.
    #[must_use]
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Cancelled when all tasks but those of the foundation have ended.
    #[must_use]
    pub fn foundation(&self) -> &CancellationToken {
        &self.foundation
    }

    /// The tracker of the tasks; prefer [`Lifecycle::spawn`], which names them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Notified at SIGHUP: files that are watched are read again.
    #[must_use]
    pub fn reload(&self) -> &Arc<Notify> {
        &self.reload
    }

    /// Begins the soft stop.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Ends everything where it is.
    pub fn stop_now(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Runs a task that may end whenever it likes, such as a connection. Its panic is
    /// logged and ends nothing else.
    pub fn spawn(&self, task: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(task, panic = panic_text(&*panic), "a task panicked");
            }
        });
    }

    /// Runs a task that the process cannot do without: if it panics, fails, or ends before
    /// the stop, the stop begins and the exit code says so.
    pub fn spawn_critical<E>(
        &self,
        task: &'static str,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: fmt::Display + Send + 'static,
    {
        self.tasks
            .spawn(self.clone().watched(task, self.soft.clone(), future));
    }

    /// As [`Lifecycle::spawn_critical`], for a task that goes on until
    /// [`Lifecycle::foundation`] is cancelled.
    pub fn spawn_foundation<E>(
        &self,
        task: &'static str,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: fmt::Display + Send + 'static,
    {
        self.foundation_tasks
            .spawn(self.clone().watched(task, self.foundation.clone(), future));
    }

    /// The task, and what follows from its end unless `until` was cancelled.
    async fn watched<E: fmt::Display>(
        self,
        task: &'static str,
        until: CancellationToken,
        future: impl Future<Output = Result<(), E>>,
    ) {
        let reason = match AssertUnwindSafe(future).catch_unwind().await {
            Ok(Ok(())) if until.is_cancelled() => return,
            Ok(Ok(())) => "ended although nobody stopped it".to_owned(),
            // With its sources, if the error prints them in its alternate form.
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => format!("panicked: {}", panic_text(&*panic)),
        };
        self.fail(TaskFailure { task, reason });
    }

    /// Begins the stop because of a failure; the first one is kept.
    pub fn fail(&self, failure: TaskFailure) {
        tracing::error!(
            task = failure.task,
            reason = failure.reason,
            "a critical task failed"
        );
        let _later_one = self.failure.set(failure);
        self.soft.cancel();
    }

    /// Waits for the stop and through it: until every task has ended, or the time is up.
    ///
    /// # Errors
    ///
    /// The failure that caused the stop or happened during it.
    pub async fn stopped(&self) -> Result<(), TaskFailure> {
        self.soft.cancelled().await;
        let deadline = Instant::now() + self.shutdown_timeout;
        self.finish(&self.tasks, deadline).await;
        self.foundation.cancel();
        self.finish(&self.foundation_tasks, deadline).await;
        self.outcome()
    }

    async fn finish(&self, tasks: &TaskTracker, deadline: Instant) {
        tasks.close();
        tokio::select! {
            () = tasks.wait() => return,
            () = self.hard.cancelled() => {}
            () = sleep_until(deadline) => {
                tracing::warn!(timeout = ?self.shutdown_timeout, tasks = tasks.len(), "the stop takes too long");
            }
        }
        self.hard.cancel();
        if timeout(HARD_GRACE, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "tasks were abandoned");
        }
    }

    fn outcome(&self) -> Result<(), TaskFailure> {
        self.failure
            .get()
            .map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Turns signals into soft and hard stops and reloads, for ever: run it beside what
    /// the signals should stop, `select!`ed with it.
    pub async fn follow(&self, mut signals: Signals) -> Infallible {
        loop {
            match signals.next().await {
                Received::Reload => {
                    tracing::info!("SIGHUP: reading watched files again");
                    self.reload.notify_waiters();
                }
                Received::Stop(name) if self.soft.is_cancelled() => {
                    tracing::warn!(signal = name, "second signal: stopping at once");
                    self.hard.cancel();
                }
                Received::Stop(name) => {
                    tracing::info!(signal = name, "stopping");
                    self.soft.cancel();
                }
            }
        }
    }
}

/// The signals the process listens to, from the moment they are installed.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

enum Received {
    Stop(&'static str),
    Reload,
}

impl Signals {
    /// Takes SIGINT, SIGTERM and SIGHUP, which from now on do not end the process.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Stop("SIGINT"),
            _ = self.terminate.recv() => Received::Stop("SIGTERM"),
            _ = self.hangup.recv() => Received::Reload,
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use rustix::process::{Signal as Number, getpid, kill_process};
    use tokio::time::sleep;

    use super::*;

    fn lifecycle() -> Lifecycle {
        Lifecycle::new(Duration::from_secs(20))
    }

    #[tokio::test(start_paused = true)]
    async fn a_soft_stop_waits_for_the_tasks() {
        let lifecycle = lifecycle();
        let soft = lifecycle.soft().clone();
        lifecycle.spawn("connection", async move {
            soft.cancelled().await;
            sleep(Duration::from_secs(19)).await;
        });
        lifecycle.stop();
        lifecycle.stopped().await.unwrap();
        assert!(!lifecycle.hard().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_that_takes_too_long_becomes_hard() {
        let lifecycle = lifecycle();
        let hard = lifecycle.hard().clone();
        lifecycle.spawn("stubborn", async move { hard.cancelled().await });
        lifecycle.spawn("deaf", pending());
        lifecycle.stop();
        lifecycle.stopped().await.unwrap();
        assert!(lifecycle.hard().is_cancelled());
        assert_eq!(lifecycle.tasks().len(), 1);
    }

    #[tokio::test]
    async fn a_critical_task_that_panics_fails_or_ends_stops_everything() {
        let lives = [lifecycle(), lifecycle(), lifecycle()];
        lives[0].spawn_critical::<String>("relay", async { panic!("oh no") });
        lives[1].spawn_critical("relay", async { Err("out of paper") });
        lives[2].spawn_critical::<String>("relay", async { Ok(()) });
        for (life, says) in lives
            .iter()
            .zip(["panicked: oh no", "out of paper", "nobody"])
        {
            let failure = life.stopped().await.unwrap_err().to_string();
            assert!(
                failure.starts_with("relay: ") && failure.contains(says),
                "{failure}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_foundation_stops_after_the_tasks_that_stand_on_it() {
        let lifecycle = lifecycle();
        let (soft, foundation) = (lifecycle.soft().clone(), lifecycle.foundation().clone());
        let postgres = foundation.clone();
        lifecycle.spawn_foundation::<Infallible>("postgres", async move {
            postgres.cancelled().await;
            Ok(())
        });
        lifecycle.spawn_critical("connection", async move {
            soft.cancelled().await;
            sleep(Duration::from_secs(1)).await;
            if foundation.is_cancelled() {
                Err("no ground")
            } else {
                Ok(())
            }
        });
        lifecycle.stop();
        lifecycle.stopped().await.unwrap();
        assert!(lifecycle.foundation().is_cancelled());
    }

    #[tokio::test]
    async fn an_ordinary_task_that_panics_stops_nothing() {
        let lifecycle = lifecycle();
        lifecycle.spawn("connection", async { panic!("oh no") });
        lifecycle.tasks().close();
        lifecycle.tasks().wait().await;
        assert!(!lifecycle.soft().is_cancelled());
    }

    #[tokio::test]
    async fn the_first_signal_is_soft_and_the_second_hard() {
        let lifecycle = lifecycle();
        let signals = Signals::install().unwrap();
        let reloaded = lifecycle.reload().clone();
        let steps = async {
            let reloaded = reloaded.notified();
            kill_process(getpid(), Number::HUP).unwrap();
            reloaded.await;
            assert!(!lifecycle.soft().is_cancelled());

            kill_process(getpid(), Number::TERM).unwrap();
            lifecycle.soft().cancelled().await;
            assert!(!lifecycle.hard().is_cancelled());

            kill_process(getpid(), Number::INT).unwrap();
            lifecycle.hard().cancelled().await;
        };
        tokio::select! {
            () = steps => {}
            never = lifecycle.follow(signals) => match never {},
        }
    }
}
