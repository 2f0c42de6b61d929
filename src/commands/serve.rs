//! `homing serve`: runs the broker.

use clap::Args;
use homing::{serve, telemetry::logs};
use secrecy::SecretString;

use super::{Sources, failure::Failure, output};

const EXAMPLES: &str = "\
Examples:
  homing serve
  homing serve --config broker-config/production.toml
  HOMING__STORE__URL=postgres://homing:secret@db/homing homing serve
  HOMING__MQTT__LISTEN=127.0.0.1:0 homing serve --data-dir /tmp/try

Once it serves, one line appears on stdout: ready mqtt=ADDRESS http=ADDRESS. Logs go to stderr.";

/// Run the broker, with its own Postgres unless another one is named
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// A Postgres of your own, 15 or newer; a password belongs into the environment
    #[arg(long, value_name = "URL")]
    database_url: Option<SecretString>,
}

impl Serve {
    pub(super) async fn run(self, sources: &Sources) -> Result<(), Failure> {
        let settings = sources.load(self.database_url)?;
        logs::init(&settings.log).map_err(|error| Failure::new(error.to_string()))?;
        let running = serve::start(settings).await.map_err(|error| {
            Failure::from(error).hint("`homing doctor` looks for the cause and names the cure")
        })?;
        output::line(&format!(
            "ready mqtt={} http={}",
            running.mqtt, running.http
        ))?;
        running.stopped().await?;
        Ok(())
    }
}
