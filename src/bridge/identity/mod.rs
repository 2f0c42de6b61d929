//! Who a token speaks for.
//!
//! ```text
//!   secret   the data directory's own secret, made at the first start (HS256)
//!   keys     whose signatures are believed: that secret, a PEM file or a JSON Web Key Set
//!   token    what a token claims, checked against the clock of the caller
//! ```

mod keys;
mod secret;
#[cfg(test)]
mod tests;
mod token;

use std::path::PathBuf;

pub use keys::Keys;
pub use secret::Secret;
pub use token::{Identity, NewToken, TOKEN_BYTES_MAX, issue};

/// Why the keys cannot be used; the start ends here.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of keys, or the secret, cannot be read.
    #[error("{path} cannot be read; see `auth.keys` and the rights of the file")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The secret cannot be made.
    #[error("{path} cannot be written; the token secret is made there at the first start")]
    Unwritable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// HS256 needs as many bits as its hash has, or tokens can be forged by guessing.
    #[error(
        "{path} holds no secret of at least {bytes_min} bytes; remove it, and a new one is made"
    )]
    WeakSecret { path: PathBuf, bytes_min: usize },
    /// Everybody on this machine could sign tokens.
    #[error("{path} can be read by everybody on this machine; run `chmod 600` on it")]
    ExposedSecret { path: PathBuf },
    /// The file is there, but no key in it can verify a token.
    #[error("{path} cannot be used for `auth.keys`: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

/// Why a token is not believed. The text is meant for whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no token; send a signed JSON Web Token with `sub` and `exp`")]
    Malformed,
    #[error("the token is signed with an algorithm that the keys of this server do not have")]
    WrongAlgorithm,
    #[error("the token names a key (`kid`) that this server does not know")]
    UnknownKey,
    #[error("the signature of the token is not by a key of this server; ask for a new token")]
    BadSignature,
    #[error("the token never ends; it needs `exp`")]
    NoExpiry,
    #[error("the token has expired; ask for a new one")]
    Expired,
    #[error("the token is not valid yet (`nbf` or `iat` lie in the future); check the clocks")]
    NotYetValid,
    #[error("the token is from another issuer than `auth.issuer`")]
    WrongIssuer,
    #[error("the token is for another audience than `auth.audience`")]
    WrongAudience,
    #[error("the `sub` of the token is missing or cannot name a user")]
    BadSubject,
}

impl TokenError {
    /// Whether a token was good once, so that a newer one of the same kind will do.
    #[must_use]
    pub fn is_expired_kind(&self) -> bool {
        matches!(self, Self::Expired)
    }
}
