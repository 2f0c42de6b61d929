//! `POST /v1/conversations/{conversation}/messages`: send a message.

use axum::{extract::State, http::HeaderMap, response::Response};

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, JsonBytes, idempotency_key},
    operations::response,
};
use crate::domain::{ids::ConversationId, message::Content};

pub(super) async fn send(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    state.bridge.rates().message(caller.user, caller.is_admin)?;
    let key = idempotency_key(&headers)?;
    let content = Content::from_json(&body, state.bridge.content_limits())?;
    let key = key.map(|key| (key, &body[..]));
    let sent = state.bridge.send_once(&caller, conversation, content, key);
    Ok(response(&sent.await))
}
