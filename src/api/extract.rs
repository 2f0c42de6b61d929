//! What a handler takes from a request: who asks, the path, the query and the body. All of
//! it is strict, and all of it refuses with an [`ApiError`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    ApiState,
    error::{ApiError, TokenProblem},
};
use crate::{bridge::conversations::Caller, domain::request::object_from_json};

/// The user whose token came along.
pub(super) struct Auth(pub(super) Caller);

impl FromRequestParts<ApiState> for Auth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        Ok(Self(
            AuthFor::from_request_parts(parts, state).await?.caller,
        ))
    }
}

/// The user whose token came along, and for how long it is good.
pub(super) struct AuthFor {
    pub(super) caller: Caller,
    pub(super) remains: Duration,
}

impl FromRequestParts<ApiState> for AuthFor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers).ok_or(ApiError::Unauthorized(TokenProblem::Missing))?;
        let now_unix = now_unix();
        let identity = state
            .keys
            .verify(token, now_unix)
            .map_err(|error| ApiError::Unauthorized(error.into()))?;
        Ok(Self {
            caller: state.bridge.caller(&identity).await?,
            remains: Duration::from_secs(identity.expires_at.saturating_sub(now_unix)),
        })
    }
}

/// The `Idempotency-Key` of a request; what it may consist of, the bridge knows.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let key = keys.next().map(HeaderValue::to_str).transpose();
    match key {
        Ok(key) if keys.next().is_none() => Ok(key),
        _ => {
            let detail = "send one Idempotency-Key, in visible ASCII characters";
            Err(ApiError::Invalid(detail.to_owned()))
        }
    }
}

/// The token of an `Authorization: Bearer …` header; the scheme has no case (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a request is where time comes in"
)]
pub(super) fn now_unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn now_unix() -> u64 {
    now_unix_millis() / 1000
}

/// The parameters of the path.
pub(super) struct InPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::Invalid(rejection.body_text())),
        }
    }
}

/// A body that says it is JSON, not yet read.
pub(super) struct JsonBytes(pub(super) Bytes);

impl FromRequest<ApiState> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        Ok(Self(read(request, state).await?))
    }
}

/// The members of a JSON object; none if there is no body.
pub(super) async fn body_object(
    request: Request,
    state: &ApiState,
) -> Result<Map<String, Value>, ApiError> {
    let is_json = is_json(request.headers());
    let body = read(request, state).await?;
    match is_json {
        _ if body.is_empty() => Ok(Map::new()),
        true => {
            object_from_json(&body).map_err(|error| ApiError::Invalid(format!("the body: {error}")))
        }
        false => Err(ApiError::UnsupportedMediaType),
    }
}

async fn read(request: Request, state: &ApiState) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection: BytesRejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let bytes_max = state.http.body_bytes_max;
                return ApiError::TooLarge(format!("a body has at most {bytes_max} bytes"));
            }
            ApiError::Invalid(rejection.body_text())
        })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}
