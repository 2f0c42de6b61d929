//! `/v1/conversations/{cid}/messages`: send a message, read the log.

use std::num::NonZeroUsize;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    ApiState,
    error::ApiError,
    extract::{Auth, InPath, InQuery, JsonBytes},
};
use crate::{
    bridge::conversations::{Page, Range},
    domain::{
        ids::ConversationId,
        message::{Content, Sequence},
    },
};

/// Entries on a page whose size is not said.
const PAGE_ENTRIES_DEFAULT: usize = 50;

#[derive(Serialize)]
pub(super) struct Sent {
    seq: Sequence,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<i64>,
    before: Option<i64>,
    limit: Option<NonZeroUsize>,
}

/// `POST /v1/conversations/{cid}/messages`
pub(super) async fn send(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    JsonBytes(body): JsonBytes,
) -> Result<(StatusCode, Json<Sent>), ApiError> {
    let content = Content::from_json(&body, state.message_bytes_max)?;
    let accepted = state.bridge.post(&caller, conversation, content).await?;
    let status = if accepted.is_duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((
        status,
        Json(Sent {
            seq: accepted.sequence,
            duplicate: accepted.is_duplicate,
        }),
    ))
}

/// `GET /v1/conversations/{cid}/messages`
pub(super) async fn page(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    InPath(conversation): InPath<ConversationId>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let entries_max = usize::try_from(state.http.page_entries_max).unwrap_or(usize::MAX);
    let range = range(&query)?;
    let limit = match query.limit.map(NonZeroUsize::get) {
        None => PAGE_ENTRIES_DEFAULT.min(entries_max),
        Some(limit) if limit <= entries_max => limit,
        Some(_) => {
            return Err(ApiError::Invalid(format!(
                "`limit` lies between 1 and {entries_max}"
            )));
        }
    };
    let page = state
        .bridge
        .page(&caller, conversation, range, limit)
        .await?;
    let json = page_json(&page, range);
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn range(query: &PageQuery) -> Result<Range, ApiError> {
    match (query.after, query.before) {
        (Some(_), Some(_)) => Err(ApiError::Invalid(
            "give `after` or `before`, not both".to_owned(),
        )),
        (Some(sequence), None) | (None, Some(sequence)) if sequence < 0 => {
            Err(ApiError::Invalid("a sequence is not negative".to_owned()))
        }
        (_, Some(sequence)) => Ok(Range::Before(sequence)),
        (sequence, None) => Ok(Range::After(sequence.unwrap_or(0))),
    }
}

/// The entries as they are encoded already, with where to go on if there is more.
fn page_json(page: &Page, range: Range) -> Vec<u8> {
    let size: usize = page
        .entries
        .iter()
        .map(|entry| entry.payload.len() + 1)
        .sum();
    let mut json = Vec::with_capacity(size + 64);
    json.extend_from_slice(b"{\"entries\":[");
    for (place, entry) in page.entries.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&entry.payload);
    }
    json.push(b']');
    let (name, next) = match range {
        Range::After(_) => ("next_after", page.entries.last()),
        Range::Before(_) => ("next_before", page.entries.first()),
    };
    if let Some(entry) = next.filter(|_| page.has_more) {
        let sequence = entry.position.sequence.get();
        json.extend_from_slice(format!(",\"{name}\":{sequence}").as_bytes());
    }
    json.push(b'}');
    json
}
