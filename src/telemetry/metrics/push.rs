//! What the push gateway counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Upper bounds in seconds. The shortest grace is one second.
const COMMIT_TO_PUSH_BUCKETS_SECONDS: [f64; 16] = [
    0.5, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 3.0, 5.0, 8.5, 10.0, 16.0, 20.0, 60.0, 600.0, 3600.0,
];

/// What the push gateway counts.
#[derive(Clone, Debug)]
pub struct PushMetrics {
    pub armed: Counter,
    pub suppressed: Counter,
    pub notifications: Family<NotificationLabels, Counter>,
    pub errors: Family<ReasonLabels, Counter>,
    pub false_pushes: Counter,
    pub commit_to_push_seconds: Histogram,
    pub in_flight: Family<ProviderLabels, Gauge>,
    pub breaker_open: Family<ProviderLabels, Gauge>,
    pub store_failures: Counter,
}

/// Who carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ProviderLabel {
    Apns,
    Fcm,
    WebPush,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProviderLabels {
    pub provider: ProviderLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NotificationLabels {
    pub provider: ProviderLabel,
    pub outcome: NotificationOutcome,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum NotificationOutcome {
    Sent,
    Retry,
    Dead,
    Dropped,
}

/// `reason` is one of the provider's documented words; others are counted as `other`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    pub provider: ProviderLabel,
    pub reason: &'static str,
}

impl PushMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            armed: Counter::default(),
            suppressed: Counter::default(),
            notifications: Family::default(),
            errors: Family::default(),
            false_pushes: Counter::default(),
            commit_to_push_seconds: Histogram::new(COMMIT_TO_PUSH_BUCKETS_SECONDS),
            in_flight: Family::default(),
            breaker_open: Family::default(),
            store_failures: Counter::default(),
        };
        metrics.clone().show(registry);
        metrics
    }

    fn show(self, registry: &mut Registry) {
        registry.register(
            "armed",
            "Jobs begun or extended by new messages",
            self.armed,
        );
        registry.register(
            "suppressed",
            "Messages not pushed to a device because of a rule, when they came",
            self.suppressed,
        );
        registry.register(
            "notifications",
            "Attempts, by provider and outcome",
            self.notifications,
        );
        registry.register(
            "errors",
            "Attempts that a provider did not accept, by its reason",
            self.errors,
        );
        registry.register(
            "false_pushes",
            "Notifications whose message had been acknowledged before they left",
            self.false_pushes,
        );
        registry.register_with_unit(
            "commit_to_push",
            "Time from the commit of the first message to the provider's acceptance at the first attempt; what waited for a rule counts along",
            Unit::Seconds,
            self.commit_to_push_seconds,
        );
        registry.register(
            "in_flight",
            "Requests to a provider that wait for an answer",
            self.in_flight,
        );
        registry.register(
            "breaker_open",
            "Apps that are paused because too many tokens were refused",
            self.breaker_open,
        );
        registry.register(
            "store_failures",
            "Rounds that the store could not do and that were repeated",
            self.store_failures,
        );
    }
}
