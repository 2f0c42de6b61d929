//! A message as a request: over MQTT it is a PUBLISH.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Bridge, Caller, OperationError, created, ok};
use crate::domain::{
    ids::ConversationId,
    message::{Content, Sequence},
    request::Answer,
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
        let once = match key {
            None => None,
            Some((key, body)) => {
                let request = [b"send", &conversation.0.as_bytes()[..], body];
                match self.begin_once(caller, key, &request).await {
                    Ok(Ok(once)) => Some(once),
                    Ok(Err(answer)) => return answer,
                    Err(error) => return OperationError::from(error).answer("send"),
                }
            }
        };
        let sent = self.post(caller, conversation, content).await;
        let answer = sent
            .map_err(OperationError::from)
            .and_then(|accepted| {
                let sent = Sent {
                    seq: accepted.sequence,
                    duplicate: accepted.is_duplicate,
                };
                if accepted.is_duplicate {
                    ok(&sent)
                } else {
                    created(&sent)
                }
            })
            .unwrap_or_else(|error| error.answer("send"));
        if let Some(once) = once {
            self.end_once(once, &answer).await;
        }
        answer
    }
}
