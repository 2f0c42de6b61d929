//! Signing keys, as their files hold them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Url;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use web_push_native::p256::{
    SecretKey,
    elliptic_curve::sec1::ToEncodedPoint as _,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _},
};

/// The DER of the object identifiers rsaEncryption and prime256v1.
const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// How the kinds of keys are named to whoever has to bring the right one.
const IS_RSA: &str = "it holds an RSA key; an EC key on the curve P-256 is wanted";
const IS_OTHER_CURVE: &str = "its key is not on the curve P-256 (prime256v1)";

/// An EC key on P-256, for ES256: Apple's `.p8`, or a VAPID key.
pub(super) struct P256Key {
    encoding: EncodingKey,
    /// The uncompressed public point, base64url: `k` of VAPID.
    pub(super) public: String,
}

impl P256Key {
    /// Reads a PEM file, PKCS#8 or SEC 1.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what is wanted.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let secret = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs8(der)) => {
                let der = der.secret_pkcs8_der();
                let fault = if contains(der, RSA) {
                    IS_RSA
                } else {
                    IS_OTHER_CURVE
                };
                SecretKey::from_pkcs8_der(der).map_err(|_| fault)
            }
            Ok(PrivateKeyDer::Sec1(der)) => {
                let der = der.secret_sec1_der();
                match SecretKey::from_sec1_der(der) {
                    Ok(secret) if contains(der, P256) => Ok(secret),
                    _ => Err(IS_OTHER_CURVE),
                }
            }
            Ok(_) => Err(IS_RSA),
            Err(_) => Err(no_private_key(pem)),
        }?;
        let der = secret.to_pkcs8_der().map_err(|_| IS_OTHER_CURVE)?;
        let public = secret.public_key().to_encoded_point(false);
        let key = Self {
            encoding: EncodingKey::from_ec_der(der.as_bytes()),
            public: URL_SAFE_NO_PAD.encode(public.as_bytes()),
        };
        key.sign(None, &())
            .map_err(|error| format!("its key cannot sign: {error}"))?;
        Ok(key)
    }

    /// A JSON Web Token with these claims. `key_id` is its `kid`.
    pub(super) fn sign(
        &self,
        key_id: Option<&str>,
        claims: &impl Serialize,
    ) -> jsonwebtoken::errors::Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = key_id.map(str::to_owned);
        encode(&header, claims, &self.encoding)
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key(secret)")
    }
}

fn no_private_key(pem: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(pem);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        "its key is encrypted; `openssl pkey -in OLD -out NEW` takes the passphrase off"
    } else if text.contains("BEGIN PUBLIC KEY") || text.contains("BEGIN CERTIFICATE") {
        "it holds a public key or a certificate; the private key is wanted"
    } else if text.contains("BEGIN ") {
        "its private key is damaged; fetch or write the file again"
    } else {
        "it holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
    }
}

fn contains(der: &[u8], identifier: &[u8]) -> bool {
    der.windows(identifier.len()).any(|part| part == identifier)
}

/// A service account of Google: who asks for access tokens, and where.
pub(super) struct ServiceAccount {
    pub(super) email: String,
    pub(super) token_url: Url,
    key_id: Option<String>,
    encoding: EncodingKey,
}

#[derive(Deserialize)]
struct ServiceAccountFile {
    r#type: Option<String>,
    project_id: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<String>,
    client_email: Option<String>,
    token_uri: Option<String>,
}

impl ServiceAccount {
    /// Reads the JSON file of the Firebase console, for this project.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what is wanted.
    pub(super) fn from_json(json: &[u8], project: &str) -> Result<Self, String> {
        let file: ServiceAccountFile = serde_json::from_slice(json).map_err(|error| {
            // Its text may quote what stands there.
            let (line, column) = (error.line(), error.column());
            format!(
                "it is not the JSON of a service account (line {line}, column {column}); the \
                 Firebase console writes it: Project settings, Service accounts"
            )
        })?;
        if file.r#type.is_some_and(|kind| kind != "service_account") {
            return Err(
                "its `type` is not `service_account`; other credentials cannot be used".to_owned(),
            );
        }
        if let Some(id) = file.project_id
            && id != project
        {
            return Err(format!(
                "it belongs to the project `{id}`, not to `{project}`"
            ));
        }
        let member = |value: Option<String>, name: &str| {
            value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("it has no `{name}`; take the file as the console wrote it"))
        };
        let email = member(file.client_email, "client_email")?;
        let pem = member(file.private_key, "private_key")?;
        let token_url = member(file.token_uri, "token_uri")?;
        let account = Self {
            email,
            token_url: Url::parse(&token_url).map_err(|_| "its `token_uri` is no URL")?,
            key_id: file.private_key_id,
            encoding: EncodingKey::from_rsa_pem(pem.as_bytes())
                .map_err(|_| "its `private_key` is no RSA key in PEM form")?,
        };
        account
            .sign(&())
            .map_err(|error| format!("its `private_key` cannot sign: {error}"))?;
        Ok(account)
    }

    /// A JSON Web Token with these claims.
    pub(super) fn sign(&self, claims: &impl Serialize) -> jsonwebtoken::errors::Result<String> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid.clone_from(&self.key_id);
        encode(&header, claims, &self.encoding)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
    use serde_json::{Value, json};

    use super::*;

    /// As `openssl ecparam -name prime256v1 -genkey` writes it; of no use anywhere.
    const SEC1: &str = "-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIF7za4js0UtHnTxwu4NUEV3EuKlp/WveYwr++c7bhqzeoAoGCCqGSM49
AwEHoUQDQgAEq/kpUHYfsufwX2xqWblDZArBDTY72xMXF/VuyzQZrqzjhLuEtps/
Fz1M4fpBJoFjmgdg8XpeRJDjtGLT6v6JuA==
-----END EC PRIVATE KEY-----
";
    /// Of the same length, on the curve secp256k1.
    const SEC1_OTHER_CURVE: &str = "-----BEGIN EC PRIVATE KEY-----
MHQCAQEEII9pnNK/GKpbzOUgGoaY4gZlxY0T5GgvtGJQhI3p7dQsoAcGBSuBBAAK
oUQDQgAE2AksjHRN6cCFF7KYXll/xh5ApP8kiGfnohDLvjHiAnXzzzOyfuCNX0EP
T16CsLXZGvK+zEDjk67ue1tzdRHBFw==
-----END EC PRIVATE KEY-----
";

    /// Without the public key, which would not fit P-256.
    const SEC1_OTHER_CURVE_SHORT: &str = "-----BEGIN EC PRIVATE KEY-----
MC4CAQEEICK64miK/u8oNzUgLRsiFGhHGfxs2kOqP/GPfyskCjdboAcGBSuBBAAK
-----END EC PRIVATE KEY-----
";

    fn fault(pem: &str) -> String {
        P256Key::from_pem(pem.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_p256_key_is_read_in_either_form() {
        let pair = KeyPair::generate().unwrap();
        let key = P256Key::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        assert_eq!(key.public, URL_SAFE_NO_PAD.encode(pair.public_key_raw()));
        let windows = pair.serialize_pem().replace('\n', "\r\n");
        assert_eq!(
            P256Key::from_pem(windows.as_bytes()).unwrap().public,
            key.public
        );

        let key = P256Key::from_pem(SEC1.as_bytes()).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(&key.public).unwrap().len(), 65);
        assert_eq!(format!("{key:?}"), "P256Key(secret)");
    }

    #[test]
    fn a_key_of_another_kind_is_named() {
        let pem = |algorithm| KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        assert_eq!(fault(&pem(&PKCS_ECDSA_P384_SHA384)), IS_OTHER_CURVE);
        assert_eq!(fault(&pem(&PKCS_ED25519)), IS_OTHER_CURVE);
        assert_eq!(fault(SEC1_OTHER_CURVE), IS_OTHER_CURVE);
        assert_eq!(fault(SEC1_OTHER_CURVE_SHORT), IS_OTHER_CURVE);
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        assert_eq!(fault(&rsa.serialize_pem()), IS_RSA);
    }

    #[test]
    fn what_is_no_private_key_is_told_apart() {
        let public = KeyPair::generate().unwrap().public_key_pem();
        for (pem, told) in [
            (&*public, "a public key"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB", "encrypted"),
            (&SEC1[..250], "damaged"),
            ("{}", "no private key in PEM form"),
            ("", "no private key in PEM form"),
        ] {
            assert!(fault(pem).contains(told), "{told}: {}", fault(pem));
        }
    }

    fn account(change: impl FnOnce(&mut Value)) -> Result<ServiceAccount, String> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut file = json!({
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "0123",
            "private_key": key.serialize_pem(),
            "client_email": "push@example.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        });
        change(&mut file);
        ServiceAccount::from_json(file.to_string().as_bytes(), "my-project")
    }

    #[test]
    fn a_service_account_says_what_is_missing() {
        assert_eq!(account(|_| {}).unwrap().email, "push@example.com");
        for name in ["private_key", "client_email", "token_uri"] {
            for value in [Value::Null, json!("")] {
                let fault = account(|file| file[name] = value).err().unwrap();
                assert!(fault.contains(&format!("no `{name}`")), "{fault}");
            }
        }
        let ec = KeyPair::generate().unwrap().serialize_pem();
        for (name, value, told) in [
            ("private_key", &*ec, "no RSA key"),
            ("private_key", "secret", "no RSA key"),
            ("token_uri", "token", "no URL"),
            (
                "project_id",
                "other",
                "belongs to the project `other`, not to `my-project`",
            ),
            ("type", "authorized_user", "not `service_account`"),
        ] {
            let fault = account(|file| file[name] = value.into()).err().unwrap();
            assert!(fault.contains(told), "{fault}");
        }
    }

    #[test]
    fn what_is_not_json_is_not_quoted() {
        let json = br#"{"private_key": 271828}"#;
        let fault = ServiceAccount::from_json(json, "my-project").err().unwrap();
        assert!(fault.contains("line 1"), "{fault}");
        assert!(!fault.contains("271828"), "{fault}");
    }
}
