//! The private Postgres cluster of the embedded default.
//!
//! ```text
//!   start ──▶ lock the data directory ──▶ a cluster there? ──no──▶ initdb
//!                                              │ yes
//!             one of its postmasters runs? ◀───┘
//!                 yes: adopt it        no: wait for orphans, start one
//!   supervise ──▶ it ended: the same again, after a pause that grows
//!             ──▶ shutdown: SIGINT, then SIGQUIT
//! ```
//!
//! The promise: whatever was killed, in whatever order, the next start finds the cluster
//! and everything committed in it; and nobody but the owner of the data directory (and
//! root) can connect. Nothing here knows the schema.

mod binaries;
mod bring_up;
mod error;
mod initdb;
mod lock;
mod output;
mod owner;
mod pidfile;
mod place;
mod postmaster;
mod process;
mod supervise;

use std::{path::Path, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::watch;

use self::{binaries::Binaries, output::Log, place::Place, postmaster::Postmaster};
pub use self::{
    binaries::Version,
    error::EmbeddedError,
    lock::DataDirLock,
    supervise::{EmbeddedHandle, Status},
};

/// The cluster of a data directory, running. Hand it to [`EmbeddedPostgres::supervise`];
/// dropped, Postgres is asked to stop, but nobody waits for it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    place: Place,
    binaries: Binaries,
    password: SecretString,
    log: Log,
    /// None only before the first start.
    postmaster: Option<Postmaster>,
    status: watch::Sender<Status>,
    /// Last, so that it is let go last.
    _lock: DataDirLock,
}

impl EmbeddedPostgres {
    /// Brings up the cluster of the data directory, made at the first start. Returns when
    /// its database answers, which after a crash may take a while.
    ///
    /// Give up by dropping the future: Postgres is then asked to stop.
    pub async fn start(data_dir: &Path, pg_bin_dir: Option<&Path>) -> Result<Self, EmbeddedError> {
        let lock = DataDirLock::acquire(data_dir)?;
        let place = Place::find(data_dir)?;
        let has_cluster = place.has_cluster()?;
        let binaries = fitting(&place, pg_bin_dir).await?;
        place.prepare()?;
        initdb::remove_unfinished(&place);
        let password = initdb::password(&place)?;
        if !has_cluster {
            tracing::info!(home = %place.home.display(), version = %binaries.version, "making a Postgres cluster");
            initdb::create(&place, &binaries, &password).await?;
        }
        place.remember()?;
        let mut embedded = Self {
            log: Log::new(place.log.clone()),
            place,
            binaries,
            password: password.into(),
            postmaster: None,
            status: watch::Sender::default(),
            _lock: lock,
        };
        embedded.bring_up().await?;
        Ok(embedded)
    }

    /// How to connect to its database.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("localhost")
            .port(5432)
            .socket(&self.place.socket_dir)
            .ssl_mode(PgSslMode::Disable)
            .username(initdb::NAME)
            .password(self.password.expose_secret())
            .database(initdb::NAME)
    }

    /// The version of the installed programs; a cluster only runs with its own major version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.binaries.version
    }

    /// The process id of the postmaster.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.postmaster.as_ref().map(Postmaster::pid)
    }

    /// Shows from elsewhere whether Postgres is up while it is being supervised.
    #[must_use]
    pub fn handle(&self) -> EmbeddedHandle {
        EmbeddedHandle::new(self.status.subscribe())
    }

    /// Stops Postgres in order, or after `deadline` at once; returns when it is gone.
    pub async fn stop(mut self, deadline: Duration) {
        self.shut_down(deadline).await;
    }

    async fn shut_down(&mut self, deadline: Duration) {
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.stop(deadline).await;
        }
        self.status.send_modify(|status| status.pid = None);
    }
}

/// The version of the installed programs that would run the cluster of a data directory.
/// Starts nothing and changes nothing.
///
/// # Errors
///
/// If there are none, or of another version than the cluster's.
pub async fn installed(
    data_dir: &Path,
    pg_bin_dir: Option<&Path>,
) -> Result<Version, EmbeddedError> {
    let binaries = if data_dir.exists() {
        fitting(&Place::find(data_dir)?, pg_bin_dir).await?
    } else {
        Binaries::find(pg_bin_dir, None).await?
    };
    Ok(binaries.version)
}

/// Programs of the cluster's version, or of any that is new enough before there is one.
async fn fitting(place: &Place, pg_bin_dir: Option<&Path>) -> Result<Binaries, EmbeddedError> {
    let major = place
        .has_cluster()?
        .then(|| initdb::major_of(place))
        .transpose()?;
    let cluster = major.map(|major| (place.pgdata.as_path(), major));
    Binaries::find(pg_bin_dir, cluster).await
}
