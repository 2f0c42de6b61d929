//! What devices ask for over MQTT: a table of operations, each the same as a request over REST.
//!
//! ```text
//!   q/conversation   {"conversation"}                              GET /v1/conversations/{cid}
//!   q/history        {"conversation", "after" | "before", "limit"} GET …/{cid}/messages
//! ```

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::{
    Bridge,
    conversations::{Caller, ConversationError, PageWanted, Shown},
};
use crate::domain::{
    ids::{ConversationId, DeviceId},
    problem::{Problem, ProblemKind},
    request::Answer,
};

/// Entries in one answer, at most.
const HISTORY_ENTRIES_MAX: usize = 200;
/// Bytes of entries in one answer, at most, unless the first has more: it waits in memory
/// for its device.
const HISTORY_BYTES_MAX: usize = 65_536;

/// Who asks, from where, and with what.
struct Ask<'a> {
    bridge: &'a Bridge,
    caller: &'a Caller,
    #[expect(
        dead_code,
        reason = "operations on the push token of the device need it"
    )]
    device: DeviceId,
    arguments: Map<String, Value>,
}

type Run = for<'a> fn(Ask<'a>) -> BoxFuture<'a, Result<Answer, RequestError>>;

/// Every operation, in one list.
const OPERATIONS: &[(&str, Run)] = &[
    ("conversation", |ask| Box::pin(conversation(ask))),
    ("history", |ask| Box::pin(history(ask))),
];

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("unknown operation; known are {}", known())]
    Unknown,
    #[error("the arguments: {0}")]
    Arguments(#[from] serde_json::Error),
    #[error(transparent)]
    Conversation(#[from] ConversationError),
}

fn known() -> String {
    let names: Vec<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

impl Bridge {
    /// Does what a device asks for. What is refused is answered with a problem document.
    pub async fn request(
        &self,
        caller: &Caller,
        device: DeviceId,
        operation: &str,
        arguments: Map<String, Value>,
    ) -> Answer {
        let run = OPERATIONS.iter().find(|(name, _)| *name == operation);
        let answer = match run {
            None => Err(RequestError::Unknown),
            Some((_, run)) => {
                let bridge = self;
                run(Ask {
                    bridge,
                    caller,
                    device,
                    arguments,
                })
                .await
            }
        };
        answer.unwrap_or_else(|error| error.answer())
    }
}

impl Ask<'_> {
    /// An argument that must be there; the others remain.
    fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<T, serde_json::Error> {
        let value = self.arguments.remove(name);
        let value = value.ok_or_else(|| serde::de::Error::missing_field(name))?;
        serde_json::from_value(value)
    }

    /// The arguments that remain.
    fn rest<T: DeserializeOwned>(&mut self) -> Result<T, serde_json::Error> {
        serde_json::from_value(std::mem::take(&mut self.arguments).into())
    }
}

/// No argument.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn conversation(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    let Nothing {} = ask.rest()?;
    let (view, unread) = ask.bridge.conversation(ask.caller, id).await?;
    Ok(Answer::ok(to_raw_value(&Shown::new(id, view, unread))?))
}

async fn history(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    let wanted: PageWanted = ask.rest()?;
    let (range, limit) = wanted.check(HISTORY_ENTRIES_MAX)?;
    let mut page = ask.bridge.page(ask.caller, id, range, limit).await?;
    page.shorten(range, HISTORY_BYTES_MAX);
    Ok(Answer::ok(RawValue::from_string(page.json(range))?))
}

impl RequestError {
    fn answer(&self) -> Answer {
        Problem::new(self.kind(), self.detail()).into()
    }

    fn kind(&self) -> ProblemKind {
        match self {
            Self::Unknown => ProblemKind::NotFound,
            Self::Arguments(_) => ProblemKind::Invalid,
            Self::Conversation(error) => error.kind(),
        }
    }

    /// What to do; the causes are for the log.
    fn detail(&self) -> String {
        match (self.kind(), self) {
            (ProblemKind::Unavailable, _) => {
                tracing::warn!(error = self as &dyn std::error::Error, "the store is away");
                "the server cannot store or read now; send the same request again".to_owned()
            }
            (ProblemKind::Internal, _) => {
                tracing::error!(error = self as &dyn std::error::Error, "a request failed");
                "this is a fault of the server; its log says more".to_owned()
            }
            _ => self.to_string(),
        }
    }
}
