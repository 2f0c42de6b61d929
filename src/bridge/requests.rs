//! What devices ask for over MQTT: a table of operations, each the same as a request over REST.
//!
//! ```text
//!   q/conversation        {"conversation"}                  GET /v1/conversations/{cid}
//!   q/history             {"conversation", "after"?, "before"?, "limit"?}
//!                                                           GET …/{cid}/messages
//!   q/pushes              {"conversation", "seq", "user"?}  GET …/messages/{seq}/pushes
//!   q/notifications/get   {"conversation"}                  GET …/{cid}/notifications
//!   q/notifications/set   {"conversation", "muted_until"?, "mentions"?}
//!                                                           PUT …/{cid}/notifications
//!   q/quiet-hours/get     {}                                GET /v1/me/quiet-hours
//!   q/quiet-hours/set     {"from", "until", "zone"}         PUT /v1/me/quiet-hours
//!   q/quiet-hours/delete  {}                                PUT /v1/me/quiet-hours, null
//!   q/devices             {}                                GET /v1/devices
//!   q/push/token/get      {}                                GET /v1/devices/{this}/push-token
//!   q/push/token/set      {"provider", "app", "token", …}   PUT /v1/devices/{this}/push-token
//!   q/push/token/delete   {}                                DELETE /v1/devices/{this}/push-token
//! ```
//!
//! A page of the log is cut where it gets too long for an answer.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::{
    Bridge,
    conversations::{Caller, ConversationError, PageWanted, Shown},
    push_settings::{NotificationSettingsChange, PushSettingsError, QuietTimes, Registration},
};
use crate::{
    domain::{
        ids::{ConversationId, DeviceId, Subject},
        message::Sequence,
        problem::{Problem, ProblemKind},
        request::Answer,
    },
    store::sessions,
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
    device: DeviceId,
    arguments: Map<String, Value>,
}

type Run = for<'a> fn(Ask<'a>) -> BoxFuture<'a, Result<Answer, RequestError>>;

/// Every operation, in one list.
const OPERATIONS: &[(&str, Run)] = &[
    ("conversation", |ask| Box::pin(conversation(ask))),
    ("history", |ask| Box::pin(history(ask))),
    ("pushes", |ask| Box::pin(pushes(ask))),
    ("notifications/get", |ask| Box::pin(notifications(ask))),
    ("notifications/set", |ask| Box::pin(set_notifications(ask))),
    ("quiet-hours/get", |ask| Box::pin(quiet_hours(ask))),
    ("quiet-hours/set", |ask| Box::pin(set_quiet_hours(ask))),
    ("quiet-hours/delete", |ask| {
        Box::pin(remove_quiet_hours(ask))
    }),
    ("devices", |ask| Box::pin(devices(ask))),
    ("push/token/get", |ask| Box::pin(token(ask))),
    ("push/token/set", |ask| Box::pin(register_token(ask))),
    ("push/token/delete", |ask| Box::pin(remove_token(ask))),
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
    #[error(transparent)]
    PushSettings(#[from] PushSettingsError),
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

    fn take_nothing_more(&mut self) -> Result<(), serde_json::Error> {
        let Nothing {} = self.rest()?;
        Ok(())
    }

    /// The name of the device that asks.
    async fn client_id(&self) -> Result<String, PushSettingsError> {
        let mut conn = self.bridge.pool().acquire().await?;
        let client_id = sessions::client_id(&mut conn, self.device).await?;
        client_id.ok_or(PushSettingsError::NoToken)
    }

    /// The arguments that remain.
    fn rest<T: DeserializeOwned>(&mut self) -> Result<T, serde_json::Error> {
        serde_json::from_value(std::mem::take(&mut self.arguments).into())
    }
}

/// No argument.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Whose devices; the caller's own if it is not said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfUser {
    user: Option<Subject>,
}

async fn conversation(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    ask.take_nothing_more()?;
    let (view, unread) = ask.bridge.conversation(ask.caller, id).await?;
    ok(&Shown::new(id, view, unread))
}

async fn history(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    let wanted: PageWanted = ask.rest()?;
    let (range, limit) = wanted.check(HISTORY_ENTRIES_MAX)?;
    let mut page = ask.bridge.page(ask.caller, id, range, limit).await?;
    page.shorten(range, HISTORY_BYTES_MAX);
    Ok(Answer::ok(RawValue::from_string(page.json(range))?))
}

async fn pushes(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    let sequence: Sequence = ask.take("seq")?;
    let OfUser { user } = ask.rest()?;
    let report = ask.bridge.explain_push(ask.caller, id, sequence, user);
    ok(&report.await?)
}

async fn notifications(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    ask.take_nothing_more()?;
    ok(&ask.bridge.notifications(ask.caller, id).await?)
}

async fn set_notifications(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let id: ConversationId = ask.take("conversation")?;
    let change: NotificationSettingsChange = ask.rest()?;
    let now = ask.bridge.set_notifications(ask.caller, id, change).await?;
    ok(&now)
}

async fn quiet_hours(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    ask.take_nothing_more()?;
    ok(&ask.bridge.quiet_hours(ask.caller).await?)
}

async fn set_quiet_hours(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let times: QuietTimes = ask.rest()?;
    let set = ask.bridge.set_quiet_hours(ask.caller, Some(times.clone()));
    set.await?;
    ok(&times)
}

async fn remove_quiet_hours(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    ask.take_nothing_more()?;
    ask.bridge.set_quiet_hours(ask.caller, None).await?;
    Ok(Answer::done())
}

async fn devices(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    ask.take_nothing_more()?;
    let devices = ask.bridge.devices(ask.caller).await?;
    ok(&serde_json::json!({ "devices": devices }))
}

async fn token(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    ask.take_nothing_more()?;
    let client_id = ask.client_id().await?;
    ok(&ask.bridge.token(ask.caller, &client_id).await?)
}

async fn register_token(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    let registration: Registration = ask.rest()?;
    let client_id = ask.client_id().await?;
    let register = ask
        .bridge
        .register_token(ask.caller, &client_id, registration);
    ok(&register.await?)
}

async fn remove_token(mut ask: Ask<'_>) -> Result<Answer, RequestError> {
    ask.take_nothing_more()?;
    let client_id = ask.client_id().await?;
    ask.bridge.remove_token(ask.caller, &client_id).await?;
    Ok(Answer::done())
}

fn ok(body: &impl Serialize) -> Result<Answer, RequestError> {
    Ok(Answer::ok(to_raw_value(body)?))
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
            Self::PushSettings(error) => error.kind(),
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
