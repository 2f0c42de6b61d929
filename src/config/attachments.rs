//! Where attachments lie, if the server is to sign URLs for them.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// An S3-compatible store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentsConfig {
    /// Empty: no URL is signed.
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    #[serde(serialize_with = "super::redacted")]
    pub secret_key: SecretString,
    pub path_style: bool,
    #[serde(with = "humantime_serde")]
    pub url_expiry: Duration,
    pub bytes_max: u64,
}

impl AttachmentsConfig {
    /// What must hold if a store is named.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.endpoint.is_empty() {
            return Ok(());
        }
        if !self.endpoint.starts_with("https://") && !self.endpoint.starts_with("http://") {
            return Err(
                "attachments.endpoint is a URL, as https://s3.eu-central-1.amazonaws.com"
                    .to_owned(),
            );
        }
        let is_missing = [&self.bucket, &self.region, &self.access_key]
            .iter()
            .any(|text| text.is_empty());
        if is_missing || self.secret_key.expose_secret().is_empty() {
            return Err(
                "attachments.endpoint needs attachments.bucket, region, access_key and secret_key"
                    .to_owned(),
            );
        }
        // The longest that signature version 4 allows is seven days.
        if !(1..=604_800).contains(&self.url_expiry.as_secs()) {
            return Err("attachments.url_expiry lies between 1s and 7d".to_owned());
        }
        Ok(())
    }
}
