//! `/v1/devices`: the caller's devices, and where each can be woken.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, JsonBody},
};
use crate::bridge::push_settings::{DeviceSummary, Registration, TokenSummary};

#[derive(Serialize)]
pub(super) struct Devices {
    devices: Vec<DeviceSummary>,
}

/// `GET /v1/devices`
pub(super) async fn list(
    State(state): State<ApiState>,
    Auth(caller): Auth,
) -> Result<Json<Devices>, ApiError> {
    let devices = state.bridge.devices(&caller).await?;
    Ok(Json(Devices { devices }))
}

/// `PUT /v1/devices/{client_id}/push-token`
pub(super) async fn register_token(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(client_id): InPath<String>,
    JsonBody(registration): JsonBody<Registration>,
) -> Result<Json<TokenSummary>, ApiError> {
    let token = state
        .bridge
        .register_token(&caller, &client_id, registration)
        .await?;
    Ok(Json(token))
}

/// `GET /v1/devices/{client_id}/push-token`
pub(super) async fn show_token(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(client_id): InPath<String>,
) -> Result<Json<TokenSummary>, ApiError> {
    Ok(Json(state.bridge.token(&caller, &client_id).await?))
}

/// `DELETE /v1/devices/{client_id}/push-token`
pub(super) async fn remove_token(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(client_id): InPath<String>,
) -> Result<StatusCode, ApiError> {
    state.bridge.remove_token(&caller, &client_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
