//! MQTT on real sockets.
//!
//! ```text
//!   listener ─▶ handshake: CONNECT, token, session ─▶ connection: one task, until it ends
//!                              │ hub: the older connection of the device goes first
//! ```

mod accepting;
mod connection;
mod handshake;
mod hub;
pub mod listener;
mod opening;
mod operations;
mod reading;
pub mod tls;
pub mod websocket;

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{
    bridge::{Bridge, identity::Keys},
    config::{Config, MqttConfig},
    mqtt::session::Limits,
    telemetry::metrics::BrokerMetrics,
};
use hub::Hub;

/// What every connection needs. Cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

pub(crate) struct Shared {
    bridge: Bridge,
    keys: Arc<Keys>,
    hub: Hub,
    limits: Arc<Limits>,
    config: MqttConfig,
    /// How long a request on `q/` may take, as one over REST.
    request_timeout: Duration,
    /// The clock difference forgiven to tokens, while connected as at CONNECT.
    leeway: Duration,
    metrics: BrokerMetrics,
    /// One permit for each connection, all transports together.
    permits: Arc<Semaphore>,
    /// Sessions that may be opened at the same time.
    handshakes: Semaphore,
    tasks: TaskTracker,
}

/// More than the store answers at once; the others wait with little memory.
const HANDSHAKES_MAX: usize = 64;

impl Broker {
    /// A broker without a listener yet. Connections run on `tasks`.
    #[must_use]
    pub fn new(
        bridge: Bridge,
        keys: Arc<Keys>,
        config: &Config,
        metrics: BrokerMetrics,
        tasks: TaskTracker,
    ) -> Self {
        let mqtt = &config.mqtt;
        let permits = mqtt.connections_max.get().min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            bridge,
            keys,
            hub: Hub::default(),
            limits: Arc::new(limits(config)),
            config: mqtt.clone(),
            request_timeout: config.http.request_timeout,
            leeway: config.auth.leeway,
            metrics,
            permits: Arc::new(Semaphore::new(permits)),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            tasks,
        }))
    }

    /// Tells every connected device that the server stops, and takes no new one.
    pub fn shut_down(&self) {
        self.0.hub.shut_down();
    }
}

fn limits(config: &Config) -> Limits {
    let mqtt = &config.mqtt;
    Limits {
        keep_alive_max: mqtt.keep_alive_max,
        session_expiry_max: mqtt.session_expiry_max,
        inflight_max: mqtt.inflight_max,
        receive_max: mqtt.receive_max,
        packet_bytes_max: mqtt.packet_bytes_max,
        topic_alias_max: mqtt.topic_alias_max,
        topic_alias_out_max: mqtt.topic_alias_out_max,
        subscriptions_max: mqtt.subscriptions_max,
        outbound_bytes_max: mqtt.outbound_bytes_max,
        backlog_entries_max: mqtt.backlog_entries_max.get(),
        publishes_per_second: mqtt.publishes_per_second,
        expiry_warning: config.auth.expiry_warning,
        suspect_after: config.push.grace_connected,
    }
}
