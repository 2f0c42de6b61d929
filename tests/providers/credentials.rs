//! Keys and certificates, and the files in which a deployment keeps them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use jsonwebtoken::DecodingKey;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;

/// The bundle id.
pub(crate) const APP: &str = "com.example.chat";
pub(crate) const TEAM_ID: &str = "TEAM123456";
pub(crate) const KEY_ID: &str = "KEY1234567";
/// The Firebase project.
pub(crate) const PROJECT: &str = "homing-fake";
pub(crate) const SERVICE_ACCOUNT: &str = "push@homing-fake.iam.gserviceaccount.com";
pub(crate) const SERVICE_KEY_ID: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

const NAMES: [&str; 6] = [
    "api.push.apple.com",
    "api.sandbox.push.apple.com",
    "fcm.googleapis.com",
    "oauth2.googleapis.com",
    "localhost",
    "127.0.0.1",
];

/// What proves who the providers and their clients are; fresh at every start.
pub(crate) struct Credentials {
    /// Where the files are.
    pub(crate) folder: PathBuf,
    /// The certificate authority, PEM.
    pub(crate) ca: PathBuf,
    /// The signing key of APNs, PEM (PKCS #8).
    pub(crate) apns_key: PathBuf,
    pub(crate) service_account: PathBuf,
    /// The VAPID key, PEM (PKCS #8), and its public half, 65 bytes.
    pub(crate) vapid_key: PathBuf,
    pub(crate) vapid_public: Vec<u8>,
    pub(super) apns_public: DecodingKey,
    pub(super) service_public: DecodingKey,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    tls_key: Vec<u8>,
}

impl Credentials {
    /// Makes them, and writes them into `folder`.
    pub(super) fn write(folder: &Path) -> Self {
        let folder = std::path::absolute(folder).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let (authority, leaf, tls_key) = certify();
        let apns = KeyPair::generate().unwrap();
        let vapid = KeyPair::generate().unwrap();
        let service = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let account = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": SERVICE_KEY_ID,
            "private_key": service.serialize_pem(),
            "client_email": SERVICE_ACCOUNT,
            "client_id": "100000000000000000000",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": TOKEN_URI,
            "universe_domain": "googleapis.com",
        });
        Self {
            ca: write("ca.pem", &authority.pem()),
            apns_key: write(&format!("AuthKey_{KEY_ID}.p8"), &apns.serialize_pem()),
            service_account: write("service-account.json", &format!("{account:#}\n")),
            vapid_key: write("vapid.pem", &vapid.serialize_pem()),
            vapid_public: vapid.public_key_raw().to_vec(),
            apns_public: DecodingKey::from_ec_der(apns.public_key_raw()),
            service_public: DecodingKey::from_rsa_der(service.public_key_raw()),
            chain: vec![leaf.der().clone(), authority.der().clone()],
            tls_key: tls_key.serialize_der(),
            folder,
        }
    }

    /// For a listener that speaks these protocols, the best first.
    pub(super) fn tls(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.tls_key.clone()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }

    /// A profile for a broker that is to push through the fakes.
    pub(super) fn profile(&self, apns: SocketAddr, fcm: SocketAddr, web: SocketAddr) -> String {
        let [ca, apns_key, account, vapid] = [
            &self.ca,
            &self.apns_key,
            &self.service_account,
            &self.vapid_key,
        ]
        .map(|file| format!("{:?}", file.display().to_string()));
        let port = web.port();
        let apple = ["production", "sandbox"].map(|environment| {
            format!(
                "[[push.apns]]\napp = \"{APP}\"\nenvironment = \"{environment}\"\n\
                 key = {apns_key}\nkey_id = \"{KEY_ID}\"\nteam_id = \"{TEAM_ID}\"\n\
                 connect = \"{apns}\"\nca = {ca}\n\n"
            )
        });
        let others = format!(
            "[[push.fcm]]\napp = \"{PROJECT}\"\nservice_account = {account}\n\
             connect = \"{fcm}\"\nca = {ca}\n\n\
             [[push.web]]\napp = \"{APP}\"\nvapid_key = {vapid}\n\
             subject = \"mailto:push@example.com\"\n\
             private_hosts = [\"localhost:{port}\", \"127.0.0.1:{port}\"]\nca = {ca}\n"
        );
        apple.concat() + &others
    }
}

/// A certificate authority, and what it says of the names of the providers.
fn certify() -> (rcgen::Certificate, rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "fake providers");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "fake provider");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    (authority, leaf, key)
}
