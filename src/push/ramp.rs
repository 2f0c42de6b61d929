//! How fast notifications may leave: slowly after an outage of the provider, then faster.

use std::time::{Duration, Instant};

/// How often the rate doubles while the provider answers.
const DOUBLE_EVERY: Duration = Duration::from_secs(5);
/// So many failures in a row are an outage, not bad luck.
const FAILURES_MAX: u32 = 10;

/// The rate towards one provider. Reads no clock: `now` is an argument.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    per_second_min: f64,
    per_second_max: f64,
    per_second: f64,
    /// When the rate was set or doubled last.
    changed_at: Instant,
    failures: u32,
    /// What may leave at once; fills with the rate, up to a second's worth.
    credit: f64,
    filled_at: Instant,
}

impl Ramp {
    /// Begins at the full rate: a start is no outage.
    pub(super) fn new(per_second_min: u32, per_second_max: u32, now: Instant) -> Self {
        let per_second_max = f64::from(per_second_max);
        Self {
            per_second_min: f64::from(per_second_min).min(per_second_max),
            per_second_max,
            per_second: per_second_max,
            changed_at: now,
            failures: 0,
            credit: per_second_max,
            filled_at: now,
        }
    }

    /// How many notifications may leave now.
    pub(super) fn allowance(&mut self, now: Instant) -> usize {
        self.fill(now);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole notifications, never below 0"
        )]
        let allowance = self.credit as usize;
        allowance
    }

    /// So many have left.
    pub(super) fn spend(&mut self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let spent = count as f64;
        self.credit = (self.credit - spent).max(0.0);
    }

    /// When one may leave if none may now.
    pub(super) fn next(&self) -> Duration {
        Duration::from_secs_f64((1.0 - self.credit).max(0.0) / self.per_second)
    }

    /// The provider took a notification, or refused it for a reason of its own: it works.
    pub(super) fn answered(&mut self, now: Instant) {
        self.failures = 0;
        if self.per_second < self.per_second_max && now >= self.changed_at + DOUBLE_EVERY {
            self.fill(now);
            self.per_second = (self.per_second * 2.0).min(self.per_second_max);
            self.changed_at = now;
        }
    }

    /// The provider could not be reached, or could not do it. Whether an outage begins.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX {
            return false;
        }
        let begins = self.failures == FAILURES_MAX;
        self.fill(now);
        self.per_second = self.per_second_min;
        self.credit = self.credit.min(self.per_second);
        self.changed_at = now;
        begins
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.credit = (self.credit + seconds * self.per_second).min(self.per_second);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn start() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn at_most_a_seconds_worth_leaves_at_once() {
        let now = start();
        let mut ramp = Ramp::new(5, 100, now);
        assert_eq!(ramp.allowance(now + SECOND * 60), 100);
        ramp.spend(100);
        assert_eq!(ramp.allowance(now + SECOND * 60), 0);
        assert_eq!(ramp.next(), SECOND / 100);
        assert_eq!(ramp.allowance(now + SECOND * 60 + SECOND / 2), 50);
    }

    #[test]
    fn an_outage_slows_down_and_its_end_speeds_up_by_doubling() {
        let mut now = start();
        let mut ramp = Ramp::new(5, 35, now);
        let begins: Vec<bool> = (0..12).map(|_| ramp.failed(now)).collect();
        assert_eq!(begins.iter().filter(|&&begins| begins).count(), 1);
        assert!(begins[9], "the tenth failure is the outage");
        let mut rates = Vec::new();
        for _ in 0..4 {
            assert!(ramp.allowance(now + SECOND) <= 40, "never a burst");
            ramp.spend(1_000);
            now += DOUBLE_EVERY;
            let before = ramp.allowance(now);
            rates.push(before);
            ramp.answered(now);
        }
        assert_eq!(rates, [5, 10, 20, 35]);
    }

    #[test]
    fn a_failure_now_and_then_slows_nothing_down() {
        let now = start();
        let mut ramp = Ramp::new(5, 100, now);
        for _ in 0..100 {
            assert!(!ramp.failed(now));
            ramp.answered(now);
        }
        assert_eq!(ramp.allowance(now), 100);
    }
}
