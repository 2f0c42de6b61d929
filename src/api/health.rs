//! `/livez`, `/readyz`, `/metrics`: for those who watch the process.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::encoding::text::encode;

use super::{ApiState, error::ApiError};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /livez`: answers while the runtime turns.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: answers 200 while new work can be done.
pub(super) async fn ready(State(state): State<ApiState>) -> Result<&'static str, ApiError> {
    if state.readiness.is_ready() && state.bridge.is_store_ready().await {
        return Ok("ready\n");
    }
    Err(ApiError::Unavailable(None))
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<ApiState>) -> Response {
    let mut text = String::new();
    encode(&mut text, &state.registry).expect("writing to a string does not fail");
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}
