//! Every route, in one list: what the table of operations holds, and what has no counterpart over
//! MQTT.
//!
//! ```text
//!   /v1…                                      the operations of the bridge
//!   POST /v1/conversations/{cid}/messages     a message, as on c/{cid}/send
//!                                             → 201 {"seq"}, 200 {"seq", "duplicate"}
//!   GET  /v1/events                           what happens, as server-sent events
//!   GET  /v1/openapi.json                     all of this for programs; without a token
//!   GET  /livez, /readyz, /metrics            without a token
//! ```
//!
//! The rest of `/v1` wants `authorization: Bearer TOKEN`. Refusals are problem documents.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tower_http::{
    cors::{AllowOrigin, CorsLayer},
    trace::TraceLayer,
};

use super::{ApiState, error::ApiError, events, health, messages, openapi, operations};

/// How long a browser remembers what it may send.
const PREFLIGHT_AGE: std::time::Duration = std::time::Duration::from_hours(1);

/// The routes, with their limits. Routes that are merged in later have none of them.
pub fn router(state: ApiState) -> Router {
    let v1 = operations::routes(Router::new())
        .route(
            "/conversations/{conversation}/messages",
            post(messages::send),
        )
        .route("/events", get(events::follow))
        .route("/openapi.json", get(openapi::show));
    let router = Router::new()
        .nest("/v1", v1)
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || ApiError::NotFound("there is nothing at this path; the API is at /v1"))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(state.http.body_bytes_max))
        .layer(from_fn_with_state(state.clone(), within_time))
        .layer(TraceLayer::new_for_http());
    match cors(&state.http.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    }
    .with_state(state)
}

/// For pages of other origins, which send a token and no cookies. Answers preflights itself.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let allowed = match origins {
        [] => return None,
        origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        origins => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    let sent = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
    ];
    let seen = [
        header::ETAG,
        header::LINK,
        header::RETRY_AFTER,
        HeaderName::from_static("idempotency-replayed"),
    ];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(methods)
            .allow_headers(sent)
            .expose_headers(seen)
            .max_age(PREFLIGHT_AGE),
    )
}

/// Bounds the whole request, the reading of its body included.
async fn within_time(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(state.http.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TimedOut.into_response(),
    }
}
