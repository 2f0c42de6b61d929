//! URLs for attachments, signed for an S3-compatible store (AWS Signature Version 4, in the query).
//!
//! ```text
//!   attachments/upload ─▶ id, URL for one PUT ─▶ the client uploads ─▶ message {"attachments": [{"id", …}]}
//!   attachments/download of that message ─▶ URL for GET, for who may read the message
//! ```
//!
//! The server neither stores attachments nor looks at them. An id is random: who has it was given it.

use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Bridge,
    conversations::{Caller, ConversationError, Range},
    inbox::Where,
};
use crate::{
    config::AttachmentsConfig,
    domain::{ids::ConversationId, message::Sequence, problem::ProblemKind},
};

const INVALID_ENDPOINT: &str =
    "attachments.endpoint is a URL with a host, as https://s3.eu-central-1.amazonaws.com";

/// Signs URLs; or does not, if no store is configured.
#[derive(Clone, Debug)]
pub struct Attachments(Option<Signer>);

#[derive(Clone)]
struct Signer {
    bucket: Bucket,
    credentials: Credentials,
    expiry: Duration,
    bytes_max: u64,
}

/// The credentials are not shown.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.bucket.base_url())
    }
}

/// What is to be uploaded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// In bytes.
    #[schemars(range(min = 1))]
    pub size: u64,
    #[schemars(length(min = 1, max = 255))]
    pub content_type: String,
}

/// Where it goes: PUT it there, with exactly this `content-type` and `content-length`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UploadUrl {
    /// For the `attachments` of a message.
    pub id: String,
    pub url: String,
    /// How long the URL is good for, in seconds.
    pub expires_in: u64,
}

/// Where it is: GET it there.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DownloadUrl {
    pub url: String,
    /// How long the URL is good for, in seconds.
    pub expires_in: u64,
}

impl Attachments {
    /// Without a usable store nothing is signed.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings.
    pub fn new(config: &AttachmentsConfig) -> Result<Self, String> {
        if config.endpoint.is_empty() {
            return Ok(Self(None));
        }
        let style = if config.path_style {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let endpoint = config.endpoint.parse().map_err(|_| INVALID_ENDPOINT)?;
        let bucket = Bucket::new(
            endpoint,
            style,
            config.bucket.clone(),
            config.region.clone(),
        )
        .map_err(|_| INVALID_ENDPOINT)?;
        let secret = config.secret_key.expose_secret().to_owned();
        Ok(Self(Some(Signer {
            bucket,
            credentials: Credentials::new(config.access_key.clone(), secret),
            expiry: config.url_expiry,
            bytes_max: config.bytes_max,
        })))
    }

    fn signer(&self) -> Result<&Signer, ConversationError> {
        self.0.as_ref().ok_or_else(|| {
            let detail = "this server signs no URLs: no store is configured, see [attachments] in its settings";
            ConversationError::Refused(ProblemKind::NotFound, detail.to_owned())
        })
    }
}

impl Signer {
    fn upload(&self, upload: &Upload, seed: Option<Uuid>) -> Result<UploadUrl, ConversationError> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let content_type = upload.content_type.as_str();
        if !(1..=255).contains(&content_type.len()) || !content_type.bytes().all(is_plain) {
            let detail = "`content_type` has 1 to 255 visible ASCII characters, as image/png";
            return Err(ConversationError::Invalid(detail.to_owned()));
        }
        if upload.size == 0 || upload.size > self.bytes_max {
            let detail = format!("an attachment has 1 to {} bytes", self.bytes_max);
            return Err(ConversationError::Refused(ProblemKind::TooLarge, detail));
        }
        let id = seed.unwrap_or_else(Uuid::new_v4).to_string();
        let mut put = self.bucket.put_object(Some(&self.credentials), &id);
        // What is signed must be sent so: another size or type is refused by the store.
        put.headers_mut().insert("content-type", content_type);
        put.headers_mut()
            .insert("content-length", upload.size.to_string());
        let url = put.sign(self.expiry).to_string();
        let expires_in = self.expiry.as_secs();
        Ok(UploadUrl {
            id,
            url,
            expires_in,
        })
    }

    fn download(&self, id: Uuid) -> DownloadUrl {
        let id = id.to_string();
        let get = self.bucket.get_object(Some(&self.credentials), &id);
        DownloadUrl {
            url: get.sign(self.expiry).to_string(),
            expires_in: self.expiry.as_secs(),
        }
    }
}

/// The ids of the attachments of an entry.
#[derive(Deserialize)]
struct Entry {
    seq: i64,
    #[serde(default)]
    attachments: Vec<Attachment>,
}

#[derive(Deserialize)]
struct Attachment {
    id: String,
}

fn is_attached(payload: &[u8], sequence: Sequence, id: &str) -> bool {
    serde_json::from_slice::<Entry>(payload).is_ok_and(|entry| {
        let mut attached = entry.attachments.iter();
        entry.seq == sequence.get() && attached.any(|attachment| attachment.id == id)
    })
}

impl Bridge {
    /// A place for something that the caller wants to attach to a message; the same one for
    /// the same `seed`.
    pub fn sign_upload(
        &self,
        upload: &Upload,
        seed: Option<Uuid>,
    ) -> Result<UploadUrl, ConversationError> {
        self.0.attachments.signer()?.upload(upload, seed)
    }

    /// Where an attachment of a message is, for who may read the message.
    pub async fn sign_download(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        sequence: Sequence,
        id: &str,
    ) -> Result<DownloadUrl, ConversationError> {
        let signer = self.0.attachments.signer()?;
        let after = Range::After(sequence.get() - 1);
        let page = self
            .page(caller, conversation, after, 1, usize::MAX)
            .await?;
        let entry = page.entries.first().map(|entry| &entry.payload[..]);
        // An edit may have attached it: the thread shows that under the message.
        let after = Where::After(sequence.get() - 1);
        let thread = self
            .thread(caller, conversation, after, 1, usize::MAX)
            .await?;
        let message = thread.messages.first().map(|message| &message.payload[..]);
        let mut shown = entry.into_iter().chain(message);
        let is_attached = shown.any(|payload| is_attached(payload, sequence, id));
        // Only what was signed for an upload is one of ours.
        match Uuid::try_parse(id) {
            Ok(known) if is_attached && known.to_string() == id => Ok(signer.download(known)),
            _ => Err(ConversationError::Refused(
                ProblemKind::NotFound,
                "this message has no such attachment in the store".to_owned(),
            )),
        }
    }
}
