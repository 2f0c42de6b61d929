//! A new conversation.

use std::collections::HashSet;

use super::{Bridge, Caller, ConversationError};
use crate::{
    domain::ids::{ConversationId, Subject},
    store::{
        conversations::{self, Kind, NewConversation, Role},
        users,
    },
};

/// The longest title, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// What a direct conversation consists of.
const DIRECT_PARTICIPANTS: usize = 2;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// With or without the creator.
    pub participants: Vec<Subject>,
    pub title: Option<String>,
    /// If it is not said: direct for two participants without a title, otherwise a group.
    pub kind: Option<Kind>,
    /// Of a request that may come again: if there is such a conversation, it is the answer.
    pub id: Option<ConversationId>,
}

impl Bridge {
    /// Creates a conversation. A user owns what they create and takes part in it; an
    /// administrator creates for others, and the first of them owns it.
    pub async fn create_conversation(
        &self,
        caller: &Caller,
        creation: Creation,
    ) -> Result<ConversationId, ConversationError> {
        if creation
            .title
            .as_deref()
            .is_some_and(|title| !is_title(title))
        {
            return Err(invalid(format!(
                "a title has 1 to {TITLE_BYTES_MAX} bytes without control characters"
            )));
        }
        let names = self.founders(caller, creation.participants)?;
        let kind = kind(creation.kind, names.len(), creation.title.is_some())?;

        let mut tx = self.pool().begin().await?;
        if let Some(id) = creation.id
            && conversations::exists(&mut tx, id).await?
        {
            return Ok(id);
        }
        let users = users::ensure(&mut tx, &names).await?;
        let roles = std::iter::once(Role::Owner).chain(std::iter::repeat(Role::Member));
        let new = NewConversation {
            id: creation.id.unwrap_or_else(ConversationId::random),
            kind,
            title: creation.title,
            participants: users.into_iter().zip(roles).collect(),
        };
        conversations::create(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(new.id)
    }

    /// The first participants, each once, the owner first.
    fn founders(
        &self,
        caller: &Caller,
        named: Vec<Subject>,
    ) -> Result<Vec<Subject>, ConversationError> {
        let creator = (!caller.is_admin).then(|| caller.subject.clone());
        let mut known = HashSet::with_capacity(named.len() + 1);
        let founders: Vec<Subject> = creator
            .into_iter()
            .chain(named)
            .filter(|name| known.insert(name.clone()))
            .collect();
        let participants_max = self.participants_max();
        match founders.len() {
            0 => Err(invalid("a conversation needs participants".to_owned())),
            count if count > participants_max => Err(invalid(format!(
                "{count} participants are too many, {participants_max} are allowed"
            ))),
            _ => Ok(founders),
        }
    }
}

fn kind(
    asked: Option<Kind>,
    participants: usize,
    has_title: bool,
) -> Result<Kind, ConversationError> {
    let is_pair = participants == DIRECT_PARTICIPANTS;
    match asked {
        Some(Kind::Direct) if !is_pair => Err(invalid(
            "a direct conversation has exactly two participants".to_owned(),
        )),
        Some(kind) => Ok(kind),
        None if is_pair && !has_title => Ok(Kind::Direct),
        None => Ok(Kind::Group),
    }
}

fn is_title(text: &str) -> bool {
    (1..=TITLE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

fn invalid(reason: String) -> ConversationError {
    ConversationError::Invalid(reason)
}
