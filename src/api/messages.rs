//! `POST /v1/conversations/{cid}/messages`: send a message.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, JsonBytes},
};
use crate::domain::{
    ids::ConversationId,
    message::{Content, Sequence},
};

#[derive(Serialize)]
pub(super) struct Sent {
    seq: Sequence,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// `POST /v1/conversations/{cid}/messages`
pub(super) async fn send(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<Sent>), ApiError> {
    let content = Content::from_json(&body, state.message_bytes_max)?;
    let accepted = state.bridge.post(&caller, conversation, content).await?;
    let status = if accepted.is_duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((
        status,
        Json(Sent {
            seq: accepted.sequence,
            duplicate: accepted.is_duplicate,
        }),
    ))
}
