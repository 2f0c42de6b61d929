//! Settings of the push gateway.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// When, how and to whom notifications leave; without an app none does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PushConfig {
    pub apns: Vec<ApnsApp>,
    pub fcm: Vec<FcmApp>,
    pub web: Vec<WebApp>,
    #[serde(with = "humantime_serde")]
    pub grace_offline: Duration,
    #[serde(with = "humantime_serde")]
    pub grace_connected: Duration,
    #[serde(with = "humantime_serde")]
    pub grace_elsewhere: Duration,
    #[serde(with = "humantime_serde")]
    pub repeat_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub background_interval: Duration,
    pub budget_burst: NonZeroU32,
    #[serde(with = "humantime_serde")]
    pub budget_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub time_to_live: Duration,
    pub badge: bool,
    pub encrypted_types: Vec<String>,
    pub templates: Vec<Template>,
    pub texts: BTreeMap<String, String>,
    pub concurrency: NonZeroUsize,
    pub claim_jobs_max: NonZeroU32,
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub retry_min: Duration,
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    pub ramp_per_second: NonZeroU32,
    pub per_second_max: NonZeroU32,
    pub breaker_refusals: NonZeroU32,
    /// Of all answers, 0 to 1.
    pub breaker_share: f64,
    #[serde(with = "humantime_serde")]
    pub breaker_pause: Duration,
    #[serde(with = "humantime_serde")]
    pub dead_token_retention: Duration,
    #[serde(with = "humantime_serde")]
    pub ledger_retention: Duration,
}

/// An app that is woken through APNs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApnsApp {
    /// The bundle id: `apns-topic`.
    pub app: String,
    #[serde(default)]
    pub environment: Environment,
    /// The PEM file (.p8) of the signing key.
    pub key: PathBuf,
    pub key_id: String,
    pub team_id: String,
    /// Instead of Apple's, as in `https://api.push.apple.com`.
    pub url: Option<String>,
    /// Instead of what the name in the URL resolves to.
    pub connect: Option<SocketAddr>,
    /// A PEM file: the only certificate authority that is believed.
    pub ca: Option<PathBuf>,
}

/// Which of Apple's environments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    #[default]
    Production,
    Sandbox,
}

/// A Firebase project.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FcmApp {
    /// The project id.
    pub app: String,
    /// The JSON file of the service account; its `token_uri` is where access tokens come from.
    pub service_account: PathBuf,
    /// Instead of `https://fcm.googleapis.com`.
    pub url: Option<String>,
    /// Instead of what the names of Google resolve to, the token endpoint's included.
    pub connect: Option<SocketAddr>,
    /// A PEM file: the only certificate authority that is believed.
    pub ca: Option<PathBuf>,
}

/// A web app.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebApp {
    pub app: String,
    /// The PEM file of the VAPID key (P-256).
    pub vapid_key: PathBuf,
    /// Whom a push service may write to: `mailto:` or `https:`, RFC 8292 §2.1.
    pub subject: String,
    /// Hosts (`name` or `name:port`) that may be reached at private addresses and over plain
    /// HTTP: for tests.
    #[serde(default)]
    pub private_hosts: Vec<String>,
    /// A PEM file: the only certificate authority that is believed.
    pub ca: Option<PathBuf>,
}

/// How messages of a kind become notifications.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The app it is for; empty is any.
    pub app: String,
    /// The type of message it is for; empty is any.
    pub r#type: String,
    pub class: TemplateClass,
    /// A key of the app's own texts; empty if there is none.
    pub loc_key: String,
    pub sound: String,
    /// Whether sender and text are shown.
    pub preview: bool,
}

/// What a notification does to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateClass {
    /// It is shown.
    Alert,
    /// It wakes the app, if the system thinks fit.
    Background,
    /// It rings.
    Voip,
    /// Nothing is sent.
    None,
}

impl PushConfig {
    /// Whether there is anybody to push through.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !(self.apns.is_empty() && self.fcm.is_empty() && self.web.is_empty())
    }

    /// What must hold between settings.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut known = HashSet::new();
        let apns = self
            .apns
            .iter()
            .map(|app| ("apns", &app.app, app.environment));
        let fcm = self
            .fcm
            .iter()
            .map(|app| ("fcm", &app.app, Environment::Production));
        let web = self
            .web
            .iter()
            .map(|app| ("web", &app.app, Environment::Production));
        for (list, app, environment) in apns.chain(fcm).chain(web) {
            if app.is_empty() || app.contains([':', ' ']) {
                return Err(format!(
                    "push.{list}: `app` has no colons and no spaces, and is not empty"
                ));
            }
            if !known.insert((list, app, environment as u8)) {
                return Err(format!("push.{list}: `{app}` appears twice"));
            }
        }
        let falls_through =
            |template: &Template| template.app.is_empty() && template.r#type.is_empty();
        if !self.templates.iter().any(falls_through) {
            return Err(
                "push.templates needs one with app = \"\" and type = \"\", for everything else"
                    .to_owned(),
            );
        }
        if !self.texts.contains_key("en") {
            return Err("push.texts needs a text for `en`, the last resort".to_owned());
        }
        if self.retry_min > self.retry_max {
            return Err("push.retry_min must not exceed push.retry_max".to_owned());
        }
        if self.lease <= self.request_timeout * 2 {
            return Err("push.lease must be longer than twice push.request_timeout, or jobs would be done twice".to_owned());
        }
        if self.grace_connected.is_zero() {
            return Err(
                "push.grace_connected must not be 0s: no device answers at once".to_owned(),
            );
        }
        if self.grace_offline > self.grace_connected || self.grace_connected > self.grace_elsewhere
        {
            return Err(
                "push.grace_offline, grace_connected and grace_elsewhere must not fall".to_owned(),
            );
        }
        if !(0.0..=1.0).contains(&self.breaker_share) {
            return Err("push.breaker_share must lie between 0 and 1".to_owned());
        }
        Ok(())
    }
}
