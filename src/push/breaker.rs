//! The circuit breaker: many refused tokens at once are our fault, not theirs.
//!
//! A wrong environment or a key of another project makes the provider refuse every token.
//! Whoever believed that would delete all of them, and nobody could be woken again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Over how long refusals are counted.
const WINDOW: Duration = Duration::from_mins(1);
const BUCKETS: u32 = 12;

/// Counts the answers for one app. Reads no clock: `now` is an argument.
#[derive(Debug)]
pub(super) struct Breaker {
    refusals_max: u32,
    share_max: f64,
    pause: Duration,
    /// Answers and refusals, by the beginning of their bucket, oldest first.
    buckets: VecDeque<(Instant, u32, u32)>,
    open_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(refusals_max: u32, share_max: f64, pause: Duration) -> Self {
        Self {
            refusals_max,
            share_max,
            pause,
            buckets: VecDeque::new(),
            open_until: None,
        }
    }

    /// Until when nothing may leave; none while the breaker is closed.
    pub(super) fn open_until(&self, now: Instant) -> Option<Instant> {
        self.open_until.filter(|&until| now < until)
    }

    /// An answer of the provider. True if it opens the breaker: what was refused within the
    /// last [`Breaker::window`] is to be forgiven.
    pub(super) fn record(&mut self, is_refusal: bool, now: Instant) -> bool {
        self.forget(now);
        let length = WINDOW / BUCKETS;
        match self.buckets.back_mut() {
            Some((began, answers, refusals)) if now < *began + length => {
                *answers += 1;
                *refusals += u32::from(is_refusal);
            }
            _ => self.buckets.push_back((now, 1, u32::from(is_refusal))),
        }
        let (answers, refusals) = self
            .buckets
            .iter()
            .fold((0, 0), |sum, bucket| (sum.0 + bucket.1, sum.1 + bucket.2));
        let is_many = refusals >= self.refusals_max
            && f64::from(refusals) >= self.share_max * f64::from(answers);
        if !is_refusal || !is_many {
            return false;
        }
        self.open_until = Some(now + self.pause);
        self.buckets.clear();
        true
    }

    /// Over how long refusals are counted.
    pub(super) const fn window() -> Duration {
        WINDOW
    }

    fn forget(&mut self, now: Instant) {
        while self
            .buckets
            .front()
            .is_some_and(|&(began, ..)| now >= began + WINDOW)
        {
            self.buckets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn start() -> Instant {
        Instant::now()
    }

    const PAUSE: Duration = Duration::from_mins(5);

    fn opened(breaker: &mut Breaker, answers: &[bool], now: Instant) -> bool {
        answers
            .iter()
            .any(|&is_refusal| breaker.record(is_refusal, now))
    }

    #[test]
    fn many_refusals_open_it_for_a_while() {
        let now = start();
        let mut breaker = Breaker::new(20, 0.2, PAUSE);
        assert!(!opened(&mut breaker, &[true; 19], now));
        assert_eq!(breaker.open_until(now), None);
        assert!(breaker.record(true, now));
        assert_eq!(breaker.open_until(now), Some(now + PAUSE));
        assert_eq!(breaker.open_until(now + PAUSE), None);
        assert!(!breaker.record(true, now + PAUSE), "it counts anew");
    }

    #[test]
    fn a_few_refusals_among_many_answers_are_dead_tokens() {
        let now = start();
        let mut breaker = Breaker::new(20, 0.2, PAUSE);
        let mostly_fine: Vec<bool> = (0..1_000).map(|place| place % 10 == 0).collect();
        assert!(!opened(&mut breaker, &mostly_fine, now));
    }

    #[test]
    fn refusals_long_ago_do_not_count() {
        let mut now = start();
        let mut breaker = Breaker::new(20, 0.2, PAUSE);
        for _ in 0..10 {
            assert!(!opened(&mut breaker, &[true; 10], now));
            now += WINDOW;
        }
        assert!(!opened(&mut breaker, &[true; 10], now));
        assert!(opened(&mut breaker, &[true; 10], now + WINDOW / 2));
    }
}
