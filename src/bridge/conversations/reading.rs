//! Reading a conversation: what it is, and its log.

use sqlx::PgConnection;

use super::{Bridge, Caller, ConversationError, Shown, look};
use crate::{
    domain::{ids::ConversationId, message::SharedEntry},
    store::{conversations, messages},
};

/// Which part of a log is wanted. Both give the entries in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The first ones after a sequence; 0 is before the first.
    After(i64),
    /// The last ones before a sequence.
    Before(i64),
}

/// A part of a log.
#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<SharedEntry>,
    /// Whether the log goes on in the direction of the [`Range`].
    pub has_more: bool,
}

impl Bridge {
    /// The conversation as the caller sees it. An administrator sees it without taking part.
    pub async fn conversation(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<Shown, ConversationError> {
        self::conversation(&mut *self.pool().acquire().await?, caller, conversation).await
    }

    /// A part of the log, at most `limit` entries of it.
    pub async fn page(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        range: Range,
        limit: usize,
    ) -> Result<Page, ConversationError> {
        self.visible(caller, conversation).await?;
        let mut conn = self.pool().acquire().await?;
        // One more than wanted says whether there is more.
        let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let user = caller.user;
        let mut entries = match range {
            Range::After(sequence) => {
                messages::read_after(&mut conn, conversation, user, sequence, one_more).await?
            }
            Range::Before(sequence) => {
                messages::read_before(&mut conn, conversation, user, sequence, one_more).await?
            }
        };
        let surplus = entries.len().saturating_sub(limit);
        match range {
            Range::After(_) => entries.truncate(limit),
            Range::Before(_) => drop(entries.drain(..surplus)),
        }
        Ok(Page {
            entries,
            has_more: surplus > 0,
        })
    }
}

/// What [`Bridge::conversation`] answers.
pub(in crate::bridge) async fn conversation(
    conn: &mut PgConnection,
    caller: &Caller,
    conversation: ConversationId,
) -> Result<Shown, ConversationError> {
    let view = look(conn, conversation, &caller.subject).await?;
    let unread = if view.current().is_some() {
        conversations::unread(conn, conversation, caller.user).await?
    } else if caller.is_admin {
        0
    } else {
        return Err(ConversationError::NotFound);
    };
    Ok(Shown::new(conversation, view, unread))
}
