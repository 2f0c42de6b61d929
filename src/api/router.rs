//! Every route, in one list.
//!
//! ```text
//!   POST   /v1/conversations                             {"participants", "title"?, "kind"?} → 201 {"id"}
//!   GET    /v1/conversations/{cid}                       what it is, and where the caller stands
//!   PUT    /v1/conversations/{cid}/participants/{user}   {"role"?} → 200 {"seq"}, 204 if unchanged
//!   DELETE /v1/conversations/{cid}/participants/{user}   → 200 {"seq"}, 204 if unchanged
//!   POST   /v1/conversations/{cid}/messages              a message, as on c/{cid}/send
//!                                                        → 201 {"seq"}, 200 {"seq", "duplicate"}
//!   GET    /v1/conversations/{cid}/messages              ?after=N | ?before=N, &limit=L
//!                                                        → {"entries", "next_after"?, "next_before"?}
//!   GET    /v1/conversations/{cid}/receipts              → {"receipts": [{"user", "delivered", "read"}]}
//!   PUT    /v1/conversations/{cid}/receipts              {"read"?, "delivered"?} → the caller's receipt
//!   GET    /v1/conversations/{cid}/notifications         → {"muted_until", "mentions"}
//!   PUT    /v1/conversations/{cid}/notifications         {"muted_until"?: ms | "forever" | null,
//!                                                         "mentions"?: bool | null}: absent stays as
//!                                                        it is, null is the default
//!   GET    /v1/conversations/{cid}/messages/{seq}/pushes ?user=NAME: which devices it woke, or why not
//!                                                        → {"user", "seq", "committed_at", "devices"}
//!   GET    /v1/devices                                   → {"devices": [{"client_id", "connected",
//!                                                          "activity", "push_token"}]}
//!   PUT    /v1/devices/{client_id}/push-token            {"provider", "app", "environment"?, "token",
//!                                                         "voip_token"?, "p256dh"?, "auth"?, "locale"?}
//!                                                        → what is told of it; the token never is
//!   GET    /v1/devices/{client_id}/push-token            likewise
//!   DELETE /v1/devices/{client_id}/push-token            → 204
//!   GET    /v1/me/quiet-hours                            → {"from", "until", "zone"}, or null
//!   PUT    /v1/me/quiet-hours                            {"from": "22:00", "until": "07:00",
//!                                                         "zone": "Europe/Berlin"}, or null
//!   GET    /livez, /readyz, /metrics                     without a token
//! ```
//!
//! All of `/v1` wants `authorization: Bearer TOKEN`. Refusals: 400 malformed, 401 no valid
//! token, 403 not allowed, 404 not there or not yours, 405, 409, 413, 415, 503 try again.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use tower_http::trace::TraceLayer;

use super::{
    ApiState, conversations, devices, error::ApiError, health, messages, notifications, receipts,
};

/// The routes, with their limits. Routes that are merged in later have none of them.
pub fn router(state: ApiState) -> Router {
    let v1 = Router::new()
        .route("/conversations", post(conversations::create))
        .route("/conversations/{cid}", get(conversations::show))
        .route(
            "/conversations/{cid}/participants/{user}",
            put(conversations::add_participant).delete(conversations::remove_participant),
        )
        .route(
            "/conversations/{cid}/messages",
            post(messages::send).get(messages::page),
        )
        .route(
            "/conversations/{cid}/receipts",
            get(receipts::list).put(receipts::report),
        )
        .route(
            "/conversations/{cid}/notifications",
            get(notifications::show).put(notifications::change),
        )
        .route(
            "/conversations/{cid}/messages/{seq}/pushes",
            get(notifications::explain),
        )
        .route("/devices", get(devices::list))
        .route(
            "/devices/{client_id}/push-token",
            put(devices::register_token)
                .get(devices::show_token)
                .delete(devices::remove_token),
        )
        .route(
            "/me/quiet-hours",
            get(notifications::show_quiet_hours).put(notifications::set_quiet_hours),
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
