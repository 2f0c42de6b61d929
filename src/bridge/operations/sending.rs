//! A message as a request: over MQTT it is a PUBLISH.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Bridge, Caller, ConversationError, OperationError, created, ok};
use crate::{
    bridge::Accepted,
    domain::{
        ids::ConversationId,
        message::{Content, Sequence},
        request::Answer,
    },
};

/// What is answered to a message.
#[derive(Serialize, JsonSchema)]
pub struct Sent {
    seq: Sequence,
    /// It was sent before, and is stored under this sequence.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl Bridge {
    /// Sends a message as a request; with an idempotency key it is answered again.
    pub async fn send_once(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        content: Content,
        key: Option<(&str, &[u8])>,
    ) -> Answer {
        let Some((key, body)) = key else {
            return answer(self.post(caller, conversation, content).await);
        };
        let request = [b"send", &conversation.0.as_bytes()[..], body];
        let work = async move |bridge: Self, caller: Caller, _| {
            answer(bridge.post(&caller, conversation, content).await)
        };
        self.once("send", caller, key, &request, work).await
    }
}

fn answer(sent: Result<Accepted, ConversationError>) -> Answer {
    let answer = sent.map_err(OperationError::from).and_then(|accepted| {
        let sent = Sent {
            seq: accepted.sequence,
            duplicate: accepted.is_duplicate,
        };
        if accepted.is_duplicate {
            ok(&sent)
        } else {
            created(&sent)
        }
    });
    answer.unwrap_or_else(|error| error.answer("send"))
}
