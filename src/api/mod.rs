//! REST, for what is not a stream.
//!
//! A handler translates; what is allowed and what happens is decided in `bridge`. Every
//! refusal is a problem document (RFC 9457) that says what to do.

mod conditions;
mod error;
mod events;
mod extract;
mod health;
mod links;
pub mod listener;
mod messages;
mod openapi;
mod operations;
mod router;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use openapi::document;
pub use router::router;

use events::Streams;

use crate::{
    bridge::{Bridge, identity::Keys},
    config::{Config, HttpConfig},
};

/// What the handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiState {
    pub bridge: Bridge,
    pub keys: Arc<Keys>,
    pub registry: Arc<Registry>,
    pub readiness: Readiness,
    pub http: HttpConfig,
    /// What `/v1/openapi.json` answers.
    document: Arc<str>,
    /// Ends the streams of events.
    stop: CancellationToken,
    streams: Arc<Streams>,
}

impl ApiState {
    /// Streams of events end when `stop` is cancelled.
    #[must_use]
    pub fn new(
        bridge: Bridge,
        keys: Arc<Keys>,
        registry: Registry,
        readiness: Readiness,
        config: &Config,
        stop: CancellationToken,
    ) -> Self {
        let http = config.http.clone();
        let document = document(bridge.content_limits(), bridge.reactions_max());
        let streams = Streams::new(http.events_max, http.events_per_user_max);
        Self {
            bridge,
            keys,
            registry: Arc::new(registry),
            readiness,
            http,
            document: document.to_string().into(),
            stop,
            streams: Arc::new(streams),
        }
    }
}

/// Whether new work is welcome. The clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Everything is started: `/readyz` may turn green.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The first step of a shutdown: `/readyz` turns red.
    pub fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
