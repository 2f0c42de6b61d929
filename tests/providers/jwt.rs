//! JSON web tokens, read as strictly as RFC 7515 allows.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::Value;

/// A token in its compact form whose signature has not been looked at.
pub(crate) struct Jwt<'a> {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Jwt<'a> {
    /// Three parts of unpadded base64url, two of them JSON objects.
    pub(crate) fn read(token: &'a str) -> Result<Self, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("it has no dots")?;
        let (header, claims) = signed.split_once('.').ok_or("it has one dot")?;
        if decode(signature).is_none() {
            return Err("its signature is not base64url without padding");
        }
        Ok(Self {
            header: object(header).ok_or("its header is not an object in base64url")?,
            claims: object(claims).ok_or("its claims are not an object in base64url")?,
            signed,
            signature,
        })
    }

    /// Whether it says that it is signed so, and is, with this key.
    pub(crate) fn is_signed(&self, algorithm: Algorithm, key: &DecodingKey) -> bool {
        self.header["alg"] == *format!("{algorithm:?}")
            && crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm)
                .unwrap_or(false)
    }

    /// A claim that is a whole number, as `iat` and `exp` have to be.
    pub(crate) fn seconds(&self, claim: &str) -> Option<i64> {
        self.claims[claim].as_i64()
    }
}

fn object(part: &str) -> Option<Value> {
    let value: Value = serde_json::from_slice(&decode(part)?).ok()?;
    value.is_object().then_some(value)
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}
