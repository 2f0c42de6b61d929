//! The certificate of the TLS listener, and its replacement without a restart.

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listener::TlsSettings;
use crate::config::TlsConfig;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file}: {source}; give a PEM file")]
    Pem {
        file: String,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{0} holds no certificate; give a PEM file with the chain, the server's first")]
    NoCertificate(String),
    #[error("certificate and key do not fit each other or cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Reads certificate and key.
///
/// # Errors
///
/// [`TlsError`], which names the file.
pub fn load(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let name = |path: &Path| path.display().to_string();
    let pem = |path: &Path| {
        let file = name(path);
        move |source| TlsError::Pem { file, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&config.certificate)
        .map_err(pem(&config.certificate))?
        .collect::<Result<_, _>>()
        .map_err(pem(&config.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(name(&config.certificate)));
    }
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(pem(&config.key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(server))
}

/// Reads certificate and key, and gives them to new connections whenever they change.
///
/// # Errors
///
/// [`TlsError`] if they cannot be used now. Later, what cannot be used is logged and the
/// old ones stay.
pub fn open(config: TlsConfig) -> Result<(TlsSettings, Reload), TlsError> {
    let (sender, settings) = watch::channel(load(&config)?);
    let seen = modified(&config);
    Ok((
        settings,
        Reload {
            config,
            sender,
            seen,
        },
    ))
}

/// Looks at the files from time to time.
pub struct Reload {
    config: TlsConfig,
    sender: watch::Sender<Arc<ServerConfig>>,
    seen: [Option<SystemTime>; 2],
}

impl Reload {
    /// Works until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let interval = self.config.reload_interval;
        while stop
            .run_until_cancelled(tokio::time::sleep(interval))
            .await
            .is_some()
        {
            let modified = modified(&self.config);
            if modified == self.seen {
                continue;
            }
            self.seen = modified;
            match load(&self.config) {
                Ok(server) => {
                    tracing::info!("new connections get the new certificate");
                    self.sender.send_replace(server);
                }
                Err(error) => tracing::error!(%error, "the new certificate is not used"),
            }
        }
    }
}

fn modified(config: &TlsConfig) -> [Option<SystemTime>; 2] {
    [&config.certificate, &config.key].map(|path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    })
}
