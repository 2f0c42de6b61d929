//! Every metric of the process, in one place.
//!
//! Names follow OpenMetrics: base units, unit in the name, `_total` added by the encoder.
//! Labels are closed enums; an id is never a label. A part gets its struct handed in, so a
//! test makes its own and reads it.

mod push;

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use push::{
    NotificationLabels, NotificationOutcome, ProviderLabel, ProviderLabels, PushMetrics,
    ReasonLabels,
};

/// Upper bounds in seconds. One commit takes about 0.3 ms on two quiet cores.
const COMMIT_BUCKETS_SECONDS: [f64; 11] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0,
];
/// Upper bounds in seconds. A network of phones takes tenths of a second; a window that is full,
/// minutes.
const PUBACK_BUCKETS_SECONDS: [f64; 15] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
];
/// Upper bounds in seconds. The longest wait is `store.acquire_timeout`, five seconds.
const POOL_WAIT_BUCKETS_SECONDS: [f64; 10] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Upper bounds in messages.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// All metrics, by part. Cheap to clone: the clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub bridge: BridgeMetrics,
    pub broker: BrokerMetrics,
    pub push: PushMetrics,
}

impl Metrics {
    /// Creates the metrics and makes them visible to a scrape of `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            bridge: BridgeMetrics::register(registry.sub_registry_with_prefix("bridge")),
            broker: BrokerMetrics::register(registry.sub_registry_with_prefix("broker")),
            push: PushMetrics::register(registry.sub_registry_with_prefix("push")),
        }
    }
}

/// What the bridge counts.
#[derive(Clone, Debug)]
pub struct BridgeMetrics {
    pub publishes: Family<PublishLabels, Counter>,
    pub accept_seconds: Histogram,
    pub batch_messages: Histogram,
    pub store_failures: Counter,
    pub relayed: Counter,
    pub outbox_age_seconds: Gauge<f64, AtomicU64>,
    pub pool_wait_seconds: Histogram,
    pub receipts_dropped: Counter,
    pub events_dropped: Counter,
    pub presence_told: Counter,
    pub watches: Gauge,
    pub watches_refused: Counter,
    pub positions_dropped: Counter,
    pub inbox_patches_dropped: Counter,
    pub limited: Family<LimitedLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitedLabels {
    pub kind: LimitedKind,
}

/// What came faster than one user may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum LimitedKind {
    /// Answered with 429.
    Request,
    /// Answered with 429, or the socket that it came on is not read for a while.
    Message,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PublishLabels {
    pub outcome: PublishOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PublishOutcome {
    Stored,
    Duplicate,
    Refused,
}

impl BridgeMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            publishes: Family::default(),
            accept_seconds: Histogram::new(COMMIT_BUCKETS_SECONDS),
            batch_messages: Histogram::new(BATCH_BUCKETS),
            store_failures: Counter::default(),
            relayed: Counter::default(),
            outbox_age_seconds: Gauge::default(),
            pool_wait_seconds: Histogram::new(POOL_WAIT_BUCKETS_SECONDS),
            receipts_dropped: Counter::default(),
            events_dropped: Counter::default(),
            presence_told: Counter::default(),
            watches: Gauge::default(),
            watches_refused: Counter::default(),
            positions_dropped: Counter::default(),
            limited: Family::default(),
            inbox_patches_dropped: Counter::default(),
        };
        registry.register(
            "publishes",
            "Publishes, by outcome",
            metrics.publishes.clone(),
        );
        registry.register_with_unit(
            "accept",
            "Time from the arrival of a publish to its commit",
            Unit::Seconds,
            metrics.accept_seconds.clone(),
        );
        registry.register(
            "batch_messages",
            "Messages in one commit",
            metrics.batch_messages.clone(),
        );
        registry.register(
            "store_failures",
            "Attempts to write that failed and were repeated",
            metrics.store_failures.clone(),
        );
        registry.register(
            "relayed",
            "Commits whose notice came from the outbox and not from their writer",
            metrics.relayed.clone(),
        );
        registry.register_with_unit(
            "outbox_age",
            "Age of the oldest commit that the relay has not read, when it last looked",
            Unit::Seconds,
            metrics.outbox_age_seconds.clone(),
        );
        registry.register_with_unit(
            "pool_wait",
            "Time the relay waited for a connection of the pool, which all requests share; once per store.relay_interval",
            Unit::Seconds,
            metrics.pool_wait_seconds.clone(),
        );
        registry.register(
            "receipts_dropped",
            "Receipts not sent because a queue was full; a later one says the same",
            metrics.receipts_dropped.clone(),
        );
        registry.register(
            "events_dropped",
            "Typing, presence and inbox changes not sent because a queue was full",
            metrics.events_dropped.clone(),
        );
        registry.register(
            "presence_told",
            "Changes of presence that devices were told of",
            metrics.presence_told.clone(),
        );
        registry.register(
            "watches",
            "Pairs of a device and a user whose presence it watches",
            metrics.watches.clone(),
        );
        registry.register(
            "watches_refused",
            "Watches that were answered and not begun because there were too many",
            metrics.watches_refused.clone(),
        );
        registry.register(
            "positions_dropped",
            "Cursor positions not kept because the store was away too long; those messages repeat",
            metrics.positions_dropped.clone(),
        );
        registry.register(
            "inbox_patches_dropped",
            "Changes of inbox rows not told because a queue was full; clients find them by asking",
            metrics.inbox_patches_dropped.clone(),
        );
        registry.register(
            "limited",
            "Requests and messages that came faster than one user may be, by kind",
            metrics.limited.clone(),
        );
        metrics
    }
}

/// What the broker counts.
#[derive(Clone, Debug)]
pub struct BrokerMetrics {
    pub connections: Gauge,
    pub connects: Family<ConnectLabels, Counter>,
    pub disconnects: Family<DisconnectLabels, Counter>,
    pub events_dropped: Counter,
    pub deliveries: Counter,
    pub repeated: Counter,
    pub commit_to_puback_seconds: Histogram,
    pub in_flight: Gauge,
    pub sessions_behind: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectLabels {
    pub outcome: ConnectOutcome,
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ConnectOutcome {
    Accepted,
    /// More connections than allowed, or too many from one address.
    Limited,
    /// No valid CONNECT in time, or no MQTT at all.
    Invalid,
    /// A CONNECT that was answered with a refusal.
    Refused,
    /// The store was away.
    Unavailable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DisconnectLabels {
    pub cause: DisconnectCause,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum DisconnectCause {
    /// The device said DISCONNECT.
    Client,
    /// The connection broke.
    Network,
    /// The device broke the protocol or a limit.
    Protocol,
    KeepAlive,
    TakenOver,
    TokenExpired,
    SignedOut,
    Shutdown,
    /// The device took nothing for too long.
    SlowReader,
}

impl BrokerMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            connects: Family::default(),
            disconnects: Family::default(),
            events_dropped: Counter::default(),
            deliveries: Counter::default(),
            repeated: Counter::default(),
            commit_to_puback_seconds: Histogram::new(PUBACK_BUCKETS_SECONDS),
            in_flight: Gauge::default(),
            sessions_behind: Gauge::default(),
        };
        registry.register(
            "connections",
            "Open connections",
            metrics.connections.clone(),
        );
        registry.register(
            "connects",
            "Attempts to connect, by outcome",
            metrics.connects.clone(),
        );
        registry.register(
            "disconnects",
            "Ended connections, by cause",
            metrics.disconnects.clone(),
        );
        registry.register(
            "events_dropped",
            "Receipts and events that a slow reader did not get",
            metrics.events_dropped.clone(),
        );
        registry.register(
            "deliveries",
            "Messages that a device has acknowledged in order",
            metrics.deliveries.clone(),
        );
        registry.register(
            "repeated",
            "Messages sent again with DUP, since their acknowledgement did not arrive before a connection ended",
            metrics.repeated.clone(),
        );
        registry.register_with_unit(
            "commit_to_puback",
            "Time from the commit of a message to its acknowledgement by a device, in order; live deliveries alone, not what is read from the log",
            Unit::Seconds,
            metrics.commit_to_puback_seconds.clone(),
        );
        registry.register(
            "in_flight",
            "Messages sent to devices that wait for an acknowledgement",
            metrics.in_flight.clone(),
        );
        registry.register(
            "sessions_behind",
            "Connected devices with messages not sent yet: the window is full, they read slowly, or the log is read for them",
            metrics.sessions_behind.clone(),
        );
        metrics
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;

    /// What has labels is shown once it has a value.
    fn show_families(metrics: &Metrics) {
        let Metrics {
            bridge,
            broker,
            push,
        } = metrics;
        let (outcome, kind) = (PublishOutcome::Stored, LimitedKind::Request);
        drop(bridge.publishes.get_or_create(&PublishLabels { outcome }));
        drop(bridge.limited.get_or_create(&LimitedLabels { kind }));
        let (outcome, cause) = (ConnectOutcome::Accepted, DisconnectCause::Client);
        drop(broker.connects.get_or_create(&ConnectLabels { outcome }));
        drop(
            broker
                .disconnects
                .get_or_create(&DisconnectLabels { cause }),
        );
        let (provider, outcome) = (ProviderLabel::Apns, NotificationOutcome::Sent);
        let labels = NotificationLabels { provider, outcome };
        drop(push.notifications.get_or_create(&labels));
        let reason = "other";
        drop(
            push.errors
                .get_or_create(&ReasonLabels { provider, reason }),
        );
        drop(push.in_flight.get_or_create(&ProviderLabels { provider }));
        drop(
            push.breaker_open
                .get_or_create(&ProviderLabels { provider }),
        );
    }

    /// Goal: the table names every metric as a scrape does, and none that is gone.
    #[test]
    fn every_metric_is_documented() {
        let mut registry = Registry::with_prefix("homing");
        show_families(&Metrics::register(&mut registry));
        let mut scraped = String::new();
        encode(&mut scraped, &registry).unwrap();
        let mut metrics = BTreeSet::new();
        let mut help = "";
        for line in scraped.lines() {
            if let Some(text) = line.strip_prefix("# HELP ") {
                help = text.split_once(' ').unwrap().1;
            } else if let Some(text) = line.strip_prefix("# TYPE ") {
                let (name, kind) = text.split_once(' ').unwrap();
                let total = if kind == "counter" { "_total" } else { "" };
                metrics.insert(format!("| `{name}{total}` | {kind} | {help} |"));
            }
        }
        let table = include_str!("../../docs/metrics.md");
        let rows = table.lines().filter(|line| line.starts_with("| `homing_"));
        let rows: BTreeSet<_> = rows.map(str::to_owned).collect();
        let differences: Vec<_> = metrics.symmetric_difference(&rows).collect();
        assert!(differences.is_empty(), "docs/metrics.md: {differences:#?}");
    }
}
