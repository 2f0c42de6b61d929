//! Receipts: how far the participants of a conversation have got, and what has become of a message.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Ask, InConversation, OfDevice, Operation, OperationError, ok, operation};
use crate::{
    bridge::conversations::{MessageStatus, Receipts, UserPage},
    domain::{
        ids::Subject,
        message::Sequence,
        receipt::{Report, Standing},
        request::Answer,
    },
};

/// Users in one answer, at most, and if it is not said how many.
const USERS_MAX: u16 = 200;

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "receipts",
        Get,
        "/conversations/{conversation}/receipts",
        "How far each participant has got, page by page, without those who have receipts switched off; and how many have got to the caller's own newest messages.",
        list,
        InConversation<PageArguments>,
        Receipts
    ),
    operation!(
        "receipts/put",
        Put,
        "/conversations/{conversation}/receipts",
        "Says how far the caller has got, on which device if that is known, and answers where they stand then.",
        report,
        InConversation<OfDevice<ReportArguments>>,
        Standing
    ),
    operation!(
        "status",
        Get,
        "/conversations/{conversation}/messages/{seq}/status",
        "What has become of a message, for its sender: how many have it and have read it, and on request who.",
        status,
        InConversation<StatusArguments>,
        MessageStatus
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageArguments {
    /// The users after this one.
    after: Option<Subject>,
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u16>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    {"required": ["delivered"], "properties": {"delivered": {"type": "integer"}}},
    {"required": ["read"], "properties": {"read": {"type": "integer"}}},
]))]
struct ReportArguments {
    /// Everything up to here has reached one of the user's devices.
    delivered: Option<Sequence>,
    /// Everything up to here has been read by the user.
    read: Option<Sequence>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StatusArguments {
    seq: Sequence,
    /// Lists the users, page by page, with their devices.
    details: Option<bool>,
    /// The users after this one.
    after: Option<Subject>,
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u16>,
}

fn page(after: Option<Subject>, limit: Option<u16>) -> Result<UserPage, OperationError> {
    let limit = limit.unwrap_or(USERS_MAX);
    if limit == 0 || limit > USERS_MAX {
        let detail = format!("`limit` lies between 1 and {USERS_MAX}");
        return Err(OperationError::invalid(detail));
    }
    let limit = limit.into();
    Ok(UserPage { after, limit })
}

async fn list(
    ask: Ask<'_>,
    arguments: InConversation<PageArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let page = page(rest.after, rest.limit)?;
    ok(&ask.bridge.standings(ask.caller, conversation, page).await?)
}

async fn report(
    ask: Ask<'_>,
    arguments: InConversation<OfDevice<ReportArguments>>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let ReportArguments { delivered, read } = rest.rest;
    if delivered.is_none() && read.is_none() {
        return Err(OperationError::invalid("give `read`, `delivered` or both"));
    }
    let report = Report { delivered, read };
    let device = rest.reader(&ask, read.is_some()).await?;
    let standing = ask.bridge.report(ask.caller, device, conversation, report);
    ok(&standing.await?)
}

async fn status(
    ask: Ask<'_>,
    arguments: InConversation<StatusArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let is_page = rest.details.unwrap_or(false);
    if !is_page && (rest.after.is_some() || rest.limit.is_some()) {
        let detail = "`after` and `limit` go with `details`";
        return Err(OperationError::invalid(detail));
    }
    let page = page(rest.after, rest.limit)?;
    let status =
        ask.bridge
            .message_status(ask.caller, conversation, rest.seq, is_page.then_some(page));
    ok(&status.await?)
}
