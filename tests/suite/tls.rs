//! MQTT over TLS: the same session, and a certificate that is replaced while it serves.

use std::{path::Path, sync::Arc};

use homing::store::MIGRATOR;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Place, TestBroker, Wire, until};

/// Writes a fresh certificate and its key.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("chain.pem"), cert.pem()).unwrap();
    cert.der().clone()
}

async fn start(pool: &PgPool, folder: &Path) -> TestBroker {
    let file = |name: &str| folder.join(name).display().to_string();
    let settings = [
        ("tls.listen", "127.0.0.1:0"),
        ("tls.certificate", &file("chain.pem")),
        ("tls.key", &file("key.pem")),
        ("tls.reload_interval", "20ms"),
    ];
    Place::new(pool, &settings).start().await
}

/// Connects as somebody who trusts this certificate and no other.
async fn open(broker: &TestBroker, trusted: &CertificateDer<'static>) -> Option<Wire> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(broker.mqtts()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await.ok().map(Wire::over)
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_speaks_over_tls(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certify(folder.path());
    let broker = start(&pool, folder.path()).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut listener = broker.listener("bob", "phone").await;
    let mut secure = open(&broker, &certificate).await.unwrap();
    assert_eq!(secure.connect(broker.v5("alice", "phone")).await.code, 0);
    assert_eq!(secure.say(&conversation, "over TLS").await, 1);
    assert_eq!(listener.drain(1, 1).await, ["over TLS"]);

    let mut plain = Wire::open(broker.mqtts()).await;
    plain.send(&broker.v5("alice", "tablet").bytes()).await;
    let mut alert = plain.raw().await;
    alert.truncate(1);
    assert!(alert.is_empty() || alert == [0x15], "{alert:?}");
    broker.stop().await;
    secure.assert_disconnected(0x8b).await;
}

/// Goal: a replaced certificate serves new connections; the old ones stay; a broken file
/// changes nothing.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_certificate_is_replaced_without_a_restart(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let broker = start(&pool, folder.path()).await;
    let mut phone = open(&broker, &first).await.unwrap();
    assert_eq!(phone.connect(broker.v5("alice", "phone")).await.code, 0);

    let second = certify(folder.path());
    until("the second certificate", async || {
        open(&broker, &second).await.is_some()
    })
    .await;
    assert!(open(&broker, &first).await.is_none());
    phone.assert_quiet().await;

    std::fs::write(folder.path().join("chain.pem"), "no certificate").unwrap();
    let third = folder.path().join("third");
    std::fs::create_dir(&third).unwrap();
    let third_certificate = certify(&third);
    for _ in 0..20 {
        assert!(open(&broker, &second).await.is_some());
    }
    for name in ["key.pem", "chain.pem"] {
        std::fs::copy(third.join(name), folder.path().join(name)).unwrap();
    }
    until("the third certificate", async || {
        open(&broker, &third_certificate).await.is_some()
    })
    .await;
    phone.assert_quiet().await;
    broker.stop().await;
}
