//! How fast one device may publish.

use std::time::{Duration, Instant};

/// How many seconds' worth of publishes may come at once.
const BURST_SECONDS: u32 = 5;

/// A token bucket that never refuses: it says from when on the next publish is welcome.
#[derive(Debug)]
pub struct Rate {
    /// The time one publish takes at the full rate; zero is no limit.
    interval: Duration,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Rate {
    /// At most `per_second` publishes a second, in bursts of five times as many; 0 is no limit.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1)
            .checked_div(per_second)
            .unwrap_or_default();
        Self {
            interval,
            full_at: now,
        }
    }

    /// Counts a publish.
    pub fn count(&mut self, now: Instant) {
        if !self.interval.is_zero() {
            self.full_at = self.full_at.max(now) + self.interval;
        }
    }

    /// Whether nothing was counted for so long that the whole burst is free again.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// Until when no publish should be read; nothing if one is welcome now.
    #[must_use]
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        let burst = Duration::from_secs(BURST_SECONDS.into());
        let resumes_at = (self.full_at + self.interval).checked_sub(burst)?;
        (!self.interval.is_zero() && resumes_at > now).then_some(resumes_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn a_burst_is_welcome_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        for _ in 0..50 {
            assert_eq!(rate.paused_until(start), None);
            rate.count(start);
        }
        assert_eq!(
            rate.paused_until(start),
            Some(start + Duration::from_millis(100))
        );
        assert_eq!(rate.paused_until(start + Duration::from_millis(100)), None);
        let mut unlimited = Rate::new(0, start);
        (0..1000).for_each(|_| unlimited.count(start));
        assert_eq!(unlimited.paused_until(start), None);
    }
}
