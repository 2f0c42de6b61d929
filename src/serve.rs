//! Builds the parts, starts them, stops them in order.

use std::net::SocketAddr;

use crate::config::Config;

/// A broker that serves.
pub struct Running {
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
}

impl Running {
    pub async fn stopped(self) -> anyhow::Result<()> {
        std::future::pending().await
    }
}

pub async fn start(config: Config) -> anyhow::Result<Running> {
    let _ = config;
    anyhow::bail!("not built yet")
}
