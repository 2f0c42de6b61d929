//! Why an app cannot be pushed through.

use std::path::PathBuf;

use crate::domain::push::Route;

/// A setting or a key file that no notification could be sent with. The text says the cure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("{route}: {}: {reason}", file.display())]
    File {
        route: Route,
        file: PathBuf,
        reason: String,
    },
    #[error("{route}: {reason}")]
    Setting { route: Route, reason: String },
    #[error(
        "{route}: no HTTP client: {reason}; without `ca` it needs the certificate authorities \
         of the system (the package ca-certificates)"
    )]
    Http { route: Route, reason: String },
}
