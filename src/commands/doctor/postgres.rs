//! Postgres: the programs of the embedded one, or the server that `store.url` names.

use homing::{
    config::Config,
    store::{MIGRATOR, embedded},
};
use sqlx::{Connection as _, PgConnection, migrate::Migrate as _, postgres::PgConnectOptions};
use tokio::time;

use super::{super::migrate::external, Check};

const SUBJECT: &str = "postgres";
/// As `server_version_num` says it.
const VERSION_MIN: u32 = 15_00_00;
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

pub(super) async fn check(settings: &Config) -> Check {
    let Some(url) = settings.store.external_url() else {
        return installed(settings).await;
    };
    let options = match external(url) {
        Ok(options) => options,
        Err(failure) => return Check::fail(SUBJECT, failure.text(), "correct store.url"),
    };
    let place = format!("{}:{}", options.get_host(), options.get_port());
    match time::timeout(settings.store.acquire_timeout, server(&options)).await {
        Ok(Ok(check)) => check,
        Ok(Err(error)) => Check::fail(
            SUBJECT,
            format!("{place}: {error}"),
            "start it, let this machine in (pg_hba.conf), and check user and password in store.url",
        ),
        Err(_) => Check::fail(
            SUBJECT,
            format!("{place} does not answer within store.acquire_timeout"),
            "check host, port and firewall",
        ),
    }
}

async fn installed(settings: &Config) -> Check {
    let pg_bin_dir = settings.store.pg_bin_dir.as_deref();
    match embedded::installed(&settings.data_dir, pg_bin_dir).await {
        Ok(version) => Check::ok(
            SUBJECT,
            format!("{version} is installed, for the embedded one"),
        ),
        // Its texts name the cure.
        Err(error) => Check::fail(SUBJECT, error.to_string(), ""),
    }
}

async fn server(options: &PgConnectOptions) -> Result<Check, sqlx::Error> {
    let mut conn = PgConnection::connect_with(options).await?;
    let version = conn.server_version_num().unwrap_or_default();
    let (major, minor) = (version / 10_000, version % 10_000);
    if version < VERSION_MIN {
        let finding = format!("the server is {major}.{minor}");
        return Ok(Check::fail(SUBJECT, finding, "upgrade it to 15 or newer"));
    }
    let applied = match conn.list_applied_migrations(MIGRATIONS_TABLE).await {
        Ok(applied) => applied.iter().map(|migration| migration.version).max(),
        // A database that no broker has used yet has no such table.
        Err(_) => None,
    };
    let known = MIGRATOR.iter().map(|migration| migration.version).max();
    let finding = format!(
        "the server is {major}.{minor}, its schema {}, this program's {}",
        applied.unwrap_or_default(),
        known.unwrap_or_default()
    );
    Ok(if applied > known {
        Check::fail(
            SUBJECT,
            finding,
            "start the version of homing that wrote it, or a newer one",
        )
    } else {
        Check::ok(SUBJECT, finding)
    })
}
