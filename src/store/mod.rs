//! Everything that is SQL.
//!
//! Functions take a `&mut PgConnection`, so the caller decides what belongs to one
//! transaction. No other module names a table.
//!
//! Every statement finds its rows by an index, whatever the planner believes about the
//! tables: each connection is told so when it is opened.

pub mod blocks;
pub mod changes;
pub mod conversations;
pub mod cursors;
pub mod direct;
pub mod embedded;
pub mod entries;
pub mod expiry;
pub mod hash;
pub mod idempotency;
pub mod inbox;
pub mod inbox_settings;
pub mod inbox_unread;
pub mod members;
pub mod messages;
pub mod outbox;
pub mod presence;
pub mod push;
pub mod roster;
pub mod sessions;
pub mod status;
pub mod thread;
pub mod users;
pub mod view;

use std::{error::Error, time::Duration};

use sqlx::{
    Connection, PgConnection, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The schema, embedded in the binary and applied at start.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// The oldest Postgres that has all we use, as `server_version_num`.
const SERVER_VERSION_MIN: i32 = 150_000;
/// A pooled connection that was idle for longer is asked whether it still lives.
const IDLE_UNASKED_MAX: Duration = Duration::from_secs(1);

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("this device was signed out; get a new token for it")]
    SignedOut,
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),

    #[error("the database holds a value that the code cannot read")]
    Corrupt(#[source] Box<dyn Error + Send + Sync>),

    #[error("migration: {0}")]
    Migration(#[source] MigrateError),

    #[error(
        "the database has schema {version}, which this version does not know; start the version that wrote it, or a newer one"
    )]
    SchemaNewer { version: i64 },

    #[error(
        "schema {version} in the database is not the one this version would have made; start the version that wrote it"
    )]
    SchemaDiffers { version: i64 },

    #[error("the database server is Postgres {version}; version 15 or newer is needed")]
    ServerTooOld { version: String },
}

impl StoreError {
    pub(crate) fn corrupt(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Corrupt(source.into())
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let (Self::Database(error) | Self::Migration(MigrateError::Execute(error))) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => true,
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| may_pass(&code)),
            _ => false,
        }
    }
}

/// Whether what a `SQLSTATE` names passes by itself.
fn may_pass(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // Connection lost; no memory, disk or connections left.
    matches!(class, "08" | "53")
        || matches!(
            code,
            // Serialization, deadlock, lock or statement cancelled.
            "40001" | "40P01" | "55P03" | "57014"
            // The server stops, crashed or starts; it has become a standby.
            | "57P01" | "57P02" | "57P03" | "25006"
        )
}

/// A pool of connections. None is opened before it is needed.
#[must_use]
pub fn open_pool(
    options: PgConnectOptions,
    connections_max: u32,
    acquire_timeout: Duration,
) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(acquire_timeout)
        .after_connect(|conn, _| Box::pin(settle_plans(conn)))
        // A busy connection proves itself; asking each time would double the round trips.
        .test_before_acquire(false)
        .before_acquire(|conn, about| {
            Box::pin(async move {
                if about.idle_for > IDLE_UNASKED_MAX {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Tells a new connection that rows are found by an index, always.
///
/// A young table has no statistics and an array has no estimate: left alone, the planner
/// reads whole tables, and changes its mind while the service runs. Without `jit = off` a
/// forbidden plan that remains the only one would be compiled each time.
async fn settle_plans(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select set_config(s.name, s.value, false) from (values
            ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_seqscan', 'off'),
            ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_memoize', 'off'),
            ('default_transaction_isolation', 'read committed')) as s (name, value)"
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Brings the schema up to this version. Several processes may do so at once.
///
/// # Errors
///
/// [`StoreError::ServerTooOld`], [`StoreError::SchemaNewer`] or [`StoreError::SchemaDiffers`]
/// if this program and this database do not fit; nothing has been changed then.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    let server = sqlx::query!(
        r#"select current_setting('server_version_num')::integer as "number!",
                  current_setting('server_version') as "text!""#
    )
    .fetch_one(pool)
    .await?;
    if server.number < SERVER_VERSION_MIN {
        return Err(StoreError::ServerTooOld {
            version: server.text,
        });
    }
    MIGRATOR.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::SchemaNewer { version },
        MigrateError::VersionMismatch(version) => StoreError::SchemaDiffers { version },
        other => StoreError::Migration(other),
    })
}
