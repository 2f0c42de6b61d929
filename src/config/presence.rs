//! Settings of typing and presence.

use std::{num::NonZeroUsize, time::Duration};

use serde::{Deserialize, Serialize};

/// How long what is ephemeral lasts, and how often it is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceConfig {
    #[serde(with = "humantime_serde")]
    pub typing_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub typing_ttl: Duration,
    #[serde(with = "humantime_serde")]
    pub active_ttl: Duration,
    #[serde(with = "humantime_serde")]
    pub watch_ttl: Duration,
    #[serde(with = "humantime_serde")]
    pub offline_delay: Duration,
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    pub watched_max: NonZeroUsize,
    pub watchers_max: NonZeroUsize,
    pub watches_max: NonZeroUsize,
}

impl PresenceConfig {
    /// What must hold between settings.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.typing_ttl < self.typing_interval {
            return Err(
                "presence.typing_ttl must not be shorter than presence.typing_interval, or typing would flicker"
                    .to_owned(),
            );
        }
        let second = Duration::from_secs(1);
        if self.typing_ttl < second || self.watch_ttl < second {
            return Err(
                "presence.typing_ttl and presence.watch_ttl must be at least 1s: devices are told whole seconds"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
