//! A live conversation changes hands: some go and others come, at one entry.

use super::{
    Bridge, Caller, ConversationError, What,
    create::check_depth,
    participants::{HANDED_OVER_MAX, distinct},
};
use crate::domain::{
    ids::{ConversationId, Subject},
    message::Sequence,
};

/// The longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 1024;

/// Who hands over to whom.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// Who go; the caller if nobody is named.
    pub from: Option<Vec<Subject>>,
    /// Who come, with the highest role of those who go.
    pub to: Vec<Subject>,
    /// For those who stay and those who come.
    pub note: Option<String>,
    /// How many entries before it those who come may see; none is all that those who go could.
    pub history_depth: Option<i64>,
}

impl Bridge {
    /// Hands the part of some participants over to others. Anybody hands over their own part;
    /// owners and admins also that of others. Answers the sequence of the entry that says so,
    /// the last one of those who go and the first one that is delivered to those who come;
    /// nothing if it is so already.
    pub async fn transfer(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        transfer: Transfer,
    ) -> Result<Option<Sequence>, ConversationError> {
        let Transfer {
            from,
            to,
            note,
            history_depth,
        } = transfer;
        if note
            .as_ref()
            .is_some_and(|note| note.len() > NOTE_BYTES_MAX)
        {
            return Err(ConversationError::Invalid(format!(
                "a note has at most {NOTE_BYTES_MAX} bytes"
            )));
        }
        if let Some(depth) = history_depth {
            check_depth(depth)?;
        }
        let from = from.unwrap_or_else(|| vec![caller.subject.clone()]);
        if let Some(name) = from.iter().find(|name| to.contains(name)) {
            return Err(ConversationError::Invalid(format!(
                "{name} stands on both sides"
            )));
        }
        let view = self.look(conversation, &caller.subject).await?;
        if view.participation.is_none() && !caller.is_admin {
            return Err(ConversationError::NotFound);
        }
        let from = self.known(distinct(from, HANDED_OVER_MAX)?).await?;
        let to = distinct(to, HANDED_OVER_MAX)?;
        let what = |to| What::Transfer {
            from: from.clone(),
            to,
            note: note.clone(),
            history_depth,
        };
        self.ask_for(caller, conversation, to, what, None).await
    }
}
