//! Receipts: how far the participants of a conversation have got.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ask, InConversation, Operation, OperationError, ok, operation};
use crate::domain::{
    message::Sequence,
    receipt::{Report, Standing},
    request::Answer,
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "receipts",
        Get,
        "/conversations/{conversation}/receipts",
        "How far each participant has got.",
        list,
        InConversation,
        Receipts
    ),
    operation!(
        "receipts/put",
        Put,
        "/conversations/{conversation}/receipts",
        "Says how far the caller has got, and answers where they stand then.",
        report,
        InConversation<ReportArguments>,
        Standing
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReportArguments {
    /// Everything up to here has reached one of the user's devices.
    delivered: Option<Sequence>,
    /// Everything up to here has been read by the user.
    read: Option<Sequence>,
}

#[derive(Serialize, JsonSchema)]
struct Receipts {
    receipts: Vec<Standing>,
}

async fn list(ask: Ask<'_>, arguments: InConversation) -> Result<Answer, OperationError> {
    let standings = ask.bridge.standings(ask.caller, arguments.conversation);
    let receipts = standings.await?;
    ok(&Receipts { receipts })
}

async fn report(
    ask: Ask<'_>,
    arguments: InConversation<ReportArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let ReportArguments { delivered, read } = rest;
    if delivered.is_none() && read.is_none() {
        return Err(OperationError::invalid("give `read`, `delivered` or both"));
    }
    let report = Report { delivered, read };
    let standing = ask.bridge.report(ask.caller, conversation, report);
    ok(&standing.await?)
}
