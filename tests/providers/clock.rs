//! The time, which a test may shift.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description};

/// The clock of the providers; it may go wrong.
#[derive(Default)]
pub(crate) struct Clock {
    skew_seconds: AtomicI64,
}

impl Clock {
    /// In seconds since 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "the fakes are a driver of their own"
    )]
    pub(crate) fn now_unix(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() + self.skew_seconds.load(Ordering::Relaxed)
    }

    pub(crate) fn set_skew_seconds(&self, seconds: i64) {
        self.skew_seconds.store(seconds, Ordering::Relaxed);
    }

    /// As the `Date` header says it (RFC 9110 §5.6.7).
    pub(crate) fn date(&self) -> String {
        let form = "[weekday repr:short], [day] [month repr:short] [year] \
                    [hour]:[minute]:[second] GMT";
        let form = format_description::parse_borrowed::<2>(form).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(self.now_unix()).unwrap();
        now.format(&form).unwrap()
    }
}
