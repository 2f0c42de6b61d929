//! The inbox: its pages, one row of it, and what its user sets there.

use super::{Ask, InConversation, OfDevice, Operation, OperationError, ok, operation};
use crate::{
    bridge::inbox::{InboxPage, InboxRow, InboxSettings, InboxWanted},
    domain::request::Answer,
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "inbox",
        Get,
        "/inbox",
        "The caller's conversations, the newest activity first.",
        page,
        InboxWanted,
        InboxPage
    ),
    operation!(
        "inbox/row",
        Get,
        "/conversations/{conversation}/inbox",
        "What the caller's inbox shows of one conversation.",
        row,
        InConversation,
        InboxRow
    ),
    operation!(
        "inbox/set",
        Patch,
        "/conversations/{conversation}/inbox",
        "Pins, archives, mutes or reads it: absent stays as it is, null is the default. Answers the row.",
        set,
        InConversation<OfDevice<InboxSettings>>,
        InboxRow
    ),
];

async fn page(ask: Ask<'_>, wanted: InboxWanted) -> Result<Answer, OperationError> {
    ok(&ask.bridge.inbox(ask.caller, &wanted).await?)
}

async fn row(ask: Ask<'_>, arguments: InConversation) -> Result<Answer, OperationError> {
    let row = ask.bridge.inbox_row(ask.caller, arguments.conversation);
    ok(&row.await?)
}

async fn set(
    ask: Ask<'_>,
    arguments: InConversation<OfDevice<InboxSettings>>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let device = rest.reader(&ask, rest.rest.read.is_some()).await?;
    let set = ask
        .bridge
        .set_inbox(ask.caller, device, conversation, rest.rest);
    ok(&set.await?)
}
