//! REST, for what is not a stream.
//!
//! A handler translates; what is allowed and what happens is decided in `bridge`. Every
//! refusal is a problem document (RFC 9457) that says what to do.

mod error;
mod extract;
mod health;
mod messages;
mod operations;
mod router;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use prometheus_client::registry::Registry;

pub use router::router;

use crate::{
    bridge::{Bridge, identity::Keys},
    config::HttpConfig,
};

/// What the handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiState {
    pub bridge: Bridge,
    pub keys: Arc<Keys>,
    pub registry: Arc<Registry>,
    pub readiness: Readiness,
    pub http: HttpConfig,
    /// The largest message, as over MQTT: `message.bytes_max`.
    pub message_bytes_max: usize,
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
