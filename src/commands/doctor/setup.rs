//! The set-up: listeners, certificates, keys.

use std::{net::SocketAddr, net::TcpListener, sync::Arc};

use homing::{
    bridge::identity::Keys,
    config::{Config, TlsConfig},
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{super::target::RunningBroker, Check};

pub(super) fn listeners(settings: &Config, running: Option<&RunningBroker>) -> Vec<Check> {
    if let Some(RunningBroker { mqtt, http, pid }) = running {
        let finding = format!("homing serves already: mqtt={mqtt} http={http} pid={pid}");
        return vec![Check::ok("listeners", finding)];
    }
    let mut checks = vec![
        listener("mqtt.listen", settings.mqtt.listen),
        listener("http.listen", settings.http.listen),
    ];
    checks.extend(
        settings
            .tls
            .listen
            .map(|address| listener("tls.listen", address)),
    );
    checks
}

fn listener(key: &'static str, address: SocketAddr) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(key, format!("{address} is free")),
        Err(error) => {
            let variable = format!("HOMING__{}", key.replace('.', "__").to_uppercase());
            Check::fail(
                key,
                format!("{address}: {error}"),
                format!("stop what uses it (ss -ltnp), or choose another: {variable}=127.0.0.1:0"),
            )
        }
    }
}

pub(super) fn tls(tls: &TlsConfig) -> Option<Check> {
    tls.listen?;
    Some(match certificate(tls) {
        Ok(certificates) => Check::ok(
            "tls",
            format!("{certificates} certificates, and the key fits"),
        ),
        Err((path, reason)) => Check::fail(
            "tls",
            format!("{path}: {reason}"),
            "tls.certificate is the chain and tls.key its private key, both PEM and readable",
        ),
    })
}

/// Counts the certificates; fails if the key is not theirs.
fn certificate(tls: &TlsConfig) -> Result<usize, (String, String)> {
    let at = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |error: &dyn std::fmt::Display| (path, error.to_string())
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| at(&tls.certificate)(&error))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| at(&tls.key)(&error))?;
    let certificates = chain.len();
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| at(&tls.key)(&error))?;
    Ok(certificates)
}

pub(super) fn tokens(settings: &Config) -> Check {
    const SUBJECT: &str = "tokens";
    let auth = &settings.auth;
    let secret = settings.data_dir.join("token.secret");
    if auth.keys.is_none() && !secret.exists() {
        return Check::ok(SUBJECT, "the secret is made at the first start");
    }
    match (Keys::load(auth, &settings.data_dir), &auth.keys) {
        (Ok(_), Some(keys)) => {
            Check::ok(SUBJECT, format!("signed by the keys of {}", keys.display()))
        }
        (Ok(_), None) => Check::ok(SUBJECT, format!("signed with {}", secret.display())),
        (Err(error), _) => Check::fail(
            SUBJECT,
            error.to_string(),
            "see `auth` in broker-config/default.toml",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_port_in_use_fails_with_the_setting_that_moves_it() {
        let occupant = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = listener("mqtt.listen", occupant.local_addr().unwrap());
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(
            check.cure.contains("HOMING__MQTT__LISTEN"),
            "{}",
            check.cure
        );
    }
}
