//! Who takes part, shown to participants.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;

use super::{Bridge, Caller, ConversationError, look};
use crate::{
    domain::{
        change::Until,
        ids::{ConversationId, Subject},
        problem::ProblemKind,
    },
    store::{
        roster::{self, Present},
        users::NOBODY,
    },
};

/// Participants on one page, at most.
pub const PRESENT_MAX: usize = 200;

/// A participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PresentShown {
    pub user: Subject,
    pub role: &'static str,
    /// The sequence of the entry with which they began to take part; 1 for the first ones.
    pub joined: i64,
    /// Until when they may not write: milliseconds since 1970, or "forever"; null if they may.
    pub silenced_until: Option<Until>,
}

/// A page of the participants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Roster {
    pub participants: Vec<PresentShown>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<Subject>,
}

impl From<Present> for PresentShown {
    fn from(present: Present) -> Self {
        Self {
            user: present.name,
            role: present.role.as_str(),
            joined: present.joined,
            silenced_until: present.silenced,
        }
    }
}

impl Bridge {
    /// Those who take part, at most `limit` of them, after the last one of the page before.
    pub async fn participants(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<Roster, ConversationError> {
        inside(&mut *self.pool().acquire().await?, caller, conversation).await?;
        let after = self.place(conversation, after.cloned()).await?;
        let after = after.unwrap_or(NOBODY);
        let mut conn = self.pool().acquire().await?;
        // One more than wanted says whether there is more.
        let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut page = roster::page(&mut conn, conversation, after, one_more).await?;
        let has_more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| has_more);
        let next_after = last.map(|present| present.name.clone());
        Ok(Roster {
            participants: page.into_iter().map(Into::into).collect(),
            next_after,
        })
    }

    /// One of those who take part.
    pub async fn participant(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        name: &Subject,
    ) -> Result<PresentShown, ConversationError> {
        participant(
            &mut *self.pool().acquire().await?,
            caller,
            conversation,
            name,
        )
        .await
    }
}

/// What [`Bridge::participant`] answers.
pub(in crate::bridge) async fn participant(
    conn: &mut PgConnection,
    caller: &Caller,
    conversation: ConversationId,
    name: &Subject,
) -> Result<PresentShown, ConversationError> {
    inside(conn, caller, conversation).await?;
    let present = roster::one(conn, conversation, name).await?;
    present.map(Into::into).ok_or_else(|| {
        ConversationError::Refused(
            ProblemKind::NotFound,
            format!("{name} does not take part in this conversation"),
        )
    })
}

/// For everyone who takes part, and for administrators.
async fn inside(
    conn: &mut PgConnection,
    caller: &Caller,
    conversation: ConversationId,
) -> Result<(), ConversationError> {
    let view = look(conn, conversation, &caller.subject).await?;
    if caller.is_admin || view.current().is_some() {
        Ok(())
    } else {
        Err(ConversationError::NotFound)
    }
}
