//! `/v1/conversations`: create one, look at it, change who takes part.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, JsonBody, OptionalJsonBody},
};
use crate::{
    bridge::conversations::{Creation, Shown},
    domain::{
        ids::{ConversationId, Subject},
        message::Sequence,
    },
    store::conversations::{Kind, Role},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    participants: Vec<Subject>,
    title: Option<String>,
    #[serde(default, deserialize_with = "from_text")]
    kind: Option<Kind>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParticipantBody {
    #[serde(default, deserialize_with = "from_text")]
    role: Option<Role>,
}

#[derive(Serialize)]
pub(super) struct Created {
    id: ConversationId,
}

#[derive(Serialize)]
struct Changed {
    seq: Sequence,
}

/// `POST /v1/conversations`
pub(super) async fn create(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let CreateBody {
        participants,
        title,
        kind,
    } = body;
    let creation = Creation {
        participants,
        title,
        kind,
        ..Creation::default()
    };
    let created = state.bridge.create_conversation(&caller, creation).await?;
    let status = if created.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(Created { id: created.id })))
}

/// `GET /v1/conversations/{cid}`
pub(super) async fn show(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(id): InPath<ConversationId>,
) -> Result<Json<Shown>, ApiError> {
    let (view, unread) = state.bridge.conversation(&caller, id).await?;
    Ok(Json(Shown::new(id, view, unread)))
}

/// `PUT /v1/conversations/{cid}/participants/{user}`
pub(super) async fn add_participant(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath((id, user)): InPath<(ConversationId, Subject)>,
    OptionalJsonBody(body): OptionalJsonBody<ParticipantBody>,
) -> Result<Response, ApiError> {
    let role = body.unwrap_or_default().role;
    Ok(changed(
        state
            .bridge
            .add_participant(&caller, id, user, role)
            .await?,
    ))
}

/// `DELETE /v1/conversations/{cid}/participants/{user}`
pub(super) async fn remove_participant(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath((id, user)): InPath<(ConversationId, Subject)>,
) -> Result<Response, ApiError> {
    Ok(changed(
        state.bridge.remove_participant(&caller, id, user).await?,
    ))
}

fn changed(sequence: Option<Sequence>) -> Response {
    match sequence {
        Some(seq) => Json(Changed { seq }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom))
        .transpose()
}
