//! Every refusal, as a problem document (RFC 9457).

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    bridge::{
        conversations::ConversationError, identity::TokenError, push_settings::PushSettingsError,
    },
    domain::{
        envelope::EnvelopeError,
        problem::{Problem, ProblemKind},
    },
    store::StoreError,
};

/// When to try again after an outage, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why a request gets no other answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unauthorized(TokenProblem),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("{0}")]
    NotFound(&'static str),
    #[error("this path has other methods; see the Allow header")]
    MethodNotAllowed,
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("send JSON, with `content-type: application/json`")]
    UnsupportedMediaType,
    #[error("the server cannot store or read now; send the same request again")]
    Unavailable(#[source] Option<StoreError>),
    #[error("the request took too long; whether it had an effect is unknown: send it again")]
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
            Self::Forbidden(_) => ProblemKind::Forbidden,
            Self::NotFound(_) => ProblemKind::NotFound,
            Self::MethodNotAllowed => ProblemKind::MethodNotAllowed,
            Self::Conflict(_) => ProblemKind::Conflict,
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

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Unauthorized(problem) => {
                headers.insert(header::WWW_AUTHENTICATE, problem.challenge());
            }
            Self::Unavailable(_) | Self::TimedOut => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            _ => {}
        }
        headers
    }
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
        let problem = Problem::new(self.kind(), self.to_string());
        let status = StatusCode::from_u16(problem.status);
        let status = status.expect("a kind of problem has a status of HTTP");
        (status, self.headers(), axum::Json(problem)).into_response()
    }
}

impl From<ConversationError> for ApiError {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::NotFound => {
                Self::NotFound("there is no such conversation among yours")
            }
            ConversationError::Forbidden(reason) => Self::Forbidden(reason),
            ConversationError::Conflict(reason) => Self::Conflict(reason.to_owned()),
            ConversationError::Invalid(reason) => Self::Invalid(reason),
            ConversationError::Unavailable => Self::Unavailable(None),
            ConversationError::Store(error) => error.into(),
        }
    }
}

impl From<PushSettingsError> for ApiError {
    fn from(error: PushSettingsError) -> Self {
        use PushSettingsError as E;
        match error {
            E::Registration(_)
            | E::InvalidClientId
            | E::InvalidMute
            | E::NoHours
            | E::UnknownZone(_) => Self::Invalid(error.to_string()),
            E::NoToken => Self::NotFound("this device has no push token"),
            E::NoConversation => Self::NotFound("there is no such conversation among yours"),
            E::NoParticipant => {
                Self::NotFound("the user has never taken part in this conversation")
            }
            E::NoMessage => Self::NotFound("there is no such message that you may see"),
            E::NotYours => {
                Self::Forbidden("only an administrator asks about the devices of others")
            }
            E::TooManyTokens => Self::Conflict(error.to_string()),
            E::Store(error) => error.into(),
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
