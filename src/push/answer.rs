//! What an answer of a provider means: for its job, for the rate, for the breaker.

use std::time::{Duration, Instant};

use super::{breaker::Breaker, notification::Outcome, ramp::Ramp};
use crate::{
    config::PushConfig,
    domain::push::{Provider, Route},
    store::push::{finish::JobResult, jobs::Job, upkeep::Deaths},
    telemetry::metrics::{
        NotificationLabels, NotificationOutcome, ProviderLabel, ProviderLabels, PushMetrics,
        ReasonLabels,
    },
};

/// Words of the providers that are counted by themselves.
const REASONS: [&str; 22] = [
    "Unregistered",
    "ExpiredToken",
    "BadDeviceToken",
    "DeviceTokenNotForTopic",
    "TooManyRequests",
    "TooManyProviderTokenUpdates",
    "ExpiredProviderToken",
    "InvalidProviderToken",
    "TopicDisallowed",
    "PayloadTooLarge",
    "InternalServerError",
    "ServiceUnavailable",
    "Shutdown",
    "UNREGISTERED",
    "SENDER_ID_MISMATCH",
    "QUOTA_EXCEEDED",
    "UNAVAILABLE",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "THIRD_PARTY_AUTH_ERROR",
    "timeout",
    "connection",
];

/// Words of the providers that may be our fault as well as a dead token's ([`Outcome::Mismatched`]).
const DOUBTFUL: [&str; 6] = [
    "BadDeviceToken",
    "DeviceTokenNotForTopic",
    "SENDER_ID_MISMATCH",
    "INVALID_ARGUMENT",
    "VapidPkHashMismatch",
    "HTTP 403",
];

/// Judges the answers for one app.
#[derive(Debug)]
pub(super) struct Answers {
    route: Route,
    ramp: Ramp,
    breaker: Breaker,
    retry_min: Duration,
    retry_max: Duration,
    breaker_pause: Duration,
    /// The breaker has opened, and what was refused before is not forgiven yet.
    is_forgiving: bool,
    /// From when refusals count that an earlier process wrote down, in milliseconds since 1970.
    recalled_since: Option<i64>,
    metrics: PushMetrics,
}

impl Answers {
    pub(super) fn new(
        config: &PushConfig,
        route: Route,
        metrics: PushMetrics,
        now: Instant,
    ) -> Self {
        let (slow, fast) = (config.ramp_per_second.get(), config.per_second_max.get());
        let breaker = Breaker::new(
            config.breaker_refusals.get(),
            config.breaker_share,
            config.breaker_pause,
        );
        Self {
            route,
            ramp: Ramp::new(slow, fast, now),
            breaker,
            retry_min: config.retry_min,
            retry_max: config.retry_max,
            breaker_pause: config.breaker_pause,
            is_forgiving: false,
            recalled_since: None,
            metrics,
        }
    }

    /// Counts what an earlier process was told before it ended, as if it had been said now:
    /// should the breaker have been about to open, it is again.
    pub(super) fn recall(&mut self, deaths: &Deaths, now: Instant) {
        let is_doubtful = |reason: &str| DOUBTFUL.iter().any(|known| reason.contains(known));
        let refusals: u64 = deaths
            .reasons
            .iter()
            .filter(|(reason, _)| is_doubtful(reason))
            .map(|(_, count)| count)
            .sum();
        if refusals == 0 {
            return;
        }
        self.recalled_since = Some(deaths.since_millis);
        for _ in refusals..deaths.answers {
            self.breaker.record(false, now);
        }
        for _ in 0..refusals {
            self.is_forgiving |= self.breaker.record(true, now);
        }
    }

    /// How many notifications may leave now.
    pub(super) fn allowance(&mut self, now: Instant) -> usize {
        self.ramp.allowance(now)
    }

    pub(super) fn spend(&mut self, count: usize) {
        self.ramp.spend(count);
    }

    /// When one may leave if none may now.
    pub(super) fn next(&self) -> Duration {
        self.ramp.next()
    }

    /// Until when the breaker keeps everything back.
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        let until = self.breaker.open_until(now);
        let gauge = self.metrics.breaker_open.get_or_create(&self.labels());
        gauge.set(i64::from(until.is_some()));
        until
    }

    /// From when on refusals are to be forgiven, once after the breaker has opened; in
    /// milliseconds since 1970, as is `now_millis`.
    pub(super) fn forgiven_since(&self, now_millis: i64) -> Option<i64> {
        let window = i64::try_from(Breaker::window().as_millis()).unwrap_or(i64::MAX);
        let since = now_millis.saturating_sub(window);
        let since = self.recalled_since.map_or(since, |then| then.min(since));
        self.is_forgiving.then_some(since)
    }

    pub(super) fn forgave(&mut self) {
        self.is_forgiving = false;
        self.recalled_since = None;
    }

    /// What becomes of the job.
    pub(super) fn judge(
        &mut self,
        job: &Job,
        outcome: Outcome,
        is_background: bool,
        now: Instant,
    ) -> JobResult {
        self.count(&outcome);
        let opens = self
            .breaker
            .record(matches!(outcome, Outcome::Mismatched { .. }), now);
        if opens {
            self.is_forgiving = true;
            tracing::error!(
                route = %self.route,
                "so many tokens are refused that the fault must be ours: the app is paused; \
                 check its key, its environment and its project"
            );
        }
        if let Outcome::Retry { reason, .. } = &outcome {
            if self.ramp.failed(now) {
                tracing::warn!(route = %self.route, reason, "the provider is away");
            }
        } else {
            self.ramp.answered(now);
        }
        match outcome {
            Outcome::Accepted => JobResult::Sent { is_background },
            Outcome::Retry { reason, after } => {
                let after = self.wait(job.attempts.unsigned_abs(), after);
                JobResult::Retry { reason, after }
            }
            Outcome::Mismatched { reason } if self.breaker.open_until(now).is_some() => {
                let after = self.breaker_pause;
                JobResult::Retry { reason, after }
            }
            Outcome::Mismatched { reason } => JobResult::Dead {
                reason,
                since_millis: None,
            },
            Outcome::Dead {
                reason,
                since_millis,
            } => JobResult::Dead {
                reason,
                since_millis,
            },
            Outcome::Dropped { reason } => {
                tracing::error!(route = %self.route, reason, "the provider refuses a notification");
                JobResult::Dropped { reason }
            }
        }
    }

    /// Exponential, with half of it by chance; at least what the provider asks for.
    fn wait(&self, attempts: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.retry_min.saturating_mul(1 << attempts.min(20));
        let longest = doubled.min(self.retry_max);
        let by_chance = longest.mul_f64(rand::random_range(0.5..=1.0));
        by_chance.max(asked.unwrap_or_default())
    }

    fn count(&self, outcome: &Outcome) {
        let provider = label(self.route.provider);
        let (outcome, reason) = match outcome {
            Outcome::Accepted => (NotificationOutcome::Sent, None),
            Outcome::Retry { reason, .. } => (NotificationOutcome::Retry, Some(reason)),
            Outcome::Dead { reason, .. } | Outcome::Mismatched { reason } => {
                (NotificationOutcome::Dead, Some(reason))
            }
            Outcome::Dropped { reason } => (NotificationOutcome::Dropped, Some(reason)),
        };
        let labels = NotificationLabels { provider, outcome };
        self.metrics.notifications.get_or_create(&labels).inc();
        if let Some(reason) = reason {
            let reason = REASONS
                .into_iter()
                .find(|known| reason.contains(known))
                .unwrap_or("other");
            let labels = ReasonLabels { provider, reason };
            self.metrics.errors.get_or_create(&labels).inc();
        }
    }

    fn labels(&self) -> ProviderLabels {
        ProviderLabels {
            provider: label(self.route.provider),
        }
    }
}

/// In the words of the metrics.
pub(super) const fn label(provider: Provider) -> ProviderLabel {
    match provider {
        Provider::Apns => ProviderLabel::Apns,
        Provider::Fcm => ProviderLabel::Fcm,
        Provider::WebPush => ProviderLabel::WebPush,
    }
}
