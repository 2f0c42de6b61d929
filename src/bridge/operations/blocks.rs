//! Whom the caller does not want to hear of.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Ask, Operation, OperationError, arguments::page_limit, ok, operation};
use crate::{
    bridge::blocks::{BlockPage, PAGE_BLOCKS_MAX},
    domain::{ids::Subject, request::Answer},
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "blocks",
        Get,
        "/me/blocks",
        "A page of the users that the caller blocks.",
        list,
        ListArguments,
        BlockPage
    ),
    operation!(
        "blocks/add",
        Put,
        "/me/blocks/{user}",
        "Blocks a user: they write nothing in the direct conversation of the two, begin no new one, and do not bring the caller into groups.",
        block,
        UserArgument
    ),
    operation!(
        "blocks/remove",
        Delete,
        "/me/blocks/{user}",
        "Ends a block, if there is one.",
        unblock,
        UserArgument
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    /// The `next_after` of the page before.
    after: Option<Subject>,
    #[schemars(range(min = 1, max = 200))]
    limit: Option<NonZeroUsize>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserArgument {
    user: Subject,
}

async fn list(ask: Ask<'_>, arguments: ListArguments) -> Result<Answer, OperationError> {
    let limit = page_limit(arguments.limit, PAGE_BLOCKS_MAX)?;
    let page = ask
        .bridge
        .blocks(ask.caller, arguments.after.as_ref(), limit);
    ok(&page.await?)
}

async fn block(ask: Ask<'_>, arguments: UserArgument) -> Result<Answer, OperationError> {
    ask.bridge.block(ask.caller, &arguments.user).await?;
    Ok(Answer::done())
}

async fn unblock(ask: Ask<'_>, arguments: UserArgument) -> Result<Answer, OperationError> {
    ask.bridge.unblock(ask.caller, &arguments.user).await?;
    Ok(Answer::done())
}
