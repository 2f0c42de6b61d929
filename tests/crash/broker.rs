//! The real program with its own Postgres, and the ways it is killed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// Recovery on a busy machine included.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Where the broker is reached; other ports after each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) mqtt: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// What differs from the defaults: a profile, and variables of the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) profile: Option<PathBuf>,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

/// A running broker in a folder of its own, which is kept if the test fails.
pub(crate) struct Broker {
    folder: Option<TempDir>,
    settings: Settings,
    child: Child,
    addresses: watch::Sender<Addresses>,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // For the user that Postgres runs as, if that is another one.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), permissions).unwrap();
        let (child, addresses) = serve(&folder, &settings).await;
        let addresses = watch::Sender::new(addresses);
        Self {
            folder: Some(folder),
            settings,
            child,
            addresses,
        }
    }

    pub(crate) fn addresses(&self) -> watch::Receiver<Addresses> {
        self.addresses.subscribe()
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// After [`Broker::kill`]: the same folder, other ports.
    pub(crate) async fn start_again(&mut self) {
        let (child, addresses) = serve(self.folder.as_ref().unwrap(), &self.settings).await;
        self.child = child;
        self.addresses.send_replace(addresses);
    }

    pub(crate) fn kill_postmaster(&self) {
        if let Some(pid) = self.postmaster() {
            kill(pid);
        }
    }

    /// Kills one of the processes that Postgres consists of, which makes it start anew.
    pub(crate) fn kill_backend(&self, choice: usize) {
        let Some(postmaster) = self.postmaster() else {
            return;
        };
        let backends = children(postmaster);
        if !backends.is_empty() {
            kill(backends[choice % backends.len()]);
        }
    }

    /// Asks the broker to stop, and waits until it and its Postgres have.
    pub(crate) async fn stop(mut self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap();
        signal(pid, Signal::TERM);
        let status = timeout(READY_TIMEOUT, self.child.wait())
            .await
            .expect("the broker stops");
        assert!(
            status.unwrap().success(),
            "the broker ends without an error"
        );
        assert_eq!(self.postmaster(), None, "Postgres has stopped");
    }

    /// The process id of the running postmaster; none while there is none. Ids are given
    /// again by the system, so its command line must name our cluster.
    fn postmaster(&self) -> Option<i32> {
        let cluster = self.data_dir().join("postgres/data");
        let file = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains(cluster.to_str()?).then_some(pid)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("data")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing to kill after a stop.
        drop(self.child.start_kill());
        self.kill_postmaster();
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!(
                "the data directory and broker.log are kept in {}",
                folder.keep().display()
            );
        }
    }
}

async fn serve(folder: &TempDir, settings: &Settings) -> (Child, Addresses) {
    let log = folder.path().join("broker.log");
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_homing"))
        .arg("serve")
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(
            settings
                .profile
                .iter()
                .flat_map(|file| [OsStr::new("--config"), file.as_os_str()]),
        )
        .envs(settings.environment.iter().copied())
        .env("HOMING__MQTT__LISTEN", "127.0.0.1:0")
        .env("HOMING__HTTP__LISTEN", "127.0.0.1:0")
        .env("HOMING__LOG__FORMAT", "text")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(READY_TIMEOUT, lines.next_line())
        .await
        .expect("the broker is ready in time")
        .unwrap()
        .expect("the broker says that it is ready");
    let addresses = parse(&line).expect("ready mqtt=ADDRESS http=ADDRESS");
    (child, addresses)
}

fn parse(line: &str) -> Option<Addresses> {
    let (mqtt, http) = line.strip_prefix("ready mqtt=")?.split_once(" http=")?;
    Some(Addresses {
        mqtt: mqtt.parse().ok()?,
        http: http.parse().ok()?,
    })
}

fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // An error: it is gone already.
        let _ = kill_process(pid, signal);
    }
}

fn children(parent: i32) -> Vec<i32> {
    let mut children: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect();
    children.sort_unstable();
    children
}

/// The second field after the name of the program, which stands in parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
