//! `/v1/conversations/{cid}/receipts`: how far the participants have got.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, JsonBody},
};
use crate::domain::{
    ids::ConversationId,
    message::Sequence,
    receipt::{Report, Standing},
};

#[derive(Serialize)]
pub(super) struct Receipts {
    receipts: Vec<Standing>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportBody {
    delivered: Option<Sequence>,
    read: Option<Sequence>,
}

/// `GET /v1/conversations/{cid}/receipts`
pub(super) async fn list(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
) -> Result<Json<Receipts>, ApiError> {
    let receipts = state.bridge.standings(&caller, conversation).await?;
    Ok(Json(Receipts { receipts }))
}

/// `PUT /v1/conversations/{cid}/receipts`
pub(super) async fn report(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    JsonBody(body): JsonBody<ReportBody>,
) -> Result<Json<Standing>, ApiError> {
    let ReportBody { delivered, read } = body;
    if delivered.is_none() && read.is_none() {
        return Err(ApiError::Invalid(
            "give `read`, `delivered` or both".to_owned(),
        ));
    }
    let report = Report { delivered, read };
    Ok(Json(
        state.bridge.report(&caller, conversation, report).await?,
    ))
}
