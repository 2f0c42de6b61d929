//! Every refusal, as a problem document (RFC 9457).

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    bridge::{conversations::ConversationError, identity::TokenError, rates::TooFast},
    domain::{
        envelope::EnvelopeError,
        problem::{Problem, ProblemKind, TIMED_OUT},
    },
    store::StoreError,
};

/// When to try again after an outage, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why a request gets no other answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unauthorized(TokenProblem),
    #[error("{0}")]
    NotFound(&'static str),
    #[error("this path has other methods; see the Allow header")]
    MethodNotAllowed,
    /// By the bridge, which knows the kind.
    #[error("{1}")]
    Refused(ProblemKind, String),
    #[error(transparent)]
    TooFast(#[from] TooFast),
    #[error("{0}")]
    TooLarge(String),
    #[error("send JSON, with `content-type: application/json`")]
    UnsupportedMediaType,
    #[error("the server cannot store or read now; send the same request again")]
    Unavailable(#[source] Option<StoreError>),
    #[error("{TIMED_OUT}")]
    TimedOut,
    #[error("this is a fault of the server; its log says more")]
    Internal(#[source] StoreError),
}

/// What is wrong with the credentials of a request.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum TokenProblem {
    #[error("send a token: `authorization: Bearer …`")]
    Missing,
    #[error(transparent)]
    Refused(#[from] TokenError),
}

impl ApiError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::Invalid(_) => ProblemKind::Invalid,
            Self::Unauthorized(_) => ProblemKind::Unauthorized,
            Self::NotFound(_) => ProblemKind::NotFound,
            Self::MethodNotAllowed => ProblemKind::MethodNotAllowed,
            Self::Refused(kind, _) => *kind,
            Self::TooFast(_) => ProblemKind::TooMany,
            Self::TooLarge(_) => ProblemKind::TooLarge,
            Self::UnsupportedMediaType => ProblemKind::UnsupportedMediaType,
            Self::Unavailable(_) | Self::TimedOut => ProblemKind::Unavailable,
            Self::Internal(_) => ProblemKind::Internal,
        }
    }

    fn log(&self) {
        match self {
            Self::Internal(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "a request failed");
            }
            Self::Unavailable(Some(error)) => {
                tracing::warn!(error = error as &dyn std::error::Error, "the store is away");
            }
            Self::TimedOut => tracing::warn!("a request took too long"),
            other => tracing::debug!(reason = %other, "a request was refused"),
        }
    }

    fn headers(&self, status: StatusCode, retry_after: Option<u64>) -> HeaderMap {
        let mut headers = problem_headers(status, retry_after);
        if let Self::Unauthorized(problem) = self {
            headers.insert(header::WWW_AUTHENTICATE, problem.challenge());
        }
        headers
    }
}

/// What goes with a problem document.
pub(super) fn problem_headers(status: StatusCode, retry_after: Option<u64>) -> HeaderMap {
    let problem = HeaderValue::from_static("application/problem+json");
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, problem)]);
    let is_outage = matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    if let Some(seconds) = retry_after.or(is_outage.then_some(RETRY_AFTER_SECONDS)) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    headers
}

impl TokenProblem {
    /// RFC 6750 §3: without credentials no error is named.
    fn challenge(self) -> HeaderValue {
        match self {
            Self::Missing => HeaderValue::from_static("Bearer realm=\"homing\""),
            Self::Refused(_) => {
                HeaderValue::from_static("Bearer realm=\"homing\", error=\"invalid_token\"")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut problem = Problem::new(self.kind(), self.to_string());
        if let Self::TooFast(too_fast) = self {
            problem = problem.retry_after(too_fast.seconds());
        }
        let status = StatusCode::from_u16(problem.status);
        let status = status.expect("a kind of problem has a status of HTTP");
        let headers = self.headers(status, problem.retry_after);
        (status, headers, axum::Json(problem)).into_response()
    }
}

impl From<ConversationError> for ApiError {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::Unavailable => Self::Unavailable(None),
            ConversationError::Store(error) => error.into(),
            refusal => Self::Refused(refusal.kind(), refusal.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::Unavailable(Some(error))
        } else {
            Self::Internal(error)
        }
    }
}

impl From<EnvelopeError> for ApiError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Invalid(_) => Self::Invalid(error.to_string()),
            EnvelopeError::TooLarge { .. } => Self::TooLarge(error.to_string()),
        }
    }
}
