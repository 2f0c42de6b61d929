//! What users ask for: one table of operations, the same over REST and over MQTT.
//!
//! ```text
//!   q/{name}              {arguments}          over MQTT; answered on me/device or the Response Topic
//!   METHOD /v1{path}      arguments in path, query and body           over REST
//! ```
//!
//! An operation is written once: its arguments and its answer are types, from which both
//! edges read and write, and from which the OpenAPI document is made. Sending a message is not in
//! the table: over MQTT it is a PUBLISH to `c/{conversation}/send`.

mod arguments;
mod attachments;
mod blocks;
mod conversations;
mod devices;
mod groups;
mod inbox;
mod notifications;
mod presence;
mod receipts;
mod reconcile;
mod schemas;
mod sending;
mod settings;
#[cfg(test)]
mod tests;
mod thread;

use futures_util::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};
use uuid::Uuid;

pub use arguments::{InConversation, Nothing, OfDevice};
pub use sending::Sent;

use super::{
    Bridge,
    condition::{Condition, NotMet},
    conversations::{Caller, ConversationError},
    push_settings::PushSettingsError,
    rates::TooFast,
    sessions::Held,
};
use crate::{
    domain::{
        ids::DeviceId,
        problem::{Problem, ProblemKind},
        request::Answer,
    },
    store::StoreError,
};

/// The argument of requests over MQTT that stands for the header of REST; of those that are
/// POST there.
const IDEMPOTENCY_KEY: &str = "idempotency_key";
/// Bytes of what is listed in one answer over MQTT, at most, unless the first of it has more: it
/// waits in memory for its device.
const ANSWER_BYTES_MAX: usize = 65_536;

/// Up to here each whole number has a float of its own: 2^53.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Every operation, file by file.
const TABLES: &[&[Operation]] = &[
    conversations::OPERATIONS,
    attachments::OPERATIONS,
    groups::OPERATIONS,
    blocks::OPERATIONS,
    inbox::OPERATIONS,
    thread::OPERATIONS,
    reconcile::OPERATIONS,
    receipts::OPERATIONS,
    notifications::OPERATIONS,
    devices::OPERATIONS,
    presence::OPERATIONS,
    settings::OPERATIONS,
];

/// How an operation is asked for over REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// One thing that can be asked for.
pub struct Operation {
    /// Of `q/{name}`.
    pub name: &'static str,
    pub method: Method,
    /// Behind `/v1`; `{x}` is the argument of that name.
    pub path: &'static str,
    pub summary: &'static str,
    /// What it takes, as the JSON Schema of an object.
    pub arguments: fn(&mut SchemaGenerator) -> Schema,
    /// What it answers; none if the status says it all.
    pub answer: Option<fn(&mut SchemaGenerator) -> Schema>,
    run: Run,
}

type Run = for<'a> fn(Ask<'a>, Map<String, Value>) -> BoxFuture<'a, Result<Answer, OperationError>>;

/// Who asks, and from where.
#[derive(Clone, Copy)]
struct Ask<'a> {
    bridge: &'a Bridge,
    caller: &'a Caller,
    /// The session of the device that asks; none over REST.
    held: Option<Held>,
    /// If the request has an idempotency key: the same whenever it is done again. What must
    /// not be made twice takes its id from it.
    seed: Option<Uuid>,
    /// For what others change as well: judged again where nothing changes any more.
    condition: Option<&'a Condition>,
}

/// A row of the table: name, method, path, summary, function, arguments, answer.
macro_rules! operation {
    ($name:literal, $method:ident, $path:literal, $summary:literal, $run:path, $arguments:ty) => {
        crate::bridge::operations::operation!(
            @ $name, $method, $path, $summary, $run, $arguments, None
        )
    };
    ($name:literal, $method:ident, $path:literal, $summary:literal, $run:path, $arguments:ty, $answer:ty) => {
        crate::bridge::operations::operation!(
            @ $name, $method, $path, $summary, $run, $arguments,
            Some(|schemas| schemas.subschema_for::<$answer>())
        )
    };
    (@ $name:literal, $method:ident, $path:literal, $summary:literal, $run:path, $arguments:ty, $answer:expr) => {
        crate::bridge::operations::Operation {
            name: $name,
            method: crate::bridge::operations::Method::$method,
            path: $path,
            summary: $summary,
            arguments: <$arguments as schemars::JsonSchema>::json_schema,
            answer: $answer,
            run: |ask, arguments| {
                Box::pin(async move {
                    let arguments = crate::bridge::operations::read::<$arguments>(arguments)?;
                    $run(ask, arguments).await
                })
            },
        }
    };
}
use operation;

/// Every operation there is.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    TABLES.iter().copied().flatten()
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct OperationError {
    kind: ProblemKind,
    detail: String,
    #[source]
    source: Option<StoreError>,
}

impl OperationError {
    /// `detail` says what to do.
    fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (detail, source) = (detail.into(), None);
        Self {
            kind,
            detail,
            source,
        }
    }

    fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Invalid, detail)
    }
}

impl From<ConversationError> for OperationError {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::Store(error) => error.into(),
            refusal => Self::new(refusal.kind(), refusal.to_string()),
        }
    }
}

impl From<PushSettingsError> for OperationError {
    fn from(error: PushSettingsError) -> Self {
        match error {
            PushSettingsError::Store(error) => error.into(),
            refusal => Self::new(refusal.kind(), refusal.to_string()),
        }
    }
}

/// What to do is in the detail; the cause is for the log.
impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        if let StoreError::SignedOut = error {
            return Self::new(ProblemKind::Forbidden, error.to_string());
        }
        let (kind, detail) = if error.is_transient() {
            let detail = "the server cannot store or read now; send the same request again";
            (ProblemKind::Unavailable, detail)
        } else {
            let detail = "this is a fault of the server; its log says more";
            (ProblemKind::Internal, detail)
        };
        Self {
            kind,
            detail: detail.to_owned(),
            source: Some(error),
        }
    }
}

impl From<sqlx::Error> for OperationError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<serde_json::Error> for OperationError {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid(format!("the arguments: {error}"))
    }
}

impl Bridge {
    /// Does what a device asks for on `q/{name}`. What is refused is answered with a problem document.
    pub async fn request(
        &self,
        caller: &Caller,
        held: Held,
        name: &str,
        mut arguments: Map<String, Value>,
    ) -> Answer {
        if let Err(too_fast) = self.rates().request(caller) {
            return too_fast.into();
        }
        let Some(operation) = all().find(|operation| operation.name == name) else {
            return unknown();
        };
        let key = match operation.method {
            Method::Post => arguments.remove(IDEMPOTENCY_KEY),
            _ => None,
        };
        let key = match key {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) => Some(key),
            Some(_) => {
                let detail = format!("`{IDEMPOTENCY_KEY}` is a string");
                return OperationError::invalid(detail).answer(name);
            }
        };
        self.perform_once(operation, caller, Some(held), key.as_deref(), arguments)
            .await
    }

    /// Does an operation for a user, or for one of the user's devices; with an idempotency
    /// key it is done once and answered again.
    pub async fn perform_once(
        &self,
        operation: &'static Operation,
        caller: &Caller,
        held: Option<Held>,
        key: Option<&str>,
        arguments: Map<String, Value>,
    ) -> Answer {
        let Some(key) = key else {
            return self.perform(operation, caller, held, arguments).await;
        };
        let Ok(text) = serde_json::to_vec(&arguments) else {
            return OperationError::invalid("the arguments are no JSON").answer(operation.name);
        };
        let request = [operation.name.as_bytes(), &text];
        let work = async move |bridge: Self, caller: Caller, seed| {
            let _turn = bridge.turns().together(caller.user).await;
            let ask = Ask {
                seed: Some(seed),
                ..Ask::new(&bridge, &caller, held)
            };
            operation.run(ask, arguments).await
        };
        self.once(operation.name, caller, key, &request, work).await
    }

    /// Does an operation for a user, or for one of the user's devices.
    pub async fn perform(
        &self,
        operation: &Operation,
        caller: &Caller,
        held: Option<Held>,
        arguments: Map<String, Value>,
    ) -> Answer {
        let _turn = match operation.method {
            Method::Get => None,
            _ => Some(self.turns().together(caller.user).await),
        };
        operation.run(Ask::new(self, caller, held), arguments).await
    }

    /// Does an operation for a user if the condition holds for what the caller is shown of
    /// what it changes: the answer to GET of the same path.
    pub async fn perform_if(
        &self,
        condition: &Condition,
        operation: &Operation,
        caller: &Caller,
        arguments: Map<String, Value>,
    ) -> Answer {
        let _turn = self.turns().alone(caller.user).await;
        let ask = Ask::new(self, caller, None);
        let shown = match operation.shown_by() {
            None => None,
            Some(get) => match get.run(ask, get.of_path(&arguments)).await {
                answer if answer.status >= 500 => return answer,
                answer => answer.body.filter(|_| answer.status == 200),
            },
        };
        if let Err(not_met) = condition.check(shown.as_deref().map(RawValue::get)) {
            return OperationError::from(not_met).answer(operation.name);
        }
        let condition = Some(condition);
        operation.run(Ask { condition, ..ask }, arguments).await
    }
}

impl Operation {
    async fn run(&self, ask: Ask<'_>, arguments: Map<String, Value>) -> Answer {
        let answer = (self.run)(ask, arguments).await;
        answer.unwrap_or_else(|error| error.answer(self.name))
    }

    /// The operation that shows what this one changes: GET of the same path.
    fn shown_by(&self) -> Option<&'static Self> {
        all().find(|shown| shown.method == Method::Get && shown.path == self.path)
    }

    /// Of some arguments, those that stand in the path.
    fn of_path(&self, arguments: &Map<String, Value>) -> Map<String, Value> {
        let members = arguments.iter().filter(|(name, _)| {
            let part = format!("{{{name}}}");
            self.path.split('/').any(|stands| stands == part)
        });
        members
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

impl<'a> Ask<'a> {
    fn new(bridge: &'a Bridge, caller: &'a Caller, held: Option<Held>) -> Self {
        Self {
            bridge,
            caller,
            held,
            seed: None,
            condition: None,
        }
    }

    fn device(&self) -> Option<DeviceId> {
        self.held.map(|held| held.device)
    }
}

impl From<NotMet> for OperationError {
    fn from(not_met: NotMet) -> Self {
        Self::new(ProblemKind::PreconditionFailed, not_met.to_string())
    }
}

impl From<TooFast> for Answer {
    fn from(too_fast: TooFast) -> Self {
        Problem::new(ProblemKind::TooMany, too_fast.to_string())
            .retry_after(too_fast.seconds())
            .into()
    }
}

impl OperationError {
    pub(super) fn answer(self, operation: &str) -> Answer {
        match (&self.source, self.kind) {
            (Some(error), ProblemKind::Unavailable) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(operation, error, "the store is away");
            }
            (Some(error), _) => {
                let error = error as &dyn std::error::Error;
                tracing::error!(operation, error, "a request failed");
            }
            (None, _) => tracing::debug!(operation, reason = %self, "a request was refused"),
        }
        Problem::new(self.kind, self.detail).into()
    }
}

fn unknown() -> Answer {
    let names: Vec<_> = all().map(|operation| operation.name).collect();
    let detail = format!("unknown operation; known are {}", names.join(", "));
    Problem::new(ProblemKind::NotFound, detail).into()
}

fn read<A: DeserializeOwned>(arguments: Map<String, Value>) -> Result<A, serde_json::Error> {
    let mut arguments = Value::from(arguments);
    whole_numbers(&mut arguments);
    serde_json::from_value(arguments)
}

/// JSON has one kind of numbers, and its schemas count 3.0 among the integers.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole numbers below this bound are exact in both"
)]
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() <= WHOLE_MAX {
                *value = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn ok<T: Serialize + JsonSchema>(body: &T) -> Result<Answer, OperationError> {
    Ok(Answer::ok(to_raw_value(body)?))
}

/// Status 201: there is something new.
fn created<T: Serialize + JsonSchema>(body: &T) -> Result<Answer, OperationError> {
    let mut answer = ok(body)?;
    answer.status = 201;
    Ok(answer)
}
