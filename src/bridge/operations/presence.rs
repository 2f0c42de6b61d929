//! Who is there, and who types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ask, InConversation, Operation, OperationError, ok, operation};
use crate::{
    bridge::presence::PresenceShown,
    domain::{
        ids::Subject, presence::StateReport, problem::ProblemKind, push::Activity, request::Answer,
    },
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "presence",
        Get,
        "/presence",
        "Whether users are there with whom the caller shares a conversation.",
        presence,
        UsersArguments,
        Presences
    ),
    operation!(
        "watch",
        Put,
        "/presence/watch",
        "The same; from now on changes arrive on me/presence, in place of what was watched before. For connected devices only.",
        watch,
        UsersArguments,
        Presences
    ),
    operation!(
        "state",
        Put,
        "/me/state",
        "Says whether somebody looks at the device that asks; over REST, at the caller's open streams of events. As on me/state.",
        state,
        StateArguments
    ),
    operation!(
        "typing",
        Post,
        "/conversations/{conversation}/typing",
        "Tells the other participants that the caller types, or does not any more.",
        typing,
        InConversation<TypingArguments>
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UsersArguments {
    /// Nobody ends a watch.
    users: Vec<Subject>,
}

#[derive(Serialize, JsonSchema)]
struct Presences {
    users: Vec<PresenceShown>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StateArguments {
    state: Activity,
    /// Whether the caller is shown as offline while the connection or the streams last; as it
    /// was if it is not said.
    invisible: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TypingArguments {
    /// True if it is not said.
    typing: Option<bool>,
}

async fn presence(ask: Ask<'_>, arguments: UsersArguments) -> Result<Answer, OperationError> {
    let users = ask.bridge.look_at(ask.caller, arguments.users).await?;
    ok(&Presences { users })
}

async fn watch(ask: Ask<'_>, arguments: UsersArguments) -> Result<Answer, OperationError> {
    let Some(device) = ask.device() else {
        let why =
            "a watch lasts as long as a connection: ask q/watch over MQTT, or GET /v1/presence";
        return Err(OperationError::invalid(why));
    };
    let users = ask
        .bridge
        .watch(ask.caller, device, arguments.users)
        .await?;
    ok(&Presences { users })
}

async fn state(ask: Ask<'_>, arguments: StateArguments) -> Result<Answer, OperationError> {
    let report = StateReport {
        activity: arguments.state,
        is_invisible: arguments.invisible,
    };
    match ask.held {
        Some(held) => ask.bridge.say_state(held, report),
        None if ask.bridge.say_streams_state(ask.caller.user, report) => {}
        None => {
            let why = "a state lasts as long as a stream: open GET /v1/events first";
            return Err(OperationError::new(ProblemKind::Conflict, why));
        }
    }
    Ok(Answer::done())
}

async fn typing(
    ask: Ask<'_>,
    arguments: InConversation<TypingArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let is_typing = rest.typing.unwrap_or(true);
    ask.bridge
        .say_typing(ask.caller, conversation, is_typing)
        .await?;
    Ok(Answer::done())
}
