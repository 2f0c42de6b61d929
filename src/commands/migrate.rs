//! `homing migrate`: brings the schema up to this version, and does nothing else.

use std::str::FromStr as _;

use anyhow::Context as _;
use clap::Args;
use homing::{
    config::Config,
    store::{self, MIGRATOR, embedded::EmbeddedPostgres},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::{Sources, failure::Failure, output};

const EXAMPLES: &str = "\
Examples:
  homing migrate                                          the broker's own Postgres in ./data
  HOMING__STORE__URL=postgres://homing:secret@db/homing homing migrate

`homing serve` does the same at its start; this is for a database that several brokers share.";

/// Bring the database's schema up to this version, and do nothing else
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Migrate {
    /// As in `homing serve`
    #[arg(long, value_name = "URL")]
    database_url: Option<SecretString>,
}

impl Migrate {
    pub(super) async fn run(self, sources: &Sources) -> Result<(), Failure> {
        let settings = sources.load(self.database_url)?;
        match settings.store.external_url() {
            Some(url) => migrate(external(url)?, &settings).await?,
            None => migrate_embedded(&settings).await?,
        }
        let version = MIGRATOR.iter().map(|migration| migration.version).max();
        output::line(&format!("schema {}", version.unwrap_or_default()))?;
        Ok(())
    }
}

/// Reads the address of a database. It may hold a password: errors do not repeat it.
pub(super) fn external(url: &SecretString) -> Result<PgConnectOptions, Failure> {
    let url = url.expose_secret();
    let is_postgres = ["postgres://", "postgresql://"]
        .iter()
        .any(|begin| url.starts_with(begin));
    let options = PgConnectOptions::from_str(url).ok().filter(|_| is_postgres);
    options.ok_or_else(|| {
        Failure::new("store.url is no address of a Postgres")
            .hint("write it as in postgres://user@host/database")
    })
}

async fn migrate(options: PgConnectOptions, settings: &Config) -> Result<(), Failure> {
    let pool = store::open_pool(options, 1, settings.store.acquire_timeout);
    let migrated = store::migrate(&pool).await;
    pool.close().await;
    Ok(migrated?)
}

async fn migrate_embedded(settings: &Config) -> Result<(), Failure> {
    let pg_bin_dir = settings.store.pg_bin_dir.as_deref();
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("create {}", settings.data_dir.display()))?;
    let embedded = EmbeddedPostgres::start(&settings.data_dir, pg_bin_dir)
        .await
        .map_err(anyhow::Error::from)?;
    let migrated = migrate(embedded.options(), settings).await;
    embedded.stop(settings.shutdown_timeout).await;
    migrated
}
