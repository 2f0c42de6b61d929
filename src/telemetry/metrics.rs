//! Every metric of the process, in one place.
//!
//! Names follow OpenMetrics: base units, unit in the name, `_total` added by the encoder.
//! Labels are closed enums; an id is never a label. A part gets its struct handed in, so a
//! test makes its own and reads it.

mod push;

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
    pub receipts_dropped: Counter,
    pub events_dropped: Counter,
    pub positions_dropped: Counter,
    pub inbox_patches_dropped: Counter,
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
            receipts_dropped: Counter::default(),
            events_dropped: Counter::default(),
            positions_dropped: Counter::default(),
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
            "positions_dropped",
            "Cursor positions not kept because the store was away too long; those messages repeat",
            metrics.positions_dropped.clone(),
        );
        registry.register(
            "inbox_patches_dropped",
            "Changes of inbox rows not told because a queue was full; clients find them by asking",
            metrics.inbox_patches_dropped.clone(),
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
        metrics
    }
}
