//! Tokens by real keys of every kind, and everything that only looks like one.

use std::{fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    PublicKeyData as _, SignatureAlgorithm,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{config::AuthConfig, domain::ids::Subject};

const NOW: u64 = 1_700_000_000;

/// A data directory, and the settings that go with it.
struct Setup {
    data_dir: TempDir,
    auth: AuthConfig,
}

impl Setup {
    fn new() -> Self {
        let auth = AuthConfig {
            keys: None,
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(30),
            expiry_warning: Duration::from_mins(1),
        };
        Self {
            data_dir: tempfile::tempdir().unwrap(),
            auth,
        }
    }

    fn with_keys(name: &str, text: &str) -> Self {
        let mut setup = Self::new();
        let path = setup.data_dir.path().join(name);
        fs::write(&path, text).unwrap();
        setup.auth.keys = Some(path);
        setup
    }

    fn keys(&self) -> Keys {
        self.load().unwrap()
    }

    fn load(&self) -> Result<Keys, IdentityError> {
        Keys::load(&self.auth, self.data_dir.path())
    }

    fn secret(&self) -> Secret {
        Secret::open(self.data_dir.path()).unwrap()
    }

    /// A token by the secret of the data directory.
    fn sign(&self, claims: &Value) -> String {
        let key = EncodingKey::from_secret(self.secret().as_bytes());
        encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    }
}

/// A key pair, and how tokens are signed with it.
struct Signer {
    pair: KeyPair,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    fn new(kind: &'static SignatureAlgorithm) -> Self {
        let pair = KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let pem = pem.as_bytes();
        let (algorithm, key) = if kind == &PKCS_RSA_SHA256 {
            (Algorithm::RS256, EncodingKey::from_rsa_pem(pem))
        } else if kind == &PKCS_ED25519 {
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(pem))
        } else {
            (Algorithm::ES256, EncodingKey::from_ec_pem(pem))
        };
        Self {
            pair,
            algorithm,
            key: key.unwrap(),
        }
    }

    fn sign(&self, kid: Option<&str>) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        encode(&header, &claims(), &self.key).unwrap()
    }

    fn jwk(&self, kid: &str) -> Value {
        let raw = self.pair.der_bytes();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self.algorithm {
            Algorithm::ES256 => {
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(&raw[1..33]), "y": text(&raw[33..])})
            }
            Algorithm::EdDSA => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(raw)}),
            _ => {
                let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.key, Algorithm::RS256);
                let mut jwk = serde_json::to_value(jwk.unwrap()).unwrap();
                jwk["kid"] = kid.into();
                jwk
            }
        }
    }
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW + 60})
}

fn verified(keys: &Keys, token: &str) -> Result<String, TokenError> {
    keys.verify(token, NOW)
        .map(|identity| identity.subject.to_string())
}

#[test]
fn a_token_of_ours_is_believed_until_it_ends() {
    let setup = Setup::new();
    let alice = Subject::new("alice").unwrap();
    let mut new = NewToken {
        subject: &alice,
        time_to_live: Duration::from_mins(1),
        is_admin: false,
        issuer: None,
        audience: None,
    };
    let keys = setup.keys();

    let identity = keys
        .verify(&issue(&setup.secret(), &new, NOW), NOW)
        .unwrap();
    let expected = Identity {
        subject: alice.clone(),
        is_admin: false,
        expires_at: NOW + 60,
        issued_at: Some(NOW),
    };
    assert_eq!(identity, expected);

    new.is_admin = true;
    let token = issue(&setup.secret(), &new, NOW);
    assert!(
        keys.verify(&token, NOW + 89).unwrap().is_admin,
        "within the leeway"
    );
    let error = keys.verify(&token, NOW + 90).unwrap_err();
    assert_eq!(error, TokenError::Expired);
    assert!(error.is_expired_kind());
}

#[test]
fn claims_are_judged() {
    let setup = Setup::new();
    let keys = setup.keys();
    for (claims, expected) in [
        (json!({"sub": "a", "exp": NOW + 1}), Ok(())),
        (json!({"sub": "a", "exp": 1.7e9 + 0.5, "x": [1]}), Ok(())),
        (json!({"sub": "a", "exp": 1e300}), Ok(())),
        (
            json!({"sub": "a", "exp": NOW + 1, "nbf": NOW + 30, "iat": NOW - 5}),
            Ok(()),
        ),
        (json!({"sub": "a"}), Err(TokenError::NoExpiry)),
        (json!({"sub": "a", "exp": null}), Err(TokenError::NoExpiry)),
        (json!({"sub": "a", "exp": -1}), Err(TokenError::Expired)),
        (
            json!({"sub": "a", "exp": NOW - 30}),
            Err(TokenError::Expired),
        ),
        (
            json!({"sub": "a", "exp": NOW + 99, "nbf": NOW + 31}),
            Err(TokenError::NotYetValid),
        ),
        (
            json!({"sub": "a", "exp": NOW + 99, "iat": NOW + 31}),
            Err(TokenError::NotYetValid),
        ),
        (json!({"exp": NOW + 1}), Err(TokenError::BadSubject)),
        (
            json!({"sub": "", "exp": NOW + 1}),
            Err(TokenError::BadSubject),
        ),
        (
            json!({"sub": "a/b", "exp": NOW + 1}),
            Err(TokenError::BadSubject),
        ),
        (
            json!({"sub": "a", "exp": "soon"}),
            Err(TokenError::Malformed),
        ),
        (
            json!({"sub": 7, "exp": NOW + 1}),
            Err(TokenError::Malformed),
        ),
        (json!(["sub"]), Err(TokenError::Malformed)),
    ] {
        let judged = keys.verify(&setup.sign(&claims), NOW).map(|_| ());
        assert_eq!(judged, expected, "{claims}");
    }
}

#[test]
fn only_the_word_admin_makes_an_administrator() {
    let setup = Setup::new();
    for (scope, is_admin) in [
        (json!("admin"), true),
        (json!("read admin write"), true),
        (json!("administrator"), false),
        (json!(""), false),
        (json!(null), false),
    ] {
        let token = setup.sign(&json!({"sub": "a", "exp": NOW + 1, "scope": scope}));
        assert_eq!(
            setup.keys().verify(&token, NOW).unwrap().is_admin,
            is_admin,
            "{scope}"
        );
    }
}

#[test]
fn issuer_and_audience_count_if_they_are_configured() {
    let mut setup = Setup::new();
    setup.auth.issuer = Some("us".to_owned());
    setup.auth.audience = Some("homing".to_owned());
    let keys = setup.keys();
    for (iss, aud, expected) in [
        (json!("us"), json!("homing"), Ok(())),
        (json!("us"), json!(["other", "homing"]), Ok(())),
        (json!("them"), json!("homing"), Err(TokenError::WrongIssuer)),
        (json!(null), json!("homing"), Err(TokenError::WrongIssuer)),
        (
            json!("us"),
            json!(["other"]),
            Err(TokenError::WrongAudience),
        ),
        (json!("us"), json!(null), Err(TokenError::WrongAudience)),
    ] {
        let token = setup.sign(&json!({"sub": "a", "exp": NOW + 1, "iss": iss, "aud": aud}));
        assert_eq!(
            keys.verify(&token, NOW).map(|_| ()),
            expected,
            "{iss} {aud}"
        );
    }
}

#[test]
fn public_keys_of_each_kind_verify_from_pem_and_from_a_key_set() {
    let foreign = Signer::new(&PKCS_ECDSA_P256_SHA256).sign(None);
    for kind in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let signer = Signer::new(kind);
        let token = signer.sign(None);
        let jwks = json!({"keys": [signer.jwk("k1")]}).to_string();
        for setup in [
            Setup::with_keys("key.pem", &signer.pair.public_key_pem()),
            Setup::with_keys("keys.jwks", &jwks),
        ] {
            let keys = setup.keys();
            assert_eq!(verified(&keys, &token), Ok("alice".to_owned()));
            assert_eq!(
                verified(&keys, &signer.sign(Some("k1"))),
                Ok("alice".to_owned())
            );
            let refusal = verified(&keys, &foreign).unwrap_err();
            assert!(matches!(
                refusal,
                TokenError::BadSignature | TokenError::WrongAlgorithm
            ));
        }
    }
}

#[test]
fn a_key_set_is_searched_by_key_id() {
    let [old, new] = [(); 2].map(|()| Signer::new(&PKCS_ED25519));
    let jwks = json!({"keys": [
        {"kty": "future", "kid": "new"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        old.jwk("old"),
        new.jwk("new"),
    ]});
    let keys = Setup::with_keys("keys.json", &jwks.to_string()).keys();
    assert!(verified(&keys, &old.sign(Some("old"))).is_ok());
    assert!(verified(&keys, &new.sign(Some("new"))).is_ok());
    assert!(verified(&keys, &new.sign(None)).is_ok());
    assert_eq!(
        verified(&keys, &new.sign(Some("old"))),
        Err(TokenError::BadSignature)
    );
    assert_eq!(
        verified(&keys, &new.sign(Some("gone"))),
        Err(TokenError::UnknownKey)
    );
}

/// Given a broker that believes a public key, whoever knows that key (everybody) must not be
/// able to sign with it.
#[test]
fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let signer = Signer::new(&PKCS_RSA_SHA256);
    let pem = signer.pair.public_key_pem();
    let keys = Setup::with_keys("key.pem", &pem).keys();

    for secret in [
        pem.as_bytes(),
        pem.trim().as_bytes(),
        signer.pair.der_bytes(),
    ] {
        let key = EncodingKey::from_secret(secret);
        let forged = encode(&Header::new(Algorithm::HS256), &claims(), &key).unwrap();
        assert_eq!(verified(&keys, &forged), Err(TokenError::WrongAlgorithm));
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None","typ":"JWT"}"#,
        r#"{"alg":""}"#,
        "{}",
    ] {
        for tail in ["", "AAAA"] {
            let [header, claims] =
                [header, &claims().to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
            let forged = format!("{header}.{claims}.{tail}");
            assert_eq!(
                verified(&keys, &forged),
                Err(TokenError::Malformed),
                "{forged}"
            );
        }
    }
    let mut critical = Header::new(Algorithm::RS256);
    critical.crit = Some(vec!["b64".to_owned()]);
    let token = encode(&critical, &claims(), &signer.key).unwrap();
    assert_eq!(verified(&keys, &token), Err(TokenError::Malformed));
}

#[test]
fn files_without_a_usable_key_are_refused_with_a_cure() {
    let signer = Signer::new(&PKCS_ED25519);
    let public = signer.pair.public_key_pem();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)
        .unwrap()
        .public_key_pem();
    for (name, text, says) in [
        ("key.pem", "hello", "no PUBLIC KEY"),
        ("key.pem", &signer.pair.serialize_pem(), "pubout"),
        ("key.pem", &format!("{public}{public}"), "several"),
        (
            "key.pem",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "none of",
        ),
        ("key.pem", &p384, "P-256"),
        ("keys.json", "{", "EOF"),
        ("keys.json", r#"{"keys":[]}"#, "no key"),
        (
            "keys.json",
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#,
            "not supported",
        ),
        (
            "keys.json",
            r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
            "2048",
        ),
        (
            "keys.json",
            r#"{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}"#,
            "use",
        ),
    ] {
        let error = Setup::with_keys(name, text).load().unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    let mut setup = Setup::new();
    setup.auth.keys = Some(Path::new("/nowhere/key.pem").to_owned());
    assert!(matches!(
        setup.load(),
        Err(IdentityError::Unreadable { .. })
    ));
}

proptest! {
    #[test]
    fn noise_is_no_token(noise in "\\PC{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        let keys = Setup::new().keys();
        prop_assert!(keys.verify(&noise, NOW).is_err());
        prop_assert!(keys.verify(&parts.join("."), NOW).is_err());
    }

    /// Any other character at any place: the signature covers header and claims, and base64
    /// without padding has one spelling for each signature.
    #[test]
    fn a_changed_token_is_no_token(place in any::<prop::sample::Index>(), other in "[A-Za-z0-9_.=-]") {
        let setup = Setup::new();
        let token = setup.sign(&claims());
        let place = place.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(place..=place, &other);
        prop_assume!(changed != token);
        prop_assert!(setup.keys().verify(&changed, NOW).is_err(), "{changed}");
    }
}
