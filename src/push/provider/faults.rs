//! Faults of ours: said once a minute, and waited out.

use std::sync::{Mutex, PoisonError};

use super::FAULT_WAIT;
use crate::{domain::push::Route, push::notification::Outcome};

const INTERVAL_MILLIS: i64 = 60_000;

/// What a provider holds against us, not against a notification or a token.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) route: Route,
    said_at: Mutex<Option<i64>>,
}

impl Faults {
    pub(super) fn new(route: Route) -> Self {
        Self {
            route,
            said_at: Mutex::new(None),
        }
    }

    /// Logs the fault, unless that was just done, and lets the notification wait.
    pub(super) fn wait(&self, reason: String, now_unix_millis: i64) -> Outcome {
        if self.is_due(now_unix_millis) {
            tracing::error!(
                route = %self.route,
                reason,
                "the provider refuses us; notifications wait until key and settings are right"
            );
        }
        Outcome::Retry {
            reason,
            after: Some(FAULT_WAIT),
        }
    }

    /// Whether the last word is old enough for the next one.
    fn is_due(&self, now_unix_millis: i64) -> bool {
        let said_at = self.said_at.lock();
        let mut said_at = said_at.unwrap_or_else(PoisonError::into_inner);
        let is_due = said_at.is_none_or(|then| (now_unix_millis - then).abs() >= INTERVAL_MILLIS);
        if is_due {
            *said_at = Some(now_unix_millis);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::push::{Environment, Provider};

    #[test]
    fn a_fault_is_said_once_a_minute() {
        let faults = Faults::new(Route {
            provider: Provider::Fcm,
            app: "project".to_owned(),
            environment: Environment::Production,
        });
        let due: Vec<_> = [0, 1, 59_999, 60_000, 60_001, -1]
            .map(|now| faults.is_due(now))
            .into();
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
