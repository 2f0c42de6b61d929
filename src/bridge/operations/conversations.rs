//! Conversations: create one, look at it, read its log, change who takes part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Ask, InConversation, Operation, OperationError, created, ok, operation};
use crate::{
    bridge::conversations::{Creation, PageShown, PageWanted, Shown},
    domain::{
        ids::{ConversationId, Subject},
        message::Sequence,
        request::Answer,
    },
    store::conversations::{Kind, Role},
};

/// Entries in one answer, at most.
const HISTORY_ENTRIES_MAX: usize = 200;
/// Bytes of entries in one answer over MQTT, at most, unless the first has more: it waits in
/// memory for its device.
const HISTORY_BYTES_MAX: usize = 65_536;

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "conversation/create",
        Post,
        "/conversations",
        "Creates a conversation; its creator owns it.",
        create,
        CreateArguments,
        Created
    ),
    operation!(
        "conversation",
        Get,
        "/conversations/{conversation}",
        "What a conversation is, and where the caller stands in it.",
        show,
        InConversation,
        Shown
    ),
    operation!(
        "history",
        Get,
        "/conversations/{conversation}/messages",
        "A page of the log as it was written, after or before a sequence.",
        history,
        InConversation<PageWanted>,
        PageShown
    ),
    operation!(
        "participants/put",
        Put,
        "/conversations/{conversation}/participants/{user}",
        "Adds a participant; the answer names the entry of the log that says so, and is empty if nothing changed.",
        add_participant,
        InConversation<ParticipantArguments>,
        Changed
    ),
    operation!(
        "participants/remove",
        Delete,
        "/conversations/{conversation}/participants/{user}",
        "Removes a participant, or lets the caller leave; empty if nothing changed.",
        remove_participant,
        InConversation<UserArgument>,
        Changed
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CreateArguments {
    /// With or without the caller.
    participants: Vec<Subject>,
    #[schemars(length(min = 1, max = 256))]
    title: Option<String>,
    /// If it is not said: direct for two without a title, otherwise a group.
    kind: Option<Kind>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ParticipantArguments {
    user: Subject,
    role: Option<Role>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserArgument {
    user: Subject,
}

#[derive(Serialize, JsonSchema)]
struct Created {
    id: ConversationId,
}

#[derive(Serialize, JsonSchema)]
struct Changed {
    /// The entry of the log that says so.
    seq: Sequence,
}

async fn create(ask: Ask<'_>, arguments: CreateArguments) -> Result<Answer, OperationError> {
    let CreateArguments {
        participants,
        title,
        kind,
    } = arguments;
    let creation = Creation {
        participants,
        title,
        kind,
        id: ask.seed.map(ConversationId),
    };
    let id = ask.bridge.create_conversation(ask.caller, creation).await?;
    created(&Created { id })
}

async fn show(ask: Ask<'_>, arguments: InConversation) -> Result<Answer, OperationError> {
    let id = arguments.conversation;
    let (view, unread) = ask.bridge.conversation(ask.caller, id).await?;
    ok(&Shown::new(id, view, unread))
}

async fn history(
    ask: Ask<'_>,
    arguments: InConversation<PageWanted>,
) -> Result<Answer, OperationError> {
    let (range, limit) = arguments.rest.check(HISTORY_ENTRIES_MAX)?;
    let page = ask
        .bridge
        .page(ask.caller, arguments.conversation, range, limit);
    let mut page = page.await?;
    if ask.device.is_some() {
        page.shorten(range, HISTORY_BYTES_MAX);
    }
    Ok(Answer::ok(RawValue::from_string(page.json(range))?))
}

async fn add_participant(
    ask: Ask<'_>,
    arguments: InConversation<ParticipantArguments>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let change = ask
        .bridge
        .add_participant(ask.caller, conversation, rest.user, rest.role);
    changed(change.await?)
}

async fn remove_participant(
    ask: Ask<'_>,
    arguments: InConversation<UserArgument>,
) -> Result<Answer, OperationError> {
    let InConversation { conversation, rest } = arguments;
    let change = ask
        .bridge
        .remove_participant(ask.caller, conversation, rest.user);
    changed(change.await?)
}

fn changed(sequence: Option<Sequence>) -> Result<Answer, OperationError> {
    match sequence {
        Some(seq) => ok(&Changed { seq }),
        None => Ok(Answer::done()),
    }
}
