//! Every route, in one list: what the table of operations holds, and what has no counterpart over
//! MQTT.
//!
//! ```text
//!   /v1…                                      the operations of the bridge
//!   POST /v1/conversations/{cid}/messages     a message, as on c/{cid}/send
//!                                             → 201 {"seq"}, 200 {"seq", "duplicate"}
//!   GET  /livez, /readyz, /metrics            without a token
//! ```
//!
//! All of `/v1` wants `authorization: Bearer TOKEN`. Refusals are problem documents.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tower_http::trace::TraceLayer;

use super::{ApiState, error::ApiError, health, messages, operations};

/// The routes, with their limits. Routes that are merged in later have none of them.
pub fn router(state: ApiState) -> Router {
    let v1 = operations::routes(Router::new()).route(
        "/conversations/{conversation}/messages",
        post(messages::send),
    );
    Router::new()
        .nest("/v1", v1)
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || ApiError::NotFound("there is nothing at this path; the API is at /v1"))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(state.http.body_bytes_max))
        .layer(from_fn_with_state(state.clone(), within_time))
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}

/// Bounds the whole request, the reading of its body included.
async fn within_time(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(state.http.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TimedOut.into_response(),
    }
}
