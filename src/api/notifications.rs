//! What a user wants to be woken for, and what became of it:
//! `/v1/conversations/{cid}/notifications`, `/v1/conversations/{cid}/messages/{seq}/pushes` and
//! `/v1/me/quiet-hours`.

use axum::{Json, extract::State};
use serde::Deserialize;

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, InQuery, JsonBody},
};
use crate::{
    bridge::push_settings::{
        NotificationSettings, NotificationSettingsChange, PushReport, QuietTimes,
    },
    domain::{
        ids::{ConversationId, Subject},
        message::Sequence,
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushesQuery {
    user: Option<Subject>,
}

/// `GET /v1/conversations/{cid}/notifications`
pub(super) async fn show(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
) -> Result<Json<NotificationSettings>, ApiError> {
    let settings = state.bridge.notifications(&caller, conversation).await?;
    Ok(Json(settings))
}

/// `PUT /v1/conversations/{cid}/notifications`
pub(super) async fn change(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    JsonBody(change): JsonBody<NotificationSettingsChange>,
) -> Result<Json<NotificationSettings>, ApiError> {
    let settings = state
        .bridge
        .set_notifications(&caller, conversation, change)
        .await?;
    Ok(Json(settings))
}

/// `GET /v1/conversations/{cid}/messages/{seq}/pushes`
pub(super) async fn explain(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath((conversation, sequence)): InPath<(ConversationId, Sequence)>,
    InQuery(query): InQuery<PushesQuery>,
) -> Result<Json<PushReport>, ApiError> {
    let report = state
        .bridge
        .explain_push(&caller, conversation, sequence, query.user)
        .await?;
    Ok(Json(report))
}

/// `GET /v1/me/quiet-hours`
pub(super) async fn show_quiet_hours(
    State(state): State<ApiState>,
    Auth(caller): Auth,
) -> Result<Json<Option<QuietTimes>>, ApiError> {
    Ok(Json(state.bridge.quiet_hours(&caller).await?))
}

/// `PUT /v1/me/quiet-hours`
pub(super) async fn set_quiet_hours(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    JsonBody(times): JsonBody<Option<QuietTimes>>,
) -> Result<Json<Option<QuietTimes>>, ApiError> {
    state.bridge.set_quiet_hours(&caller, times.clone()).await?;
    Ok(Json(times))
}
