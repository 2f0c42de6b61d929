//! Builds the parts, starts them, stops them in order.
//!
//! ```text
//!   start: Postgres ─▶ schema ─▶ bridge ─▶ broker, REST ─▶ ready
//!   stop:  listeners ─▶ connections (cursors written), requests ─▶ relay, receipts, writers ─▶ Postgres
//! ```

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use prometheus_client::registry::Registry;
use secrecy::ExposeSecret as _;
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{
        self, ApiState, Readiness,
        listener::{Patience, PatientListener},
    },
    bridge::{Bridge, Parts, attachments::Attachments, identity::Keys},
    broker::{Broker, tls, websocket},
    config::Config,
    lifecycle::{Lifecycle, Signals},
    push::Push,
    store::{
        self,
        embedded::{DataDirLock, EmbeddedPostgres},
    },
    telemetry::metrics::Metrics,
};

/// How long the embedded Postgres may take to stop before it is told more firmly.
const POSTGRES_STOP: std::time::Duration = std::time::Duration::from_secs(10);

/// A broker that serves.
pub struct Running {
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    /// MQTT over TLS, if it is configured.
    pub mqtts: Option<SocketAddr>,
    lifecycle: Lifecycle,
    signals: Signals,
    record: Record,
}

impl Running {
    /// Waits until the broker has stopped, by a signal or by [`Running::stop`].
    ///
    /// # Errors
    ///
    /// If a part failed that the broker cannot do without.
    pub async fn stopped(self) -> Result<()> {
        let Self {
            lifecycle,
            signals,
            record,
            ..
        } = self;
        let result = tokio::select! {
            result = lifecycle.stopped() => result.map_err(Into::into),
            never = lifecycle.follow(signals) => match never {},
        };
        drop(record);
        result
    }

    /// Begins the stop, as the first signal does.
    pub fn stop(&self) {
        self.lifecycle.stop();
    }
}

/// Starts everything and returns when it serves.
///
/// # Errors
///
/// What is missing or wrong, with the cure where there is one.
pub async fn start(config: Config) -> Result<Running> {
    let signals = Signals::install().context("signals")?;
    fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data directory {}", config.data_dir.display()))?;
    let lifecycle = Lifecycle::new(config.shutdown_timeout);
    let options = open_store(&config, &lifecycle).await?;
    match build(config, options, &lifecycle).await {
        Ok((addresses, record)) => {
            let Addresses { mqtt, http, mqtts } = addresses;
            Ok(Running {
                mqtt,
                http,
                mqtts,
                lifecycle,
                signals,
                record,
            })
        }
        Err(error) => {
            // What was started stops in order; what matters is why.
            lifecycle.stop();
            drop(lifecycle.stopped().await);
            Err(error)
        }
    }
}

/// The external Postgres, or the embedded one.
async fn open_store(config: &Config, lifecycle: &Lifecycle) -> Result<PgConnectOptions> {
    if let Some(url) = config.store.external_url() {
        let lock = DataDirLock::acquire(&config.data_dir)?;
        let token = lifecycle.foundation().clone();
        lifecycle.spawn_foundation("data directory lock", async move {
            token.cancelled().await;
            drop(lock);
            Ok::<(), Infallible>(())
        });
        let options: PgConnectOptions = url
            .expose_secret()
            .parse()
            .map_err(|error| anyhow!("store.url is no Postgres address: {error}"))?;
        return Ok(options.application_name("homing"));
    }
    let postgres =
        EmbeddedPostgres::start(&config.data_dir, config.store.pg_bin_dir.as_deref()).await?;
    tracing::info!(version = %postgres.version(), "the embedded Postgres runs");
    let options = postgres.options();
    let token = lifecycle.foundation().clone();
    lifecycle.spawn_foundation("postgres", async move {
        postgres.supervise(token, POSTGRES_STOP).await;
        Ok::<(), Infallible>(())
    });
    Ok(options)
}

struct Addresses {
    mqtt: SocketAddr,
    http: SocketAddr,
    mqtts: Option<SocketAddr>,
}

async fn build(
    config: Config,
    options: PgConnectOptions,
    lifecycle: &Lifecycle,
) -> Result<(Addresses, Record)> {
    let store = &config.store;
    let pool = store::open_pool(
        options.clone(),
        store.connections_max,
        store.acquire_timeout,
    );
    store::migrate(&pool).await?;
    let mut registry = Registry::with_prefix("homing");
    let metrics = Metrics::register(&mut registry);
    let parts = Parts {
        pool: pool.clone(),
        options,
        store: store.clone(),
        message: config.message.clone(),
        presence: config.presence.clone(),
        conversation: config.conversation,
        attachments: Attachments::new(&config.attachments).map_err(anyhow::Error::msg)?,
        inbox: config.inbox.clone(),
        push: config.push.clone(),
        limits: config.limits.clone(),
        metrics: metrics.bridge,
        node: node(&config.data_dir)?,
    };
    let (bridge, tasks) = Bridge::open(parts).await?;
    let bridge_stop = CancellationToken::new();
    // If the rest fails, what runs already ends with it.
    let unfinished = bridge_stop.clone().drop_guard();
    tasks.spawn(&bridge_stop, lifecycle.hard(), |name, task| {
        lifecycle.spawn_critical(name, async move {
            task.await;
            Ok::<(), Infallible>(())
        });
    });
    let push = Push::open(pool.clone(), &config.push, &metrics.push).await?;
    if let Some(push) = push {
        push.spawn(&bridge_stop, |name, task| {
            lifecycle.spawn_critical(name, async move {
                task.await;
                Ok::<(), Infallible>(())
            });
        });
    }
    let keys = Arc::new(Keys::load(&config.auth, &config.data_dir)?);
    let connections = TaskTracker::new();
    let broker = Broker::new(
        bridge.clone(),
        keys.clone(),
        &config,
        metrics.broker,
        connections.clone(),
    );
    let readiness = Readiness::default();
    let (stop, ready) = (lifecycle.soft().clone(), readiness.clone());
    let state = ApiState::new(bridge, keys, registry, ready, &config, stop);
    let http_ended = CancellationToken::new();
    let addresses = listen(&config, lifecycle, &broker, state, &http_ended)?;
    readiness.begin();
    let record = Record::write(&config.data_dir, &addresses)?;
    unfinished.disarm();
    let edges = Edges {
        broker,
        connections,
        readiness,
        pool,
        http_ended,
        requests_max: stopping(&config),
        bridge_stop,
    };
    let soft = lifecycle.soft().clone();
    lifecycle.spawn("edges", edges.stop_after(soft));
    Ok((addresses, record))
}

fn listen(
    config: &Config,
    lifecycle: &Lifecycle,
    broker: &Broker,
    state: ApiState,
    http_ended: &CancellationToken,
) -> Result<Addresses> {
    let soft = lifecycle.soft();
    let mqtt = bind(config.mqtt.listen, "mqtt.listen")?;
    let http = bind(config.http.listen, "http.listen")?;
    let mut addresses = Addresses {
        mqtt: mqtt.local_addr()?,
        http: http.local_addr()?,
        mqtts: None,
    };
    if let Some(address) = config.tls.listen {
        let (settings, reload) = tls::open(config.tls.clone())?;
        let listener = bind(address, "tls.listen")?;
        addresses.mqtts = Some(listener.local_addr()?);
        lifecycle.spawn("tls reload", reload.run(soft.clone()));
        lifecycle.spawn(
            "mqtts",
            broker
                .clone()
                .listen(listener, Some(settings), soft.clone()),
        );
    }
    lifecycle.spawn("mqtt", broker.clone().listen(mqtt, None, soft.clone()));
    let router = api::router(state).merge(websocket::router(broker.clone()));
    let patience = Patience {
        // A device over WebSocket is judged by the broker first.
        taking: config.mqtt.write_timeout * 2,
        stopping: stopping(config),
        stop: soft.clone(),
    };
    let http = PatientListener::new(http, patience);
    let (stop, ended) = (soft.clone().cancelled_owned(), http_ended.clone());
    lifecycle.spawn_critical("http", async move {
        let _ended = ended.drop_guard();
        axum::serve(http, router).with_graceful_shutdown(stop).await
    });
    Ok(addresses)
}

/// How much of a stop is for requests that the store still answers; nobody holds it up for
/// longer than twice that.
fn stopping(config: &Config) -> std::time::Duration {
    config.shutdown_timeout / 4
}

/// Connections that may wait to be accepted: a storm of reconnects comes in one moment, and
/// a dropped SYN costs its device a second. The kernel lowers it to its own bound.
const BACKLOG: u32 = 16_384;

fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| {
        format!("{setting} = {address} cannot be listened on; choose another address or port")
    })
}

/// What must end before the bridge does.
struct Edges {
    broker: Broker,
    connections: TaskTracker,
    readiness: Readiness,
    pool: PgPool,
    http_ended: CancellationToken,
    /// How long requests are waited for; those that wait for the store then are told that it
    /// is away.
    requests_max: std::time::Duration,
    bridge_stop: CancellationToken,
}

impl Edges {
    async fn stop_after(self, soft: CancellationToken) {
        soft.cancelled().await;
        let requests = tokio::time::timeout(self.requests_max, self.http_ended.cancelled());
        let connections = async {
            self.readiness.end();
            self.broker.shut_down();
            self.connections.close();
            self.connections.wait().await;
        };
        let (_, ()) = tokio::join!(requests, connections);
        self.bridge_stop.cancel();
        drop(self.broker);
        drop(self.pool);
    }
}

/// The stable name of this data directory among the nodes of a cluster.
fn node(data_dir: &Path) -> Result<String> {
    let file = data_dir.join("node");
    match fs::read_to_string(&file) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = uuid::Uuid::now_v7().to_string();
            fs::write(&file, &name).with_context(|| file.display().to_string())?;
            Ok(name)
        }
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// Where the client commands find the running broker; gone when it has stopped.
struct Record(PathBuf);

impl Record {
    fn write(data_dir: &Path, addresses: &Addresses) -> Result<Self> {
        let file = data_dir.join("running.json");
        let record = serde_json::json!({
            "mqtt": addresses.mqtt,
            "http": format!("http://{}", addresses.http),
            "mqtts": addresses.mqtts,
            "pid": std::process::id(),
        });
        let fresh = data_dir.join("running.json.new");
        fs::write(&fresh, record.to_string())
            .and_then(|()| fs::rename(&fresh, &file))
            .with_context(|| file.display().to_string())?;
        Ok(Self(file))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Without it the commands say that no broker runs, which is true.
        drop(fs::remove_file(&self.0));
    }
}
