//! The push gateway: wakes devices that do not answer.
//!
//! It reads the outbox, as its own consumer, and knows nothing of the broker: what a device
//! has acknowledged, and whether it is connected, stands in the store.
//!
//! ```text
//!   outbox ─▶ arming ─▶ jobs in Postgres ─▶ worker (one for each app) ─▶ provider ─▶ APNs, FCM, Web Push
//!                                              compose ── template          │
//!                                              answer ── ramp, breaker ◀────┘
//! ```

mod answer;
mod arming;
mod breaker;
mod compose;
pub mod notification;
pub mod provider;
mod ramp;
mod template;
mod upkeep;
mod worker;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    config::PushConfig,
    store::{
        StoreError, outbox,
        push::arm::{Graces, Pass},
    },
    telemetry::metrics::PushMetrics,
};
use arming::{Arming, consumer};
use provider::ProviderError;
use worker::Worker;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("store")]
    Store(#[from] StoreError),
}

/// What runs while Homing pushes. Spawn each.
pub struct Push {
    armings: Vec<Arming>,
    workers: Vec<Worker>,
    pool: PgPool,
    config: Arc<PushConfig>,
    routes: Vec<String>,
}

impl Push {
    /// Reads the keys of all apps. Without an app nothing runs, and the outbox does not wait
    /// for it.
    ///
    /// # Errors
    ///
    /// [`PushError`]: a key that cannot be used, with the cure; or the store is away.
    pub async fn open(
        pool: PgPool,
        config: &PushConfig,
        metrics: &PushMetrics,
    ) -> Result<Option<Self>, PushError> {
        let clients = provider::open(config)?;
        if clients.is_empty() {
            let mut conn = pool.acquire().await.map_err(StoreError::from)?;
            for pass in [Pass::Early, Pass::Late] {
                outbox::forget(&mut conn, consumer(pass)).await?;
            }
            return Ok(None);
        }
        let config = Arc::new(config.clone());
        let graces = Graces {
            offline: config.grace_offline,
            connected: config.grace_connected,
            elsewhere: config.grace_elsewhere,
            repeat: config.repeat_interval,
        };
        let routes = clients.iter().map(|(route, _)| route.to_string()).collect();
        let worker = |(route, client)| Worker {
            pool: pool.clone(),
            config: config.clone(),
            route,
            client: Arc::new(client),
            wake: Arc::new(Notify::new()),
            metrics: metrics.clone(),
            graces,
        };
        let workers: Vec<Worker> = clients.into_iter().map(worker).collect();
        let arming = |pass| Arming {
            pool: pool.clone(),
            pass,
            graces,
            routes: Vec::clone(&routes),
            poll_interval: config.poll_interval,
            armed: workers.iter().map(|worker| worker.wake.clone()).collect(),
            metrics: metrics.clone(),
        };
        let armings = [Pass::Early, Pass::Late].map(arming).into();
        Ok(Some(Self {
            armings,
            workers,
            pool,
            config,
            routes,
        }))
    }

    /// Hands every task to `spawn`; they end when `stop` is cancelled, after the requests in
    /// flight have been answered.
    pub fn spawn(
        self,
        stop: &CancellationToken,
        mut spawn: impl FnMut(&'static str, BoxFuture<'static, ()>),
    ) {
        for arming in self.armings {
            spawn("push arming", Box::pin(arming.run(stop.clone())));
        }
        for worker in self.workers {
            spawn("push worker", Box::pin(worker.run(stop.clone())));
        }
        let upkeep = upkeep::run(self.pool, self.config, self.routes, stop.clone());
        spawn("push upkeep", Box::pin(upkeep));
    }
}
