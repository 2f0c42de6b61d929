//! Whom a user does not want to hear of.
//!
//! A blocked user writes nothing in the direct conversation of the two, begins no new one, and
//! does not bring the other one into groups. In groups where both take part nothing changes, and
//! nobody is told.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Bridge,
    conversations::{Caller, ConversationError},
};
use crate::{
    domain::{ids::Subject, problem::ProblemKind},
    store::{
        blocks::{self, TooManyBlocks},
        users::{self, NOBODY},
    },
};

/// The most users that one user blocks.
pub const BLOCKS_MAX: i64 = 10_000;
/// Blocks on one page, at most.
pub const PAGE_BLOCKS_MAX: usize = 200;

/// A blocked user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BlockShown {
    pub user: Subject,
    /// In milliseconds since 1970.
    pub since: i64,
}

/// A page of the blocked users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BlockPage {
    pub blocks: Vec<BlockShown>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<Subject>,
}

impl Bridge {
    /// Blocks a user; what is so already stays so.
    pub async fn block(&self, caller: &Caller, name: &Subject) -> Result<(), ConversationError> {
        if *name == caller.subject {
            return Err(ConversationError::Invalid(
                "nobody blocks themself".to_owned(),
            ));
        }
        let full = || {
            let detail = format!("you block {BLOCKS_MAX} users; unblock some first");
            ConversationError::Refused(ProblemKind::Full, detail)
        };
        let mut conn = self.pool().acquire().await?;
        // Nobody is made for nothing.
        let is_known = users::id(&mut conn, name).await?.is_some();
        if !is_known && blocks::count(&mut conn, caller.user, BLOCKS_MAX).await? >= BLOCKS_MAX {
            return Err(full());
        }
        drop(conn);
        let blocked = self.user(name).await?;
        let mut tx = self.pool().begin().await?;
        match blocks::block(&mut tx, caller.user, blocked, BLOCKS_MAX).await? {
            Ok(()) => Ok(tx.commit().await?),
            Err(TooManyBlocks) => Err(full()),
        }
    }

    /// Ends a block, if there is one.
    pub async fn unblock(&self, caller: &Caller, name: &Subject) -> Result<(), ConversationError> {
        let mut tx = self.pool().begin().await?;
        let Some(blocked) = users::id(&mut tx, name).await? else {
            return Ok(());
        };
        if blocked != caller.user {
            blocks::unblock(&mut tx, caller.user, blocked).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The users that the caller blocks, at most `limit`, after the last one of the page before.
    pub async fn blocks(
        &self,
        caller: &Caller,
        after: Option<&Subject>,
        limit: usize,
    ) -> Result<BlockPage, ConversationError> {
        let mut conn = self.pool().acquire().await?;
        let after = match after {
            None => NOBODY,
            // Only of the list: whether there is a user of another name is nobody's business.
            Some(name) => blocks::blocked(&mut conn, caller.user, name)
                .await?
                .ok_or_else(|| {
                    let detail = "`after` is the `next_after` of the page before, whom you block";
                    ConversationError::Invalid(detail.to_owned())
                })?,
        };
        // One more than wanted says whether there is more.
        let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut page = blocks::list(&mut conn, caller.user, after, one_more).await?;
        let has_more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| has_more);
        let next_after = last.map(|block| block.name.clone());
        let shown = |block: blocks::Block| BlockShown {
            user: block.name,
            since: block.since_millis,
        };
        Ok(BlockPage {
            blocks: page.into_iter().map(shown).collect(),
            next_after,
        })
    }
}
