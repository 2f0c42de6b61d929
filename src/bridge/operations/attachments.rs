//! URLs for what is attached to messages.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Ask, InConversation, Operation, OperationError, created, ok, operation};
use crate::{
    bridge::attachments::{DownloadUrl, Upload, UploadUrl},
    domain::{message::Sequence, request::Answer},
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "attachments/upload",
        Post,
        "/attachments",
        "A URL to upload an attachment to, and the id by which a message names it.",
        upload,
        Upload,
        UploadUrl
    ),
    operation!(
        "attachments/download",
        Get,
        "/conversations/{conversation}/messages/{seq}/attachments/{id}",
        "A URL to download an attachment of a message from.",
        download,
        InConversation<DownloadArguments>,
        DownloadUrl
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DownloadArguments {
    /// The entry that names it: the message, or its edit.
    seq: Sequence,
    #[schemars(length(min = 1, max = 64))]
    id: String,
}

async fn upload(ask: Ask<'_>, upload: Upload) -> Result<Answer, OperationError> {
    let signed = ask.bridge.sign_upload(&upload, ask.seed)?;
    Ok(Answer {
        is_passing: true,
        ..created(&signed)?
    })
}

async fn download(
    ask: Ask<'_>,
    arguments: InConversation<DownloadArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let signed = ask
        .bridge
        .sign_download(ask.caller, conversation, rest.seq, &rest.id);
    ok(&signed.await?)
}
