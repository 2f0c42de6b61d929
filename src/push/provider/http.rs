//! The HTTP stack of all providers, and a connection that is not trusted for ever.
//!
//! A connection may die without a word: nothing comes back, not even a reset. HTTP/2 PINGs
//! find that out while nothing is sent. A request finds it out sooner: if it times out, and
//! nothing at all was answered since it was sent, the next request opens a new connection.

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Certificate, Client, ClientBuilder, Url, dns::Resolve, header::HeaderMap, redirect::Policy,
};

use super::{ProviderError, addresses::NotPublic, answer::Answer};
use crate::domain::push::Route;

/// Between two PINGs, in request timeouts. With the default of 10 s: every minute; servers
/// may take more for an attack.
const PING_INTERVAL_TIMEOUTS: u32 = 6;

/// What a connection is made with.
#[derive(Clone, Default)]
pub(super) struct Settings {
    /// HTTP/2 without asking, so that any number of concurrent requests opens one connection.
    pub(super) is_http2_only: bool,
    /// The only certificate authorities that are believed, instead of the system's.
    pub(super) authorities: Option<Vec<Certificate>>,
    /// These names are connected to at this address.
    pub(super) connect: Vec<(String, SocketAddr)>,
    pub(super) resolver: Option<Arc<dyn Resolve>>,
    /// For a whole request, connecting included.
    pub(super) timeout: Duration,
}

impl Settings {
    fn build(&self) -> reqwest::Result<Client> {
        // Left as it is: what HTTP/2 refuses unseen (REFUSED_STREAM, a friendly GOAWAY) is sent
        // again. A connection begins like that if the provider allows fewer streams than we
        // opened before it said so.
        let mut builder = Client::builder()
            .user_agent(concat!("homing/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .timeout(self.timeout)
            .connect_timeout(self.timeout)
            .pool_max_idle_per_host(4)
            .http2_keep_alive_interval(self.timeout * PING_INTERVAL_TIMEOUTS)
            .http2_keep_alive_timeout(self.timeout)
            .http2_keep_alive_while_idle(true);
        if self.is_http2_only {
            builder = builder.http2_prior_knowledge().pool_idle_timeout(None);
        }
        if let Some(authorities) = &self.authorities {
            builder = builder.tls_certs_only(authorities.iter().cloned());
        }
        if let Some(resolver) = &self.resolver {
            builder = builder.dns_resolver(Arc::clone(resolver));
        }
        let connect = |builder: ClientBuilder, (name, address): &(String, SocketAddr)| {
            builder.resolve(name, *address)
        };
        self.connect.iter().fold(builder, connect).build()
    }
}

/// Reads the certificates of a PEM file.
///
/// # Errors
///
/// A text that says what is wrong with the file.
pub(super) fn authorities(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("it holds no certificate; give a PEM file".to_owned()),
    }
}

/// Requests to one provider.
pub(super) struct Transport {
    settings: Settings,
    current: Mutex<Current>,
    /// How many requests were answered, whatever the answer.
    answers: AtomicU64,
}

#[derive(Clone)]
struct Current {
    client: Client,
    generation: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Timeout,
    /// The name leads to where nothing is to be reached.
    NotPublic,
    /// No connection, or it broke. Whether the request was read is not known.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::NotPublic => write!(f, "{NotPublic}"),
            Self::Broken(cause) => write!(f, "connection: {cause}"),
        }
    }
}

impl Transport {
    /// # Errors
    ///
    /// [`ProviderError::Http`].
    pub(super) fn open(route: &Route, settings: Settings) -> Result<Self, ProviderError> {
        let client = settings.build().map_err(|error| ProviderError::Http {
            route: route.clone(),
            reason: innermost(&error).to_string(),
        })?;
        Ok(Self {
            settings,
            current: Mutex::new(Current {
                client,
                generation: 0,
            }),
            answers: AtomicU64::new(0),
        })
    }

    /// Sends a request and reads its answer.
    pub(super) async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failure> {
        let Current { client, generation } = self.current();
        let answers = self.answers.load(Ordering::Relaxed);
        let request = client.post(url).headers(headers).body(body.into());
        let answer = async { Answer::read(request.send().await?).await };
        match answer.await {
            Ok(answer) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => {
                let failure = Failure::from(error);
                if failure == Failure::Timeout && self.answers.load(Ordering::Relaxed) == answers {
                    self.leave(generation);
                }
                Err(failure)
            }
        }
    }

    fn current(&self) -> Current {
        let current = self.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses new connections from now on. What is still under way on the old ones may finish.
    fn leave(&self, generation: u64) {
        let current = self.current.lock();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        if current.generation != generation {
            return; // Another request has noticed it, too.
        }
        match self.settings.build() {
            Ok(client) => {
                *current = Current {
                    client,
                    generation: generation + 1,
                }
            }
            Err(error) => tracing::error!(%error, "the old connection stays"),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // The URL of a request to APNs is the token.
        let error = error.without_url();
        if error.is_timeout() {
            return Self::Timeout;
        }
        let cause = innermost(&error);
        if cause.is::<NotPublic>() {
            return Self::NotPublic;
        }
        Self::Broken(cause.to_string())
    }
}

/// What it came from; the errors around it say only where it passed.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// Where a provider is, as the settings of an app say it.
pub(super) struct Place<'a> {
    pub(super) url: &'a str,
    pub(super) connect: Option<SocketAddr>,
    pub(super) ca: Option<&'a Path>,
}

impl Place<'_> {
    /// # Errors
    ///
    /// [`ProviderError`] if there is no such place.
    pub(super) fn open(
        self,
        route: &Route,
        settings: Settings,
    ) -> Result<(Url, Transport), ProviderError> {
        let url = self.url(route)?;
        let transport = self.transport(route, &[&url], settings)?;
        Ok((url, transport))
    }

    /// What is requested.
    pub(super) fn url(&self, route: &Route) -> Result<Url, ProviderError> {
        let setting = || ProviderError::Setting {
            route: route.clone(),
            reason: format!("`url` is `{}`; write it as https://host", self.url),
        };
        let url = Url::parse(self.url).map_err(|_| setting())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(setting());
        }
        Ok(reached(url, self.connect))
    }

    /// A transport to these hosts.
    pub(super) fn transport(
        &self,
        route: &Route,
        urls: &[&Url],
        mut settings: Settings,
    ) -> Result<Transport, ProviderError> {
        if let Some(ca) = self.ca {
            let read = authorities(ca).map_err(|reason| ProviderError::File {
                route: route.clone(),
                file: ca.to_owned(),
                reason,
            })?;
            settings.authorities = Some(read);
        }
        if let Some(address) = self.connect {
            let hosts = urls.iter().filter_map(|url| url.host_str());
            settings.connect = hosts.map(|host| (host.to_owned(), address)).collect();
        }
        Transport::open(route, settings)
    }
}

/// The URL, without its port if `connect` has one: the URL's would be preferred.
pub(super) fn reached(mut url: Url, connect: Option<SocketAddr>) -> Url {
    if connect.is_some() {
        // A URL with a host has room for a port, or for none.
        let _ = url.set_port(None);
    }
    url
}
