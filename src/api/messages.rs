//! `/v1/conversations/{cid}/messages`: send a message, read the log.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, InQuery, JsonBytes},
};
use crate::{
    bridge::conversations::PageWanted,
    domain::{
        ids::ConversationId,
        message::{Content, Sequence},
    },
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

/// `GET /v1/conversations/{cid}/messages`
pub(super) async fn page(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    InQuery(wanted): InQuery<PageWanted>,
) -> Result<Response, ApiError> {
    let entries_max = usize::try_from(state.http.page_entries_max).unwrap_or(usize::MAX);
    let (range, limit) = wanted.check(entries_max)?;
    let page = state
        .bridge
        .page(&caller, conversation, range, limit)
        .await?;
    let json = page.json(range);
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}
