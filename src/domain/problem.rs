//! What went wrong with a request, as a problem document (RFC 9457).
//!
//! ```text
//!   {"type": "urn:homing:problem:not-found", "title": "Not found", "status": 404,
//!    "detail": "there is no such conversation among yours"}
//! ```
//!
//! `type` is for programs and stays as it is; `detail` says what to do.

use serde::Serialize;

/// What to say of a request that was worked on for too long.
pub const TIMED_OUT: &str =
    "the request took too long; whether it had an effect is unknown: send it again";

/// Every kind there is.
pub const PROBLEM_KINDS: [ProblemKind; 20] = [
    ProblemKind::Invalid,
    ProblemKind::Unauthorized,
    ProblemKind::Forbidden,
    ProblemKind::Silenced,
    ProblemKind::Blocked,
    ProblemKind::NotAuthor,
    ProblemKind::NotFound,
    ProblemKind::MethodNotAllowed,
    ProblemKind::Conflict,
    ProblemKind::Full,
    ProblemKind::LastOwner,
    ProblemKind::Archived,
    ProblemKind::Retracted,
    ProblemKind::PreconditionFailed,
    ProblemKind::TooLarge,
    ProblemKind::UnsupportedMediaType,
    ProblemKind::KeyReused,
    ProblemKind::TooMany,
    ProblemKind::Internal,
    ProblemKind::Unavailable,
];

/// The kinds of problems: each has its status (RFC 9110 §15), its type and its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    Invalid,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    /// The conversation or the list holds as many as it may.
    Full,
    /// The change would leave a conversation without an owner.
    LastOwner,
    /// The conversation is archived: nothing is written to it.
    Archived,
    /// The participant may not write for now.
    Silenced,
    /// One of the two has blocked the other.
    Blocked,
    /// Only who wrote a message changes it.
    NotAuthor,
    /// The message is a tombstone: it cannot be edited, nor reacted to.
    Retracted,
    /// What the request is based on has changed meanwhile.
    PreconditionFailed,
    /// The idempotency key stands for another request.
    KeyReused,
    TooLarge,
    UnsupportedMediaType,
    /// More requests than allowed: wait, and send it again.
    TooMany,
    Unavailable,
    Internal,
}

impl ProblemKind {
    /// The status code of HTTP.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.parts().0
    }

    /// The `type` of its documents.
    #[must_use]
    pub const fn urn(self) -> &'static str {
        self.parts().1
    }

    const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Invalid => (400, "urn:homing:problem:invalid", "Invalid request"),
            Self::Unauthorized => (401, "urn:homing:problem:unauthorized", "No valid token"),
            Self::Forbidden => (403, "urn:homing:problem:forbidden", "Not allowed"),
            Self::NotFound => (404, "urn:homing:problem:not-found", "Not found"),
            Self::MethodNotAllowed => (
                405,
                "urn:homing:problem:method-not-allowed",
                "Method not allowed",
            ),
            Self::Conflict => (409, "urn:homing:problem:conflict", "Conflict"),
            Self::Full => (409, "urn:homing:problem:full", "Full"),
            Self::LastOwner => (
                409,
                "urn:homing:problem:last-owner",
                "No owner would be left",
            ),
            Self::Archived => (409, "urn:homing:problem:archived", "Archived"),
            Self::Silenced => (403, "urn:homing:problem:silenced", "Silenced"),
            Self::Blocked => (403, "urn:homing:problem:blocked", "Blocked"),
            Self::NotAuthor => (403, "urn:homing:problem:not-author", "Not the author"),
            Self::Retracted => (409, "urn:homing:problem:retracted", "Retracted"),
            Self::PreconditionFailed => (
                412,
                "urn:homing:problem:precondition-failed",
                "Changed meanwhile",
            ),
            Self::KeyReused => (
                422,
                "urn:homing:problem:key-reused",
                "Idempotency key reused",
            ),
            Self::TooMany => (429, "urn:homing:problem:too-many", "Too many requests"),
            Self::TooLarge => (413, "urn:homing:problem:too-large", "Too large"),
            Self::UnsupportedMediaType => {
                (415, "urn:homing:problem:unsupported-media-type", "Not JSON")
            }
            Self::Unavailable => (503, "urn:homing:problem:unavailable", "Not available now"),
            Self::Internal => (500, "urn:homing:problem:internal", "Internal error"),
        }
    }
}

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    r#type: &'static str,
    title: &'static str,
    pub status: u16,
    pub detail: String,
    /// When the same request may be sent again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// `detail` says what to do.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (status, r#type, title) = kind.parts();
        Self {
            r#type,
            title,
            status,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// The same request may be sent again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: the table names every kind with its status, and none that is gone.
    #[test]
    fn every_kind_is_documented() {
        let kinds = PROBLEM_KINDS.map(|kind| {
            let name = kind.urn().strip_prefix("urn:homing:problem:").unwrap();
            format!("| {} | `{name}` |", kind.status())
        });
        let page = include_str!("../../docs/api.md");
        let (_, table) = page.split_once("`type`: `urn:homing:problem:`").unwrap();
        let rows = table.lines().skip(2);
        let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
            let end = line.match_indices('|').nth(2).unwrap().0;
            line[..=end].to_owned()
        });
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), PROBLEM_KINDS.len(), "each once: {rows:#?}");
        let (kinds, rows) = (BTreeSet::from(kinds), BTreeSet::from_iter(rows));
        let differences: Vec<_> = kinds.symmetric_difference(&rows).collect();
        assert!(differences.is_empty(), "docs/api.md: {differences:#?}");
    }
}
