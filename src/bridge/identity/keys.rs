//! Whose signatures are believed.
//!
//! Each key has exactly one algorithm, fixed when it is loaded. What a token's header says
//! only selects among the keys: `none`, or HS256 with a public key as its secret, find none.

use std::{fs, path::Path};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header, Validation, decode,
    decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};

use super::{
    Identity, IdentityError, Secret, TOKEN_BYTES_MAX, TokenError,
    token::{Claims, Rules},
};
use crate::config::AuthConfig;

/// The most keys that are taken from a JSON Web Key Set.
const KEYS_MAX: usize = 64;
/// Of the modulus: 2048 bits, which RFC 7518 §3.3 asks for.
const RSA_BYTES_MIN: usize = 256;
/// An uncompressed point of P-256.
const EC_POINT_BYTES: usize = 65;
const ED_POINT_BYTES: usize = 32;

/// The keys, and what else a token must satisfy.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    rules: Rules,
}

#[derive(Debug)]
struct Key {
    /// The `kid` of a JSON Web Key; a key without one serves every token of its algorithm.
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Keys {
    /// Reads the keys of `auth.keys`, or the secret of the data directory.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if a file cannot be read, or holds nothing that can verify a token.
    pub fn load(auth: &AuthConfig, data_dir: &Path) -> Result<Self, IdentityError> {
        let keys = match &auth.keys {
            None => vec![Key::hmac(&Secret::open(data_dir)?)],
            Some(path) => read(path)?,
        };
        let rules = Rules {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway: auth.leeway,
        };
        Ok(Self { keys, rules })
    }

    /// Who the token speaks for. `now_unix` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`TokenError`], whose text says what its owner should do.
    pub fn verify(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError> {
        self.rules.identity(self.claims(token)?, now_unix)
    }

    /// The claims, if one of the keys has signed them.
    fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 §4.1.11: an extension that must be understood, and is not.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let mut failure = TokenError::WrongAlgorithm;
        for key in self.keys.iter().filter(|key| key.algorithm == header.alg) {
            if !key.is_named_by(&header) {
                if failure == TokenError::WrongAlgorithm {
                    failure = TokenError::UnknownKey;
                }
                continue;
            }
            match decode(token, &key.decoding, &signature_only(key.algorithm)) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                    failure = TokenError::BadSignature;
                }
                Err(_) => return Err(TokenError::Malformed),
            }
        }
        Err(failure)
    }
}

/// The crate would read the clock; [`Rules`] judges the claims instead.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl Key {
    fn hmac(secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.as_bytes());
        Self {
            id: None,
            algorithm: Algorithm::HS256,
            decoding,
        }
    }

    /// A public key, with the algorithm of its kind.
    fn public(id: Option<String>, decoding: DecodingKey) -> Result<Self, &'static str> {
        let algorithm = match decoding.family() {
            AlgorithmFamily::Rsa => Algorithm::RS256,
            AlgorithmFamily::Ec => Algorithm::ES256,
            AlgorithmFamily::Ed => Algorithm::EdDSA,
            AlgorithmFamily::Hmac => return Err("a shared secret is no public key"),
        };
        let bytes = match decoding.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
            DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
        };
        match algorithm {
            Algorithm::RS256 if bytes < RSA_BYTES_MIN => Err("an RSA key needs at least 2048 bits"),
            Algorithm::ES256 if bytes != EC_POINT_BYTES => Err("the curve must be P-256"),
            Algorithm::EdDSA if bytes != ED_POINT_BYTES => Err("the curve must be Ed25519"),
            _ => Ok(Self {
                id,
                algorithm,
                decoding,
            }),
        }
    }

    fn is_named_by(&self, header: &Header) -> bool {
        match (&self.id, &header.kid) {
            (Some(id), Some(named)) => id == named,
            _ => true,
        }
    }
}

fn read(path: &Path) -> Result<Vec<Key>, IdentityError> {
    let unusable = |reason| IdentityError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|source| IdentityError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "jwks") => from_key_set(&text).map_err(unusable),
        _ => from_pem(&text)
            .map(|key| vec![key])
            .map_err(|reason| unusable(reason.to_owned())),
    }
}

fn from_pem(text: &str) -> Result<Key, &'static str> {
    if text.contains("PRIVATE KEY-----") {
        return Err("it holds a private key; `openssl pkey -pubout` writes the public one");
    }
    match text.matches("-----BEGIN ").count() {
        1 if text.contains("PUBLIC KEY-----") => {}
        0 | 1 => {
            return Err("it holds no PUBLIC KEY in PEM form (a JWKS file ends in .json or .jwks)");
        }
        _ => return Err("it holds several keys; a JWKS file (.jwks) is for that"),
    }
    let pem = text.as_bytes();
    let decoding = DecodingKey::from_ec_pem(pem)
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .or_else(|_| DecodingKey::from_rsa_pem(pem))
        .map_err(|_| "its key is none of RSA, EC P-256 and Ed25519")?;
    Key::public(None, decoding)
}

/// The signing keys of a set; the others are for somebody else (RFC 7517 §5).
fn from_key_set(text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!(
            "it holds {} keys, {KEYS_MAX} are allowed",
            set.keys.len()
        ));
    }
    let mut refused = String::new();
    let mut keys = Vec::new();
    for jwk in &set.keys {
        match from_jwk(jwk) {
            Ok(key) => keys.push(key),
            Err(reason) => refused = format!("; the last one: {reason}"),
        }
    }
    if keys.is_empty() {
        return Err(format!(
            "it holds no key for RS256, ES256 or EdDSA{refused}"
        ));
    }
    Ok(keys)
}

fn from_jwk(jwk: &Jwk) -> Result<Key, &'static str> {
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return Err("its use is not `sig`");
    }
    let only = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => KeyAlgorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            KeyAlgorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            KeyAlgorithm::EdDSA
        }
        _ => return Err("its kind or curve is not supported"),
    };
    if jwk
        .common
        .key_algorithm
        .is_some_and(|algorithm| algorithm != only)
    {
        return Err("its algorithm is not supported");
    }
    let decoding = DecodingKey::from_jwk(jwk).map_err(|_| "its numbers are not base64url")?;
    Key::public(jwk.common.key_id.clone(), decoding)
}
