//! Threads, and the hash of a log.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ANSWER_BYTES_MAX, Ask, InConversation, Operation, OperationError, ok, operation};
use crate::{
    bridge::inbox::{Hash, ThreadShown, ThreadWanted},
    domain::request::Answer,
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "thread",
        Get,
        "/conversations/{conversation}/thread",
        "Messages with their changes applied: around a place or a time, or what changed since a sequence.",
        thread,
        InConversation<ThreadWanted>,
        ThreadShown
    ),
    operation!(
        "hash",
        Get,
        "/conversations/{conversation}/hash",
        "A hash over entries of the log, by which a client proves that it holds the same ones.",
        hash,
        InConversation<HashArguments>,
        Hash
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HashArguments {
    /// The first entry; the first that the caller may read if it is not said.
    #[schemars(range(min = 1))]
    from: Option<i64>,
    /// The last entry, at most 9,999 later.
    #[schemars(range(min = 0))]
    to: Option<i64>,
}

async fn thread(
    ask: Ask<'_>,
    arguments: InConversation<ThreadWanted>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let (part, limit) = rest.check()?;
    let bytes_max = ask.held.map_or(usize::MAX, |_| ANSWER_BYTES_MAX);
    let thread = ask
        .bridge
        .thread(ask.caller, conversation, part, limit, bytes_max);
    Ok(Answer::ok(RawValue::from_string(thread.await?.json())?))
}

async fn hash(
    ask: Ask<'_>,
    arguments: InConversation<HashArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let hash = ask
        .bridge
        .log_hash(ask.caller, conversation, rest.from, rest.to);
    ok(&hash.await?)
}
