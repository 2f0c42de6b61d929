//! All providers together.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{
    clock::Clock,
    credentials::Credentials,
    script::{Fault, Scripts},
    seen::{Accepted, Kind, Record, Seen},
    server::Server,
    subscription::Subscription,
};

/// What may differ from one fake to another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Of APNs, FCM and Web Push; 0 is any that is free.
    pub(crate) ports: [u16; 3],
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub(crate) streams_max: Option<u32>,
}

/// What the services know in common.
pub(crate) struct World {
    pub(crate) credentials: Credentials,
    pub(crate) clock: Clock,
    pub(crate) record: Record,
    pub(crate) scripts: Scripts,
    /// Google's access tokens, and when they end.
    pub(crate) access_tokens: Mutex<HashMap<String, i64>>,
}

/// Three providers that serve until they are dropped.
pub(crate) struct Providers {
    /// `https://api.push.apple.com`, and the sandbox.
    pub(crate) apns: SocketAddr,
    /// `https://fcm.googleapis.com` and `https://oauth2.googleapis.com`.
    pub(crate) fcm: SocketAddr,
    pub(crate) web: SocketAddr,
    world: Arc<World>,
    _tasks: JoinSet<()>,
}

impl Providers {
    /// Writes into `folder` what a deployment needs: `ca.pem`, the keys, and `push.toml`, a
    /// profile that pushes through these providers.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, Options::default()).await
    }

    pub(crate) async fn start_with(folder: &Path, options: Options) -> Self {
        let world = Arc::new(World {
            credentials: Credentials::write(folder),
            clock: Clock::default(),
            record: Record::new(),
            scripts: Scripts::default(),
            access_tokens: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        let both = ["h2", "http/1.1"];
        let kinds: [(Kind, &[&str]); 3] = [
            (Kind::Apns, &["h2"]),
            (Kind::Fcm, &both),
            (Kind::WebPush, &both),
        ];
        for ((kind, protocols), port) in kinds.into_iter().zip(options.ports) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap();
            addresses.push(listener.local_addr().unwrap());
            let server = Server {
                world: Arc::clone(&world),
                kind,
                acceptor: TlsAcceptor::from(world.credentials.tls(protocols)),
                streams_max: options.streams_max,
            };
            tasks.spawn(Arc::new(server).run(listener));
        }
        let (apns, fcm, web) = (addresses[0], addresses[1], addresses[2]);
        let profile = world.credentials.profile(apns, fcm, web);
        std::fs::write(world.credentials.folder.join("push.toml"), profile).unwrap();
        Self {
            apns,
            fcm,
            web,
            world,
            _tasks: tasks,
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.world.credentials
    }

    /// What happens to the next valid requests for this token; after them all is well again.
    pub(crate) fn script(&self, token: &str, faults: impl IntoIterator<Item = Fault>) {
        self.world.scripts.push(token, faults);
    }

    /// What happens to every valid request for this token, after what [`Self::script`] says.
    pub(crate) fn script_always(&self, token: &str, fault: Fault) {
        self.world.scripts.set_always(token, fault);
    }

    /// All is well again with this token.
    pub(crate) fn unscript(&self, token: &str) {
        self.world.scripts.clear(token);
    }

    /// Puts the clock of the providers wrong: their `Date`, and how they judge tokens.
    pub(crate) fn set_clock_skew_seconds(&self, seconds: i64) {
        self.world.clock.set_skew_seconds(seconds);
    }

    /// Google forgets every access token it has handed out.
    pub(crate) fn revoke_access_tokens(&self) {
        let tokens = self.world.access_tokens.lock();
        tokens.unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What a browser would hand to its web app.
    pub(crate) fn subscribe(&self, name: &str) -> Subscription {
        Subscription::new(format!("https://localhost:{}/push/{name}", self.web.port()))
    }

    /// Everything so far.
    pub(crate) fn seen(&self) -> Seen {
        self.world.record.read(Clone::clone)
    }

    /// Waits for a fact; panics if it does not come.
    pub(crate) async fn until<T>(&self, what: &str, fact: impl FnMut(&Seen) -> Option<T>) -> T {
        self.world.record.until(what, fact).await
    }

    /// Waits until so many notifications are accepted since the start, and returns all.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Accepted> {
        let enough = |seen: &Seen| (seen.accepted.len() >= count).then(|| seen.accepted.clone());
        self.until(&format!("{count} notifications"), enough).await
    }

    /// The notification after the first `count`, however long it takes.
    pub(crate) async fn after(&self, count: usize) -> Accepted {
        self.world
            .record
            .when(|seen| seen.accepted.get(count).cloned())
            .await
    }
}
