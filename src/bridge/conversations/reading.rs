//! Reading a conversation: what it is, and its log.

use sqlx::PgConnection;

use super::{Bridge, Caller, ConversationError, Shown, look};
use crate::{
    domain::{
        ids::{ConversationId, UserId},
        message::SharedEntry,
    },
    store::{conversations, messages, thread},
};

/// Which part of a log is wanted. All give the entries in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The first ones after a sequence; 0 is before the first.
    After(i64),
    /// The last ones before a sequence.
    Before(i64),
    /// On both sides of a sequence.
    Around(i64),
    /// On both sides of a time, in milliseconds since 1970.
    At(i64),
}

/// A part of a log, and whether the log goes on in the directions of the [`Range`].
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub entries: Vec<SharedEntry>,
    pub has_earlier: bool,
    pub has_later: bool,
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

    /// A part of the log of at most `limit` entries and `bytes_max` bytes, or one entry.
    pub async fn page(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        range: Range,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, ConversationError> {
        let readable = self.readable(caller, conversation).await?;
        let (low, high) = (readable.low(), readable.last_seq);
        let mut conn = self.pool().acquire().await?;
        let whose = (conversation, caller.user);
        let place = match range {
            Range::After(sequence) => {
                return oldest(&mut conn, whose, sequence, limit, bytes_max).await;
            }
            Range::Before(sequence) => {
                return newest(&mut conn, whose, sequence, limit, bytes_max).await;
            }
            Range::Around(sequence) => sequence,
            Range::At(millis) => {
                thread::sequence_at(&mut conn, conversation, (low, high), millis).await?
            }
        };
        let middle = place.clamp(low, high.max(low));
        let mut page = newest(&mut conn, whose, middle, limit / 2, bytes_max / 2).await?;
        let limit = limit - page.entries.len();
        let later = oldest(&mut conn, whose, middle - 1, limit, bytes_max / 2).await?;
        page.entries.extend(later.entries);
        page.has_later = later.has_later;
        Ok(page)
    }
}

/// The first entries after a sequence.
async fn oldest(
    conn: &mut PgConnection,
    (conversation, user): (ConversationId, UserId),
    after: i64,
    limit: usize,
    bytes_max: usize,
) -> Result<Page, ConversationError> {
    let rows = one_more(limit);
    let entries = messages::read_after(conn, conversation, user, after, rows).await?;
    Ok(Page::oldest(entries, limit, bytes_max))
}

/// The last entries before a sequence.
async fn newest(
    conn: &mut PgConnection,
    (conversation, user): (ConversationId, UserId),
    before: i64,
    limit: usize,
    bytes_max: usize,
) -> Result<Page, ConversationError> {
    let rows = one_more(limit);
    let entries = messages::read_before(conn, conversation, user, before, rows).await?;
    Ok(Page::newest(entries, limit, bytes_max))
}

/// One more than wanted says whether there is more.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX)
}

/// What [`Bridge::conversation`] answers.
pub(in crate::bridge) async fn conversation(
    conn: &mut PgConnection,
    caller: &Caller,
    conversation: ConversationId,
) -> Result<Shown, ConversationError> {
    let view = look(conn, conversation, &caller.subject).await?;
    let unread = if view.current().is_some() {
        conversations::unread(conn, conversation, caller.user, view.first_seq).await?
    } else if caller.is_admin {
        0
    } else {
        return Err(ConversationError::NotFound);
    };
    Ok(Shown::new(conversation, view, unread))
}
