//! Accepts connections: TCP and TLS. Limits come before anything is read.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use hashbrown::HashMap;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Broker, handshake};
use crate::{
    mqtt::rate::Rate,
    telemetry::metrics::{ConnectLabels, ConnectOutcome},
};

/// Addresses remembered at once; those that have been quiet are forgotten first.
const ADDRESSES_MAX: usize = 10_000;

/// The TLS configuration of the moment; it changes when the certificate does.
pub type TlsSettings = watch::Receiver<Arc<rustls::ServerConfig>>;

impl Broker {
    /// Accepts connections until `stop` is cancelled; with `tls`, only over TLS.
    pub async fn listen(
        self,
        listener: TcpListener,
        tls: Option<TlsSettings>,
        stop: CancellationToken,
    ) {
        let mut addresses = Addresses::new(self.0.config.connects_per_second.get());
        loop {
            let accepted = match stop.run_until_cancelled(listener.accept()).await {
                None => return,
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => {
                    // Out of file descriptors, or a peer that is gone again.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (stream, remote) = accepted;
            match self.admit(remote, &mut addresses) {
                Some(permit) => self.spawn(stream, permit, tls.as_ref()),
                None => drop(stream),
            }
        }
    }

    fn admit(&self, remote: SocketAddr, addresses: &mut Addresses) -> Option<OwnedSemaphorePermit> {
        let now = handshake::now().instant;
        let permit = addresses
            .admit(remote.ip(), now)
            .then(|| self.permit())
            .flatten();
        if permit.is_none() {
            self.count_limited();
        }
        permit
    }

    /// Room for one connection; none if there are as many as allowed.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.0.permits.clone().try_acquire_owned().ok()
    }

    pub(super) fn count_limited(&self) {
        let outcome = ConnectOutcome::Limited;
        self.0
            .metrics
            .connects
            .get_or_create(&ConnectLabels { outcome })
            .inc();
    }

    fn spawn(&self, stream: TcpStream, permit: OwnedSemaphorePermit, tls: Option<&TlsSettings>) {
        // Small packets must not wait for each other; failing to say so only costs time.
        drop(stream.set_nodelay(true));
        let broker = self.clone();
        match tls {
            None => drop(self.0.tasks.spawn(broker.serve(stream, permit))),
            Some(settings) => {
                let acceptor = TlsAcceptor::from(settings.borrow().clone());
                drop(
                    self.0
                        .tasks
                        .spawn(broker.serve_tls(stream, acceptor, permit)),
                );
            }
        }
    }

    async fn serve_tls(
        self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        permit: OwnedSemaphorePermit,
    ) {
        let timeout = self.0.config.connect_timeout;
        let accepted = tokio::time::timeout(timeout, Box::pin(acceptor.accept(stream)));
        match self.0.hub.stopping().run_until_cancelled(accepted).await {
            Some(Ok(Ok(stream))) => self.serve(stream, permit).await,
            Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
            Some(Err(_)) => tracing::debug!("TLS handshake took too long"),
            None => {}
        }
    }
}

/// How fast each address connects.
struct Addresses {
    rates: HashMap<IpAddr, Rate>,
    per_second: u32,
}

impl Addresses {
    fn new(per_second: u32) -> Self {
        Self {
            rates: HashMap::new(),
            per_second,
        }
    }

    fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        if address.is_loopback() {
            return true;
        }
        if self.rates.len() >= ADDRESSES_MAX {
            self.rates.retain(|_, rate| !rate.is_full(now));
        }
        if self.rates.len() >= ADDRESSES_MAX && !self.rates.contains_key(&address) {
            return false; // a flood from everywhere: those who are known go on
        }
        let rate = self
            .rates
            .entry(address)
            .or_insert_with(|| Rate::new(self.per_second, now));
        let is_welcome = rate.paused_until(now).is_none();
        if is_welcome {
            rate.count(now);
        }
        is_welcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_connects_too_fast_is_turned_away_alone() {
        let now = handshake::now().instant;
        let mut addresses = Addresses::new(2);
        let loud = IpAddr::from([192, 0, 2, 1]);
        let admitted = (0..100).filter(|_| addresses.admit(loud, now)).count();
        assert_eq!(admitted, 10);
        assert!(addresses.admit(IpAddr::from([192, 0, 2, 2]), now));
        assert!(addresses.admit(IpAddr::from([127, 0, 0, 1]), now));
        assert!(addresses.admit(loud, now + std::time::Duration::from_secs(1)));
    }
}
