//! One worker for each app: claims jobs that are due, sends, and writes down what became of
//! them.
//!
//! A job that is claimed is leased: should this process die, another one sends the same
//! notification again, under the same id, when the lease is over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answers, label},
    breaker::Breaker,
    compose::{Composed, compose},
    notification::Outcome,
    provider::Client,
};
use crate::{
    config::PushConfig,
    domain::push::Route,
    store::{
        StoreError,
        push::{
            arm::Graces,
            finish::{self, Finished, JobResult},
            jobs::{self, Claim, Job},
            upkeep,
        },
    },
    telemetry::metrics::{ProviderLabels, PushMetrics},
};

/// How long an answer waits for others to be written down with it.
const GATHER: Duration = Duration::from_millis(50);

/// So many answers do not wait for others.
const FINISHED_MAX: usize = 100;

/// Tokens that died longer ago, before the process started, do not count against the app.
const RECALL_MAX: Duration = Duration::from_hours(1);

/// What a worker is made of.
pub(super) struct Worker {
    pub(super) pool: PgPool,
    pub(super) config: Arc<PushConfig>,
    pub(super) route: Route,
    pub(super) client: Arc<Client>,
    /// Something may be due.
    pub(super) wake: Arc<Notify>,
    pub(super) metrics: PushMetrics,
    pub(super) graces: Graces,
}

/// A request that has ended.
struct Answered {
    job: Job,
    /// Which of the device's tokens was used.
    token: String,
    outcome: Outcome,
    is_background: bool,
}

/// What is left after a claim.
enum Due {
    Nothing,
    More,
    /// Something that could not be had now: another worker is at it, or it has just ended.
    Elsewhere,
}

/// What a worker holds while it runs.
struct Running {
    worker: Worker,
    answers: Answers,
    requests: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Not written down yet, since when.
    finished: Vec<Finished>,
    finished_since: Option<Instant>,
    /// When the store is to be looked at.
    look_at: Instant,
    /// It is known what an earlier process was told.
    has_recalled: bool,
}

impl Worker {
    /// Works until `stop` is cancelled, and then until the requests in flight have ended.
    pub(super) async fn run(self, stop: CancellationToken) {
        let now = now();
        let answers = Answers::new(&self.config, self.route.clone(), self.metrics.clone(), now);
        let mut running = Running {
            worker: self,
            answers,
            requests: FuturesUnordered::new(),
            finished: Vec::new(),
            finished_since: None,
            look_at: now,
            has_recalled: false,
        };
        loop {
            running.write_down(stop.is_cancelled()).await;
            if stop.is_cancelled() {
                if running.requests.is_empty() {
                    return;
                }
            } else {
                running.claim().await;
            }
            running.wait(&stop).await;
        }
    }
}

impl Running {
    /// Until a request has ended, the store is to be looked at, or the end is near.
    async fn wait(&mut self, stop: &CancellationToken) {
        let has_requests = !self.requests.is_empty();
        let is_stopping = stop.is_cancelled();
        if is_stopping && !has_requests {
            return;
        }
        let next = self.next_moment(is_stopping);
        let answered = tokio::select! {
            answered = self.requests.next(), if has_requests => answered,
            () = self.worker.wake.notified() => {
                self.look_at = now();
                None
            }
            () = tokio::time::sleep_until(next.into()) => None,
            () = stop.cancelled(), if !is_stopping => None,
        };
        let mut next = answered;
        while let Some(answered) = next {
            self.take(answered);
            next = self.requests.next().now_or_never().flatten();
        }
    }

    fn next_moment(&self, is_stopping: bool) -> Instant {
        let gathered = self.finished_since.map(|since| since + GATHER);
        let look = (!is_stopping && self.has_room()).then_some(self.look_at);
        let far = now() + self.worker.config.request_timeout;
        [gathered, look].into_iter().flatten().min().unwrap_or(far)
    }

    /// Few large claims cost less than many small ones.
    fn has_room(&self) -> bool {
        self.requests.len() <= self.worker.config.concurrency.get() / 2
    }

    async fn claim(&mut self) {
        let now = now();
        if now < self.look_at || !self.has_room() {
            return;
        }
        if let Some(until) = self.answers.paused_until(now) {
            self.look_at = until;
            return;
        }
        let room = self.worker.config.concurrency.get() - self.requests.len();
        let limit = room
            .min(self.worker.config.claim_jobs_max.get() as usize)
            .min(self.answers.allowance(now));
        if limit == 0 {
            self.look_at = now + self.answers.next();
            return;
        }
        match self.try_claim(limit).await {
            Ok(Due::More) => {}
            Ok(Due::Elsewhere) => self.look_at = now + GATHER,
            Ok(Due::Nothing) => self.look_at = now + self.worker.config.poll_interval,
            Err(error) => {
                self.worker.metrics.store_failures.inc();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    route = %self.worker.route,
                    "notifications wait"
                );
                self.look_at = now + self.worker.config.poll_interval;
            }
        }
    }

    async fn try_claim(&mut self, limit: usize) -> Result<Due, StoreError> {
        let worker = &self.worker;
        let config = &worker.config;
        let route = worker.route.to_string();
        let claim = Claim {
            route: &route,
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            lease: config.lease,
            graces: worker.graces,
            has_badge: config.badge,
            budget_burst: config.budget_burst.get(),
            budget_interval: config.budget_interval,
            time_to_live: config.time_to_live,
        };
        let mut conn = worker.pool.acquire().await?;
        if !self.has_recalled {
            let (window, age_max) = (Breaker::window(), RECALL_MAX);
            let deaths = upkeep::last_deaths(&mut conn, &route, window, age_max).await?;
            if let Some(deaths) = deaths {
                self.answers.recall(&deaths, now());
                // If that opens the breaker, it is forgiven without waiting for an answer.
                self.finished_since.get_or_insert_with(now);
            }
            self.has_recalled = true;
        }
        let jobs = jobs::claim(&mut conn, &claim, None).await?;
        // Most of what was due may have ended without a notification.
        let due = match (
            jobs::has_due(&mut conn, &route, None).await?,
            jobs.is_empty(),
        ) {
            (false, _) => Due::Nothing,
            (true, false) => Due::More,
            (true, true) => Due::Elsewhere,
        };
        drop(conn);
        self.answers.spend(jobs.len());
        for job in jobs {
            self.begin(job);
        }
        Ok(due)
    }

    fn begin(&mut self, job: Job) {
        let now_millis = unix_millis();
        let prepared = compose(
            &job,
            &self.worker.route.app,
            &self.worker.config,
            now_millis,
        );
        let prepared = match prepared {
            Composed::Send(prepared) => prepared,
            Composed::Decided(result) => return self.finish(&job, String::new(), result),
        };
        let client = self.worker.client.clone();
        let held_for = self.worker.config.lease.mul_f64(0.8);
        let in_flight = &self.worker.metrics.in_flight;
        let in_flight = in_flight.get_or_create(&self.labels()).clone();
        in_flight.inc();
        self.requests.push(Box::pin(async move {
            let (address, notification) = (&prepared.address, &prepared.notification);
            let answer = client.send(address, notification, now_millis);
            // Not beyond the lease: somebody else will have the job then.
            let outcome = tokio::time::timeout(held_for, answer).await;
            let outcome = outcome.unwrap_or_else(|_| Outcome::Retry {
                reason: "timeout".to_owned(),
                after: None,
            });
            in_flight.dec();
            Answered {
                job,
                token: prepared.token_used().to_owned(),
                outcome,
                is_background: prepared.is_background(),
            }
        }));
    }

    fn take(&mut self, answered: Answered) {
        let Answered {
            job,
            token,
            outcome,
            is_background,
        } = answered;
        let result = self.answers.judge(&job, outcome, is_background, now());
        if matches!(result, JobResult::Sent { .. }) && job.attempts == 0 {
            let took = unix_millis().saturating_sub(job.committed_at_millis).max(0);
            let took = Duration::from_millis(took.unsigned_abs()).as_secs_f64();
            self.worker.metrics.commit_to_push_seconds.observe(took);
        }
        self.finish(&job, token, result);
    }

    fn finish(&mut self, job: &Job, token: String, result: JobResult) {
        let held = job.held.clone();
        self.finished.push(Finished {
            held,
            token,
            result,
        });
        self.finished_since.get_or_insert_with(now);
    }

    /// Writes down what has ended, if enough has, or nothing else happens.
    async fn write_down(&mut self, is_stopping: bool) {
        let Some(since) = self.finished_since else {
            return;
        };
        let is_time = is_stopping
            || self.requests.is_empty()
            || self.finished.len() >= FINISHED_MAX
            || now() >= since + GATHER;
        if !is_time {
            return;
        }
        match self.try_write_down().await {
            Ok(()) => {
                self.finished.clear();
                self.finished_since = None;
            }
            Err(error) => {
                self.worker.metrics.store_failures.inc();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    route = %self.worker.route,
                    "what was pushed is not written down yet"
                );
                tokio::time::sleep(self.worker.config.poll_interval).await;
                // What the store refuses for good is not tried for ever.
                if is_stopping || !error.is_transient() {
                    // The lease ends; the same notification leaves again under the same id.
                    self.finished.clear();
                    self.finished_since = None;
                }
            }
        }
    }

    async fn try_write_down(&mut self) -> Result<(), StoreError> {
        let worker = &self.worker;
        let mut conn = worker.pool.acquire().await?;
        let repeat = worker.config.repeat_interval;
        finish::finish(&mut conn, &self.finished, repeat, None).await?;
        let needless = finish::count_needless(&mut conn, &self.finished).await?;
        worker.metrics.false_pushes.inc_by(needless);
        if let Some(since) = self.answers.forgiven_since(unix_millis()) {
            let route = worker.route.to_string();
            let revived = upkeep::revive(&mut conn, &route, since, None).await?;
            self.answers.forgave();
            tracing::error!(route, revived, "tokens that were refused just now are kept");
        }
        Ok(())
    }

    fn labels(&self) -> ProviderLabels {
        ProviderLabels {
            provider: label(self.worker.route.provider),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn unix_millis() -> i64 {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}
