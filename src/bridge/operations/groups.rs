//! Who takes part in a conversation, with which rights, and what is decided for everybody.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Ask, InConversation, Operation, OperationError,
    arguments::{NO_CONTROL, page_limit, present},
    ok, operation,
};
use crate::{
    bridge::conversations::{PRESENT_MAX, PresentShown, Roster, SettingsChange, Transfer},
    domain::{change::Until, ids::Subject, message::Sequence, request::Answer},
    store::conversations::Role,
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "conversation/change",
        Patch,
        "/conversations/{conversation}",
        "Renames or archives it, or changes its settings: absent stays as it is, null clears what may be empty. Empty if nothing changed.",
        change,
        InConversation<ChangeArguments>,
        Changed
    ),
    operation!(
        "participants",
        Get,
        "/conversations/{conversation}/participants",
        "A page of those who take part.",
        list,
        InConversation<ListArguments>,
        Roster
    ),
    operation!(
        "participants/add",
        Post,
        "/conversations/{conversation}/participants",
        "Adds up to 1000 users at one entry of the log; who takes part already stays as they are. Empty if nothing changed.",
        add,
        InConversation<AddArguments>,
        Changed
    ),
    operation!(
        "participant",
        Get,
        "/conversations/{conversation}/participants/{user}",
        "One of those who take part.",
        show,
        InConversation<UserArgument>,
        PresentShown
    ),
    operation!(
        "participants/put",
        Put,
        "/conversations/{conversation}/participants/{user}",
        "Adds a participant, or gives one another role; the answer names the entry of the log that says so, and is empty if nothing changed.",
        put,
        InConversation<PutArguments>,
        Changed
    ),
    operation!(
        "participants/remove",
        Delete,
        "/conversations/{conversation}/participants/{user}",
        "Removes a participant, or lets the caller leave; empty if nothing changed.",
        remove,
        InConversation<UserArgument>,
        Changed
    ),
    operation!(
        "participants/silence",
        Put,
        "/conversations/{conversation}/participants/{user}/silence",
        "Takes the word from a participant until then, or gives it back with null; empty if nothing changed.",
        silence,
        InConversation<SilenceArguments>,
        Changed
    ),
    operation!(
        "transfer",
        Post,
        "/conversations/{conversation}/transfer",
        "Hands the part of some over to others, at one entry of the log: the last one for those who go, the first one delivered to those who come. Empty if nothing changed.",
        transfer,
        InConversation<TransferArguments>,
        Changed
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangeArguments {
    #[serde(default, deserialize_with = "present")]
    #[schemars(length(min = 1, max = 256), regex(pattern = NO_CONTROL))]
    title: Option<Option<String>>,
    /// Closed for everybody: it is read, and nothing more is written.
    archived: Option<bool>,
    /// Whether participants are told how far the others have got.
    receipts: Option<bool>,
    /// How many entries before their own beginning newcomers may read; null is all of them.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    history_depth: Option<Option<i64>>,
    /// Contents older than this are erased; null keeps them.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 1, max = 3_155_760_000_i64))]
    retention_seconds: Option<Option<i64>>,
}

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
struct AddArguments {
    #[schemars(length(min = 1, max = 1000))]
    users: Vec<Subject>,
    /// Of all of them; members if it is not said.
    role: Option<Role>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PutArguments {
    user: Subject,
    /// A member if it is not said; who takes part keeps their role then.
    role: Option<Role>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserArgument {
    user: Subject,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["user", "until"]))]
struct SilenceArguments {
    user: Subject,
    /// Null gives it back.
    #[serde(deserialize_with = "Option::deserialize")]
    until: Option<Until>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TransferArguments {
    /// Who go; the caller if it is not said.
    #[schemars(length(min = 1, max = 100))]
    from: Option<Vec<Subject>>,
    /// Who come, with the highest role of those who go.
    #[schemars(length(min = 1, max = 100))]
    to: Vec<Subject>,
    #[schemars(length(max = 1024))]
    note: Option<String>,
    /// How many entries before it those who come may read; all that those who go could if it is
    /// not said.
    history: Option<History>,
}

/// A number of entries, or `all`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum History {
    Entries(#[schemars(range(min = 0, max = 1_000_000_000))] i64),
    Word(AllWord),
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AllWord {
    All,
}

#[derive(Serialize, JsonSchema)]
struct Changed {
    /// The entry of the log that says so.
    seq: Sequence,
}

async fn change(
    ask: Ask<'_>,
    arguments: InConversation<ChangeArguments>,
) -> Result<Answer, OperationError> {
    let ChangeArguments {
        title,
        archived,
        receipts,
        history_depth,
        retention_seconds,
    } = arguments.rest;
    let change = SettingsChange {
        title,
        archived,
        receipts,
        history_depth,
        retention_seconds,
    };
    let conversation = arguments.conversation;
    let change = ask
        .bridge
        .change_settings(ask.caller, conversation, change, ask.condition);
    changed(change.await?)
}

async fn list(
    ask: Ask<'_>,
    arguments: InConversation<ListArguments>,
) -> Result<Answer, OperationError> {
    let ListArguments { after, limit } = arguments.rest;
    let limit = page_limit(limit, PRESENT_MAX)?;
    let page = ask
        .bridge
        .participants(ask.caller, arguments.conversation, after.as_ref(), limit);
    ok(&page.await?)
}

async fn add(
    ask: Ask<'_>,
    InConversation { conversation, rest }: InConversation<AddArguments>,
) -> Result<Answer, OperationError> {
    let AddArguments { users, role } = rest;
    let (bridge, caller) = (ask.bridge, ask.caller);
    let change = bridge.add_participants(caller, conversation, users, role);
    changed(change.await?)
}

async fn show(
    ask: Ask<'_>,
    InConversation { conversation, rest }: InConversation<UserArgument>,
) -> Result<Answer, OperationError> {
    let present = ask.bridge.participant(ask.caller, conversation, &rest.user);
    ok(&present.await?)
}

async fn put(
    ask: Ask<'_>,
    InConversation { conversation, rest }: InConversation<PutArguments>,
) -> Result<Answer, OperationError> {
    let PutArguments { user, role } = rest;
    let (bridge, caller) = (ask.bridge, ask.caller);
    let change = bridge.add_participant(caller, conversation, user, role, ask.condition);
    changed(change.await?)
}

async fn remove(
    ask: Ask<'_>,
    InConversation { conversation, rest }: InConversation<UserArgument>,
) -> Result<Answer, OperationError> {
    let (bridge, caller) = (ask.bridge, ask.caller);
    let change = bridge.remove_participant(caller, conversation, rest.user, ask.condition);
    changed(change.await?)
}

async fn silence(
    ask: Ask<'_>,
    InConversation { conversation, rest }: InConversation<SilenceArguments>,
) -> Result<Answer, OperationError> {
    let SilenceArguments { user, until } = rest;
    let (bridge, caller) = (ask.bridge, ask.caller);
    let change = bridge.silence_participant(caller, conversation, user, until);
    changed(change.await?)
}

async fn transfer(
    ask: Ask<'_>,
    arguments: InConversation<TransferArguments>,
) -> Result<Answer, OperationError> {
    let TransferArguments {
        from,
        to,
        note,
        history,
    } = arguments.rest;
    let transfer = Transfer {
        from,
        to,
        note,
        history_depth: match history {
            Some(History::Entries(entries)) => Some(entries),
            Some(History::Word(AllWord::All)) | None => None,
        },
    };
    let conversation = arguments.conversation;
    let change = ask.bridge.transfer(ask.caller, conversation, transfer);
    changed(change.await?)
}

fn changed(sequence: Option<Sequence>) -> Result<Answer, OperationError> {
    match sequence {
        Some(seq) => ok(&Changed { seq }),
        None => Ok(Answer::done()),
    }
}
