//! The clock of one run: every stamp is in nanoseconds since its start.

use std::time::Instant;

/// Nanoseconds since the start of the run.
pub(crate) type Nanos = u64;

/// Copied to whoever stamps; all copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the load generator reads the clock"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Nanos {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Seconds, for people.
#[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
pub(crate) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
