//! The private Postgres through its whole life: made, stopped, killed, found again.
//!
//! These tests kill real processes, as root and as an ordinary user. A life that ends with
//! kill -9 is this test binary run again; see `a_life_that_is_killed`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use homing::store::embedded::{EmbeddedError, EmbeddedPostgres};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);
const DATA_DIR_VARIABLE: &str = "HOMING_TEST_EMBEDDED_DATA_DIR";
const NOBODY: u32 = 65534;

/// A data directory that every user can reach, as `/srv/homing` would be. Dropped, it kills
/// the Postgres that a failed test left behind.
struct DataDir(TempDir);

impl DataDir {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn pgdata(&self) -> PathBuf {
        self.path().join("postgres/data")
    }

    fn postmaster_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.pgdata().join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    async fn start(&self) -> Result<EmbeddedPostgres, EmbeddedError> {
        EmbeddedPostgres::start(self.path(), None).await
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster_pid() {
            signal(pid, Signal::QUIT);
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    // It may be gone already.
    let _gone = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

async fn connect(postgres: &EmbeddedPostgres) -> PgConnection {
    postgres.options().connect().await.unwrap()
}

async fn remember(postgres: &EmbeddedPostgres, text: &str) {
    let mut conn = connect(postgres).await;
    sqlx::raw_sql("create table if not exists kept (text text)")
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query("insert into kept values ($1)")
        .bind(text)
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
}

async fn remembered(postgres: &EmbeddedPostgres) -> Vec<String> {
    let mut conn = connect(postgres).await;
    let kept = sqlx::query_scalar("select text from kept")
        .fetch_all(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    kept
}

/// This binary as another process: it starts Postgres and writes `from the life before`.
struct OtherLife {
    process: Child,
    postmaster: i32,
    /// Open as long as it may write.
    _stdout: BufReader<ChildStdout>,
}

fn other_life(data_dir: &Path, uid: Option<u32>) -> OtherLife {
    // A user without rights to the build folder can run a copy.
    let program = data_dir.with_extension("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args([
            "--exact",
            "embedded::a_life_that_is_killed",
            "--include-ignored",
            "--nocapture",
        ])
        .env(DATA_DIR_VARIABLE, data_dir)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut process = command.spawn().unwrap();
    fs::remove_file(program).unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let postmaster = (&mut stdout)
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("postmaster=")?.1.trim().parse().ok())
        .expect("the other life ended before Postgres was up");
    OtherLife {
        process,
        postmaster,
        _stdout: stdout,
    }
}

impl OtherLife {
    /// As kill -9, or the kernel short of memory.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn end_in_order(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

/// Not a test by itself: the process of which the others need a killed one.
#[tokio::test]
#[ignore = "run by other tests"]
async fn a_life_that_is_killed() {
    let Some(data_dir) = std::env::var_os(DATA_DIR_VARIABLE) else {
        return;
    };
    let postgres = EmbeddedPostgres::start(Path::new(&data_dir), None)
        .await
        .unwrap();
    remember(&postgres, "from the life before").await;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\npostmaster={}", postgres.pid().unwrap()).unwrap();
    stdout.flush().unwrap();
    // Until it is killed, or whoever wanted it is gone.
    tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()))
        .await
        .unwrap()
        .unwrap();
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn the_first_start_makes_a_cluster_and_the_second_finds_it() {
    let data_dir = DataDir::new();

    let postgres = data_dir.start().await.unwrap();
    assert!(postgres.version().major >= 15);
    remember(&postgres, "kept").await;
    postgres.stop(DEADLINE).await;
    assert_eq!(data_dir.postmaster_pid(), None);

    let postgres = data_dir.start().await.unwrap();
    assert_eq!(remembered(&postgres).await, ["kept"]);
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn the_cluster_is_durable_checked_and_closed_to_others() {
    let data_dir = DataDir::new();
    let postgres = data_dir.start().await.unwrap();
    let mut conn = connect(&postgres).await;
    for (setting, expected) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("server_encoding", "UTF8"),
    ] {
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(value, expected, "{setting}");
    }
    conn.close().await.unwrap();

    let stranger = postgres
        .options()
        .password("guess")
        .connect()
        .await
        .unwrap_err();
    assert!(
        stranger
            .to_string()
            .contains("password authentication failed"),
        "{stranger}"
    );
    for private in [
        "postgres.password",
        "postgres",
        "postgres/run",
        "postgres/data",
    ] {
        let mode = fs::metadata(data_dir.path().join(private))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{private} is open to others");
    }
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let data_dir = DataDir::new();
    let postgres = data_dir.start().await.unwrap();

    let error = data_dir.start().await.unwrap_err();

    assert!(
        matches!(error, EmbeddedError::Locked { pid: Some(_), .. }),
        "{error}"
    );
    assert!(error.to_string().contains("--data-dir"), "{error}");
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_postgres_that_outlived_a_killed_homing_is_adopted_and_supervised() {
    let data_dir = DataDir::new();
    let life = other_life(data_dir.path(), None);
    let pid = life.postmaster;
    life.kill();

    let postgres = data_dir.start().await.unwrap();
    assert_eq!(postgres.pid(), Some(pid), "it should have been adopted");
    assert_eq!(remembered(&postgres).await, ["from the life before"]);

    killed_under_supervision(postgres, pid).await;
}

#[tokio::test]
async fn a_homing_and_its_postgres_killed_together_come_back_with_everything() {
    let data_dir = DataDir::new();
    let life = other_life(data_dir.path(), None);
    let pid = life.postmaster;
    signal(pid, Signal::KILL);
    life.kill();

    let postgres = data_dir.start().await.unwrap();
    assert_ne!(postgres.pid(), Some(pid));
    assert_eq!(remembered(&postgres).await, ["from the life before"]);
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again() {
    let data_dir = DataDir::new();
    let postgres = data_dir.start().await.unwrap();
    let pid = postgres.pid().unwrap();
    killed_under_supervision(postgres, pid).await;
}

/// Kills the postmaster while a backend holds on to its shared memory, and sees another one
/// come up; then stops in order.
async fn killed_under_supervision(postgres: EmbeddedPostgres, pid: i32) {
    let options = postgres.options();
    let mut handle = postgres.handle();
    let shutdown = CancellationToken::new();
    let supervision = postgres.supervise(shutdown.clone(), DEADLINE);
    let test = async {
        let mut busy = options.connect().await.unwrap();
        let busy = sqlx::raw_sql("select pg_sleep(600)").execute(&mut busy);
        let kill = async {
            signal(pid, Signal::KILL);
            handle
                .until(|status| status.restarts == 1 && status.pid.is_some())
                .await
                .unwrap()
        };
        let (busy, status) = tokio::join!(busy, kill);

        busy.unwrap_err();
        assert_ne!(status.pid, Some(pid));
        options.connect().await.unwrap().close().await.unwrap();
        shutdown.cancel();
    };
    tokio::join!(supervision, test);
    assert_eq!(handle.status().pid, None);
    options.connect().await.unwrap_err();
}

#[tokio::test]
async fn a_postgres_that_cannot_start_is_tried_until_it_can() {
    let data_dir = DataDir::new();
    let postgres = data_dir.start().await.unwrap();
    let (pid, mut handle) = (postgres.pid().unwrap(), postgres.handle());
    let control = data_dir.pgdata().join("global/pg_control");
    let shutdown = CancellationToken::new();
    let supervision = postgres.supervise(shutdown.clone(), DEADLINE);

    let test = async {
        fs::rename(&control, control.with_extension("away")).unwrap();
        signal(pid, Signal::KILL);
        handle
            .until(|status| status.failed_starts == 2)
            .await
            .unwrap();
        assert_eq!(handle.status().pid, None);

        fs::rename(control.with_extension("away"), &control).unwrap();
        handle.until(|status| status.pid.is_some()).await.unwrap();
        shutdown.cancel();
    };

    tokio::join!(supervision, test);
}

#[tokio::test]
async fn a_stale_pid_file_does_not_stand_in_the_way() {
    let data_dir = DataDir::new();
    data_dir.start().await.unwrap().stop(DEADLINE).await;
    // After a restart of the machine any process may have that pid: here, this one.
    let stale = format!(
        "{}\n{}\n0\n5432\n\n\n\nready\n",
        std::process::id(),
        data_dir.pgdata().display()
    );
    fs::write(data_dir.pgdata().join("postmaster.pid"), stale).unwrap();

    let postgres = data_dir.start().await.unwrap();

    assert_ne!(postgres.pid(), i32::try_from(std::process::id()).ok());
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_first_start_that_was_killed_is_begun_anew() {
    let data_dir = DataDir::new();
    data_dir.start().await.unwrap().stop(DEADLINE).await;
    // What is there when initdb was killed: a half-made cluster under another name.
    let home = data_dir.path().join("postgres");
    fs::rename(data_dir.pgdata(), home.join("data.new-half")).unwrap();
    fs::remove_file(home.join("data.new-half/PG_VERSION")).unwrap();

    let postgres = data_dir.start().await.unwrap();

    assert!(!home.join("data.new-half").exists());
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_data_directory_with_a_long_and_odd_path_works() {
    let data_dir = DataDir::new();
    let long = data_dir
        .path()
        .join("a, \"b\" 'c'/ä")
        .join("long/".repeat(30));

    let postgres = EmbeddedPostgres::start(&long, None).await.unwrap();
    remember(&postgres, "kept").await;
    let socket_dir = postgres.options().get_socket().unwrap().clone();
    postgres.stop(DEADLINE).await;

    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn a_data_directory_that_only_root_can_reach_has_its_cluster_elsewhere() {
    if !geteuid().is_root() {
        return;
    }
    let data_dir = DataDir::new();
    fs::set_permissions(data_dir.path(), fs::Permissions::from_mode(0o700)).unwrap();

    let postgres = data_dir.start().await.unwrap();
    remember(&postgres, "kept").await;
    postgres.stop(DEADLINE).await;
    let location = fs::read_to_string(data_dir.path().join("postgres.location")).unwrap();
    let postgres = data_dir.start().await.unwrap();
    let kept = remembered(&postgres).await;
    postgres.stop(DEADLINE).await;
    fs::remove_dir_all(location.trim_end()).unwrap();

    assert_eq!(kept, ["kept"]);
    let error = data_dir.start().await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Incomplete { .. }), "{error}");
}

#[tokio::test]
async fn an_ordinary_user_has_a_cluster_that_root_can_go_on_with() {
    if !geteuid().is_root() {
        return; // All the other tests are run by an ordinary user then.
    }
    let data_dir = DataDir::new();
    std::os::unix::fs::chown(data_dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let life = other_life(data_dir.path(), Some(NOBODY));
    let owner = fs::metadata(data_dir.pgdata()).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), NOBODY);
    life.end_in_order();
    assert_eq!(data_dir.postmaster_pid(), None);

    let postgres = data_dir.start().await.unwrap();
    assert_eq!(remembered(&postgres).await, ["from the life before"]);
    postgres.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_cluster_of_another_version_is_refused() {
    let data_dir = DataDir::new();
    data_dir.start().await.unwrap().stop(DEADLINE).await;
    fs::write(data_dir.pgdata().join("PG_VERSION"), "9\n").unwrap();

    let error = data_dir.start().await.unwrap_err();

    assert!(
        matches!(error, EmbeddedError::OtherVersion { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("made by Postgres 9"), "{error}");
}

#[tokio::test]
async fn a_damaged_cluster_is_told_apart_with_the_words_of_postgres() {
    let data_dir = DataDir::new();
    data_dir.start().await.unwrap().stop(DEADLINE).await;
    let control = data_dir.pgdata().join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[40] ^= 0xff;
    fs::write(&control, bytes).unwrap();

    let error = data_dir.start().await.unwrap_err();

    assert!(matches!(error, EmbeddedError::Corrupt { .. }), "{error}");
    assert!(
        error.to_string().contains("checksum in control file"),
        "{error}"
    );
}

#[tokio::test]
async fn a_lost_password_is_named_and_not_replaced() {
    let data_dir = DataDir::new();
    data_dir.start().await.unwrap().stop(DEADLINE).await;
    let password = data_dir.path().join("postgres.password");

    fs::remove_file(&password).unwrap();
    let missing = data_dir.start().await.unwrap_err();
    fs::write(&password, "another").unwrap();
    let wrong = data_dir.start().await.unwrap_err();

    assert!(
        matches!(missing, EmbeddedError::Incomplete { .. }),
        "{missing}"
    );
    assert!(matches!(wrong, EmbeddedError::Permission { .. }), "{wrong}");
}
