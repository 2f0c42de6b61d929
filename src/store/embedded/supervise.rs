//! While the program runs: Postgres that ends is started again.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::EmbeddedPostgres;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Up for so long, the next end is a new misfortune and no part of the last.
const STEADY_AFTER: Duration = Duration::from_mins(1);
const TRIM_INTERVAL: Duration = Duration::from_mins(1);

/// What is known of the postmaster right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// None while it is not up.
    pub pid: Option<i32>,
    /// How often it had to be started again.
    pub restarts: u64,
    /// How often that did not succeed.
    pub failed_starts: u64,
}

/// Shows whether the supervised Postgres is up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EmbeddedHandle {
    status: watch::Receiver<Status>,
}

impl EmbeddedHandle {
    pub(super) fn new(status: watch::Receiver<Status>) -> Self {
        Self { status }
    }

    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Waits until the status is as wanted; none if the supervision has ended before.
    pub async fn until(&mut self, is_wanted: impl Fn(&Status) -> bool) -> Option<Status> {
        self.status
            .wait_for(is_wanted)
            .await
            .ok()
            .map(|status| *status)
    }
}

impl EmbeddedPostgres {
    /// Keeps Postgres running until `shutdown`, then stops it within `stop_deadline`. A
    /// start that fails is tried again for ever: what it lacks (disk, memory) may come back,
    /// and until then the rest of the program says that the store is away.
    pub async fn supervise(mut self, shutdown: CancellationToken, stop_deadline: Duration) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep_up() => {}
        }
        self.shut_down(stop_deadline).await;
        tracing::info!("postgres stopped");
    }

    /// Never returns. Cancelled anywhere, it leaves the newest postmaster in `self`.
    async fn keep_up(&mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            self.until_it_ends().await;
            self.status.send_modify(|status| status.pid = None);
            if began.elapsed() > STEADY_AFTER {
                pause = Duration::ZERO;
            }
            tracing::error!(?pause, log = %self.place.log.display(), "postgres ended unexpectedly; starting it again");
            loop {
                sleep(pause).await;
                pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                match self.bring_up().await {
                    Ok(()) => break,
                    Err(error) => {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        tracing::error!(error, ?pause, "postgres does not start");
                        self.status.send_modify(|status| status.failed_starts += 1);
                    }
                }
            }
            self.status.send_modify(|status| status.restarts += 1);
            tracing::info!(pid = self.pid(), "postgres is up again");
        }
    }

    async fn until_it_ends(&mut self) {
        let Some(postmaster) = &mut self.postmaster else {
            return;
        };
        let mut trim = interval(TRIM_INTERVAL);
        loop {
            tokio::select! {
                () = postmaster.wait() => return,
                _ = trim.tick() => self.log.trim(),
            }
        }
    }
}
