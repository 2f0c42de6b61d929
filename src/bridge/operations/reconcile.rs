//! Reconciling what a client shows with what there is.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ANSWER_BYTES_MAX, Ask, Operation, OperationError, ok, operation};
use crate::{
    bridge::inbox::{Held, Reconciled},
    domain::request::Answer,
};

pub(super) const OPERATIONS: &[Operation] = &[operation!(
    "reconcile",
    Post,
    "/reconcile",
    "Takes what a client shows, and answers what of it is different.",
    reconcile,
    ReconcileArguments,
    Reconciled
)];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReconcileArguments {
    #[serde(default)]
    #[schemars(length(max = 500))]
    conversations: Vec<Held>,
    /// The `as_of` of an earlier answer: tells also of conversations that are not named and
    /// changed since.
    #[schemars(range(min = 0, max = 253_402_300_799_999_i64))]
    since: Option<i64>,
}

async fn reconcile(ask: Ask<'_>, arguments: ReconcileArguments) -> Result<Answer, OperationError> {
    let ReconcileArguments {
        conversations,
        since,
    } = arguments;
    let bytes_max = ask.held.map_or(usize::MAX, |_| ANSWER_BYTES_MAX);
    let differences = ask
        .bridge
        .reconcile(ask.caller, &conversations, since, bytes_max);
    ok(&differences.await?)
}
