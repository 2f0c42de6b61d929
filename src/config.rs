//! Settings: `broker-config/default.toml`, then a profile, then the environment.
//!
//! The file of defaults explains every setting; here stand their types and what must hold
//! between them. Nothing else in the program reads the environment.

mod attachments;
mod conversation;
mod presence;
mod push;

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Config as Sources, ConfigError, Environment, File, FileFormat};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use attachments::AttachmentsConfig;
pub use conversation::{ConversationConfig, HistoryDepth};
pub use presence::PresenceConfig;
pub use push::{
    ApnsApp, Environment as ApnsEnvironment, FcmApp, PushConfig, Template, TemplateClass, WebApp,
};

const DEFAULTS: &str = include_str!("../broker-config/default.toml");

/// Every setting of the process. Built once at start and passed down in parts.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    pub mqtt: MqttConfig,
    pub tls: TlsConfig,
    pub http: HttpConfig,
    pub limits: LimitsConfig,
    pub auth: AuthConfig,
    pub message: MessageConfig,
    pub presence: PresenceConfig,
    pub conversation: ConversationConfig,
    pub attachments: AttachmentsConfig,
    pub inbox: InboxConfig,
    pub store: StoreConfig,
    pub push: PushConfig,
    pub log: LogConfig,
}

/// The MQTT listener and the limits of a connection and a session.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    pub listen: SocketAddr,
    pub connections_max: NonZeroUsize,
    pub connects_per_second: NonZeroU32,
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub keep_alive_max: Duration,
    #[serde(with = "humantime_serde")]
    pub session_expiry_max: Duration,
    pub inflight_max: NonZeroU16,
    pub receive_max: NonZeroU16,
    pub packet_bytes_max: u32,
    pub topic_alias_max: u16,
    pub topic_alias_out_max: u16,
    pub subscriptions_max: usize,
    pub outbound_bytes_max: usize,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    pub backlog_entries_max: NonZeroUsize,
    pub publishes_per_second: u32,
}

/// MQTT over TLS; off without an address.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    #[serde(deserialize_with = "empty_is_none")]
    pub listen: Option<SocketAddr>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

/// REST and WebSocket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    pub body_bytes_max: usize,
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    pub cors_origins: Vec<String>,
    pub events_max: usize,
    pub events_per_user_max: usize,
    #[serde(with = "humantime_serde")]
    pub events_heartbeat: Duration,
}

/// How fast one user may be, over REST and MQTT together; 0 is no limit.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    pub requests_per_second: u32,
    pub requests_burst: NonZeroU32,
    pub messages_per_second: u32,
    pub messages_burst: NonZeroU32,
}

/// Whose tokens are believed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    #[serde(deserialize_with = "empty_is_none")]
    pub keys: Option<PathBuf>,
    #[serde(deserialize_with = "empty_is_none")]
    pub issuer: Option<String>,
    #[serde(deserialize_with = "empty_is_none")]
    pub audience: Option<String>,
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    #[serde(with = "humantime_serde")]
    pub expiry_warning: Duration,
}

/// Limits of messages and conversations.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MessageConfig {
    pub bytes_max: usize,
    pub reactions_max: u16,
    pub mentions_max: u16,
    pub attachments_max: u16,
    pub participants_max: usize,
    pub receipts_participants_max: usize,
    #[serde(with = "humantime_serde")]
    pub erase_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub receipts_interval: Duration,
}

impl MessageConfig {
    /// What must hold for the settings: each is stored, and asked for, with its message.
    fn check(&self) -> Result<(), String> {
        for (name, count, most) in [
            ("reactions_max", self.reactions_max, 1000),
            ("mentions_max", self.mentions_max, 1000),
            ("attachments_max", self.attachments_max, 100),
        ] {
            if count > most {
                return Err(format!("message.{name} must lie between 0 and {most}"));
            }
        }
        Ok(())
    }
}

/// What users are told of their inboxes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InboxConfig {
    #[serde(with = "humantime_serde")]
    pub patch_interval: Duration,
}

/// Postgres, and how it is written to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Secret, since it may hold a password: never logged. Empty means embedded.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    pub connections_max: u32,
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    pub writers: NonZeroUsize,
    pub batch_messages_max: NonZeroUsize,
    pub batch_bytes_max: usize,
    pub queue_messages_max: NonZeroUsize,
    #[serde(with = "humantime_serde")]
    pub retry_min: Duration,
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    pub flush_positions_max: usize,
    #[serde(with = "humantime_serde")]
    pub relay_interval: Duration,
    #[serde(deserialize_with = "empty_is_none")]
    pub pg_bin_dir: Option<PathBuf>,
}

impl StoreConfig {
    /// The address of an external Postgres; none means the embedded one.
    #[must_use]
    pub fn external_url(&self) -> Option<&SecretString> {
        (!self.url.expose_secret().is_empty()).then_some(&self.url)
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub level: String,
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// What the command line sets above every other source.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub data_dir: Option<PathBuf>,
    pub database_url: Option<SecretString>,
}

impl Config {
    /// Reads the settings. `environment` is that of the process, or a test's.
    ///
    /// # Errors
    ///
    /// If a source cannot be read, a key is unknown, or values do not fit each other.
    pub fn load(
        profile: Option<&Path>,
        environment: HashMap<String, String>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let mut sources = Sources::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = profile {
            sources = sources.add_source(File::from(path).format(FileFormat::Toml));
        }
        let environment = Environment::with_prefix("HOMING")
            .prefix_separator("__")
            .separator("__")
            .source(Some(environment));
        let mut config: Self = sources.add_source(environment).build()?.try_deserialize()?;
        if let Some(data_dir) = overrides.data_dir {
            config.data_dir = data_dir;
        }
        if let Some(url) = overrides.database_url {
            config.store.url = url;
        }
        config.check().map_err(ConfigError::Message)?;
        Ok(config)
    }

    /// Reads the settings with the environment of this process.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn from_process(profile: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        Self::load(profile, std::env::vars().collect(), overrides)
    }

    /// What must hold between settings.
    fn check(&self) -> Result<(), String> {
        let envelope_bytes = 1024;
        if self.message.bytes_max + envelope_bytes > self.mqtt.packet_bytes_max as usize {
            return Err(format!(
                "mqtt.packet_bytes_max ({}) must exceed message.bytes_max ({}) by {envelope_bytes}, or no device could send the largest message",
                self.mqtt.packet_bytes_max, self.message.bytes_max
            ));
        }
        if self.message.bytes_max > self.store.batch_bytes_max {
            return Err("store.batch_bytes_max must hold at least message.bytes_max".to_owned());
        }
        if self.store.retry_min > self.store.retry_max {
            return Err("store.retry_min must not exceed store.retry_max".to_owned());
        }
        if self.store.connections_max < 2 {
            return Err("store.connections_max must be at least 2".to_owned());
        }
        let tls_files = [&self.tls.certificate, &self.tls.key];
        if self.tls.listen.is_some() && tls_files.iter().any(|path| path.as_os_str().is_empty()) {
            return Err("tls.listen needs tls.certificate and tls.key, both PEM files".to_owned());
        }
        if self.mqtt.keep_alive_max.as_secs() == 0
            || self.mqtt.keep_alive_max.as_secs() > u64::from(u16::MAX)
        {
            return Err("mqtt.keep_alive_max must lie between 1s and 65535s".to_owned());
        }
        self.message.check()?;
        self.presence.check()?;
        self.attachments.check()?;
        if let Some(wrong) = self.http.cors_origins.iter().find(|text| !is_origin(text)) {
            return Err(format!(
                "http.cors_origins: `{wrong}` is neither \"*\" nor an origin as in https://chat.example.com"
            ));
        }
        if self.http.events_heartbeat.is_zero() {
            return Err("http.events_heartbeat must be more than nothing".to_owned());
        }
        self.push.check()
    }
}

/// What a browser sends as `Origin`: scheme, host, and perhaps a port.
fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    text == "*"
        || host.is_some_and(|host| {
            let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '*');
            !host.is_empty() && host.chars().all(is_plain)
        })
}

/// `""` in a file stands for "not set": TOML has no null.
fn empty_is_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    match String::deserialize(deserializer)?.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// A secret is shown as set or not set.
fn redacted<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose_secret().is_empty() {
        ""
    } else {
        "(secret)"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Config::load(None, environment, Overrides::default())
    }

    #[test]
    fn every_file_of_broker_config_loads() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("broker-config");
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            Config::load(Some(&path), HashMap::new(), Overrides::default())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    #[test]
    fn the_environment_wins_over_defaults() {
        let config = load(&[("HOMING__MQTT__INFLIGHT_MAX", "8")]).unwrap();
        assert_eq!(config.mqtt.inflight_max.get(), 8);
        assert_eq!(config.mqtt.keep_alive_max, Duration::from_mins(30));
        assert!(config.store.external_url().is_none());
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let error = load(&[("HOMING__MQTT__INFLIGHT", "8")]).unwrap_err();
        assert!(error.to_string().contains("inflight"), "{error}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (key, value, says) in [
            (
                "HOMING__MQTT__PACKET_BYTES_MAX",
                "1000",
                "message.bytes_max",
            ),
            ("HOMING__TLS__LISTEN", "127.0.0.1:0", "tls.certificate"),
            ("HOMING__STORE__RETRY_MIN", "1h", "retry_max"),
            ("HOMING__MQTT__KEEP_ALIVE_MAX", "0s", "keep_alive_max"),
            (
                "HOMING__PRESENCE__TYPING_TTL",
                "2s",
                "presence.typing_interval",
            ),
            ("HOMING__PRESENCE__WATCH_TTL", "999ms", "at least 1s"),
            ("HOMING__HTTP__EVENTS_HEARTBEAT", "0s", "events_heartbeat"),
            (
                "HOMING__MESSAGE__REACTIONS_MAX",
                "1001",
                "message.reactions_max must lie between 0 and 1000",
            ),
            ("HOMING__MESSAGE__MENTIONS_MAX", "1001", "mentions_max"),
            ("HOMING__MESSAGE__ATTACHMENTS_MAX", "101", "attachments_max"),
        ] {
            let error = load(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(says), "{key}: {error}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        for text in ["*", "https://chat.example.com", "http://localhost:8000"] {
            assert!(is_origin(text), "{text}");
        }
        for text in [
            "",
            "chat.example.com",
            "https://",
            "https://a/",
            "https://*.a.com",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }

    #[test]
    fn a_database_url_is_never_printed() {
        let config = load(&[("HOMING__STORE__URL", "postgres://u:hunter2@h/d")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["store"]["url"], "(secret)");
        assert_eq!(json["mqtt"]["keep_alive_max"], "30m");
    }
}
