//! How long to wait before the next attempt: longer each time, up to a bound, never the
//! same for two devices, so that a restarted server is not stormed.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// The waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Begins with waits around `min` and doubles them up to `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            attempts: 0,
        }
    }

    /// The next wait: between half of the current bound and all of it.
    pub fn wait(&mut self) -> Duration {
        let bound = self
            .min
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(0.5 + random_fraction() / 2.0)
    }

    /// Something worked: the next wait is a short one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A number from 0 up to 1. `RandomState` is seeded by the operating system.
fn random_fraction() -> f64 {
    let bits = RandomState::new().hash_one(()) >> 32;
    f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        for attempt in 0..100 {
            let bound = min.saturating_mul(1 << attempt.min(20)).min(max);
            let wait = backoff.wait();
            assert!(wait >= bound / 2 && wait <= bound, "{attempt}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= min);
    }

    #[test]
    fn two_devices_do_not_wait_alike() {
        let waits: std::collections::BTreeSet<_> = (0..20)
            .map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).wait())
            .collect();
        assert!(waits.len() > 1);
    }
}
