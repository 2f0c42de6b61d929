//! What a user wants to be woken for, and what became of it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Ask, InConversation, Nothing, Operation, OperationError, ok, operation};
use crate::{
    bridge::push_settings::{
        NotificationSettings, NotificationSettingsChange, PushReport, QuietTimes,
    },
    domain::{ids::Subject, message::Sequence, request::Answer},
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "notifications/get",
        Get,
        "/conversations/{conversation}/notifications",
        "Whether the conversation is muted for the caller.",
        show,
        InConversation,
        NotificationSettings
    ),
    operation!(
        "notifications/set",
        Put,
        "/conversations/{conversation}/notifications",
        "Mutes it or not: absent stays as it is, null is the default.",
        set,
        InConversation<NotificationSettingsChange>,
        NotificationSettings
    ),
    operation!(
        "pushes",
        Get,
        "/conversations/{conversation}/messages/{seq}/pushes",
        "Which devices a message woke, or why not.",
        explain,
        InConversation<PushesArguments>,
        PushReport
    ),
    operation!(
        "quiet-hours/get",
        Get,
        "/me/quiet-hours",
        "When it is quiet for the caller; null is never.",
        quiet_hours,
        Nothing,
        Option<QuietTimes>
    ),
    operation!(
        "quiet-hours/set",
        Put,
        "/me/quiet-hours",
        "Sets when it is quiet for the caller.",
        set_quiet_hours,
        QuietTimes,
        QuietTimes
    ),
    operation!(
        "quiet-hours/delete",
        Delete,
        "/me/quiet-hours",
        "It is never quiet for the caller.",
        remove_quiet_hours,
        Nothing
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PushesArguments {
    seq: Sequence,
    /// Whose devices; the caller's own if it is not said.
    user: Option<Subject>,
}

async fn show(ask: Ask<'_>, arguments: InConversation) -> Result<Answer, OperationError> {
    let settings = ask.bridge.notifications(ask.caller, arguments.conversation);
    ok(&settings.await?)
}

async fn set(
    ask: Ask<'_>,
    arguments: InConversation<NotificationSettingsChange>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let settings = ask.bridge.set_notifications(ask.caller, conversation, rest);
    ok(&settings.await?)
}

async fn explain(
    ask: Ask<'_>,
    arguments: InConversation<PushesArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let report = ask
        .bridge
        .explain_push(ask.caller, conversation, rest.seq, rest.user);
    ok(&report.await?)
}

async fn quiet_hours(ask: Ask<'_>, _: Nothing) -> Result<Answer, OperationError> {
    ok(&ask.bridge.quiet_hours(ask.caller).await?)
}

async fn set_quiet_hours(ask: Ask<'_>, times: QuietTimes) -> Result<Answer, OperationError> {
    let set = ask.bridge.set_quiet_hours(ask.caller, Some(times.clone()));
    set.await?;
    ok(&times)
}

async fn remove_quiet_hours(ask: Ask<'_>, _: Nothing) -> Result<Answer, OperationError> {
    ask.bridge.set_quiet_hours(ask.caller, None).await?;
    Ok(Answer::done())
}
