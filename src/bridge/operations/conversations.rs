//! Conversations: create one, look at it, read its log.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    ANSWER_BYTES_MAX, Ask, InConversation, Operation, OperationError,
    arguments::{NO_CONTROL, present},
    created, ok, operation,
};
use crate::{
    bridge::conversations::{Creation, PageShown, PageWanted, Shown},
    domain::{
        ids::{ConversationId, Subject},
        request::Answer,
    },
    store::conversations::{Kind, Role},
};

/// Entries in one answer, at most.
const HISTORY_ENTRIES_MAX: usize = 200;

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "conversation/create",
        Post,
        "/conversations",
        "Creates a conversation, which its creator owns. Of two users there is one direct conversation: whoever creates it again gets it (200 instead of 201).",
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
        "A page of the log as it was written: after or before a sequence, or around a place or a time.",
        history,
        InConversation<PageWanted>,
        PageShown
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CreateArguments {
    /// With or without the caller.
    participants: Vec<Subject>,
    #[schemars(length(min = 1, max = 256), regex(pattern = NO_CONTROL))]
    title: Option<String>,
    /// If it is not said: direct for two without a title, otherwise a group.
    kind: Option<Kind>,
    /// Of some of the participants of a group; others are members.
    #[serde(default)]
    roles: HashMap<Subject, Role>,
    /// How many entries before their own beginning newcomers may read; null is all of them, absent
    /// as the server is configured.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    history_depth: Option<Option<i64>>,
}

#[derive(Serialize, JsonSchema)]
struct Created {
    id: ConversationId,
    /// False if the two had their direct conversation already.
    created: bool,
}

async fn create(ask: Ask<'_>, arguments: CreateArguments) -> Result<Answer, OperationError> {
    let CreateArguments {
        participants,
        title,
        kind,
        roles,
        history_depth,
    } = arguments;
    let creation = Creation {
        participants,
        roles,
        title,
        kind,
        id: ask.seed.map(ConversationId),
        history_depth,
    };
    let made = ask.bridge.create_conversation(ask.caller, creation).await?;
    let shown = Created {
        id: made.id,
        created: made.is_new,
    };
    if made.is_new {
        created(&shown)
    } else {
        ok(&shown)
    }
}

async fn show(ask: Ask<'_>, arguments: InConversation) -> Result<Answer, OperationError> {
    let id = arguments.conversation;
    ok(&ask.bridge.conversation(ask.caller, id).await?)
}

async fn history(
    ask: Ask<'_>,
    arguments: InConversation<PageWanted>,
) -> Result<Answer, OperationError> {
    let (range, limit) = arguments.rest.check(HISTORY_ENTRIES_MAX)?;
    let bytes_max = ask.held.map_or(usize::MAX, |_| ANSWER_BYTES_MAX);
    let conversation = arguments.conversation;
    let page = ask
        .bridge
        .page(ask.caller, conversation, range, limit, bytes_max);
    Ok(Answer::ok(RawValue::from_string(page.await?.json())?))
}
