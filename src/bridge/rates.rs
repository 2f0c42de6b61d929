//! How fast one user may be, whichever way requests and messages come.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock as _, clock::DefaultClock};
use governor::{middleware::NoOpMiddleware, state::keyed::DashMapStateStore};

use super::conversations::Caller;
use crate::{
    config::LimitsConfig,
    domain::ids::UserId,
    telemetry::metrics::{BridgeMetrics, LimitedKind, LimitedLabels},
};

/// After so many checks, users whose burst is whole again are forgotten. Those who remain were
/// there lately: no more than checks since, and what a burst takes to fill.
const FORGET_EVERY: u32 = 10_000;

type Limiter = RateLimiter<
    UserId,
    DashMapStateStore<UserId>,
    DefaultClock,
    NoOpMiddleware<std::time::Instant>,
>;

/// What all users have used up of their rates.
#[derive(Debug)]
pub struct Rates {
    requests: Option<Limiter>,
    messages: Option<Limiter>,
    checks: AtomicU32,
    metrics: BridgeMetrics,
}

/// Too fast: after this time the next one is welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("you are faster than allowed; wait for as long as Retry-After says")]
pub struct TooFast(pub Duration);

impl TooFast {
    /// In whole seconds, at least one.
    #[must_use]
    pub fn seconds(self) -> u64 {
        let seconds = self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0);
        seconds.max(1)
    }
}

impl Rates {
    pub(super) fn new(config: &LimitsConfig, metrics: BridgeMetrics) -> Self {
        Self {
            requests: limiter(config.requests_per_second, config.requests_burst),
            messages: limiter(config.messages_per_second, config.messages_burst),
            checks: AtomicU32::new(0),
            metrics,
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    ///
    /// [`TooFast`] if it must not be done now; it does not count then.
    pub fn request(&self, caller: &Caller) -> Result<(), TooFast> {
        match &self.requests {
            Some(requests) if !caller.is_admin => {
                self.check(requests, caller.user, LimitedKind::Request)
            }
            _ => Ok(()),
        }
    }

    /// Counts a message.
    ///
    /// # Errors
    ///
    /// [`TooFast`] if it must not be sent now; it does not count then.
    pub fn message(&self, user: UserId, is_admin: bool) -> Result<(), TooFast> {
        match &self.messages {
            Some(messages) if !is_admin => self.check(messages, user, LimitedKind::Message),
            _ => Ok(()),
        }
    }

    /// Waits until a message of the user is welcome, and counts it.
    pub async fn message_turn(&self, user: UserId) {
        let Some(messages) = &self.messages else {
            return;
        };
        // Of several devices that wait, one is first; the others wait again.
        while let Err(not_yet) = messages.check_key(&user) {
            let wait = not_yet.wait_time_from(messages.clock().now());
            tokio::time::sleep(wait).await;
        }
    }

    fn check(&self, limiter: &Limiter, user: UserId, kind: LimitedKind) -> Result<(), TooFast> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            for limiter in [&self.requests, &self.messages].into_iter().flatten() {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
        limiter.check_key(&user).map_err(|not_yet| {
            self.metrics
                .limited
                .get_or_create(&LimitedLabels { kind })
                .inc();
            TooFast(not_yet.wait_time_from(limiter.clock().now()))
        })
    }
}

fn limiter(per_second: u32, burst: NonZeroU32) -> Option<Limiter> {
    let per_second = NonZeroU32::new(per_second)?;
    Some(RateLimiter::dashmap(
        Quota::per_second(per_second).allow_burst(burst),
    ))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{domain::ids::Subject, telemetry::metrics::Metrics};

    fn rates(per_second: u32) -> Rates {
        let burst = NonZeroU32::new(3).unwrap();
        let config = LimitsConfig {
            requests_per_second: per_second,
            requests_burst: burst,
            messages_per_second: per_second,
            messages_burst: burst,
        };
        Rates::new(&config, Metrics::register(&mut Registry::default()).bridge)
    }

    fn caller(user: i64, is_admin: bool) -> Caller {
        Caller {
            subject: Subject::new("alice").unwrap(),
            user: UserId(user),
            is_admin,
            issued_at: None,
        }
    }

    /// Goal: who is too fast waits, and nobody else does.
    #[test]
    fn each_user_has_a_burst_of_requests_and_one_of_messages() {
        let rates = rates(1);
        let alice = caller(1, false);
        for _ in 0..3 {
            rates.request(&alice).unwrap();
            rates.message(alice.user, false).unwrap();
        }
        let too_fast = rates.request(&alice).unwrap_err();
        assert_eq!(too_fast.seconds(), 1);
        assert!(rates.message(alice.user, false).is_err());
        assert_eq!(rates.request(&caller(2, false)), Ok(()));
        for _ in 0..10 {
            rates.request(&caller(1, true)).unwrap();
            rates.message(UserId(1), true).unwrap();
        }
        assert_eq!(TooFast(Duration::from_millis(1001)).seconds(), 2);
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let rates = rates(0);
        for _ in 0..10 {
            rates.request(&caller(1, false)).unwrap();
            rates.message(UserId(1), false).unwrap();
        }
    }

    /// Goal: the memory does not grow with everybody who was ever there.
    #[test]
    fn users_of_before_are_forgotten() {
        let rates = rates(u32::MAX);
        for user in 0..i64::from(FORGET_EVERY) {
            rates.request(&caller(user, false)).unwrap();
        }
        let known = rates.requests.as_ref().unwrap().len();
        assert!(known < 10, "{known}");
    }
}
