//! Who comes and goes, and who decides it.

use super::{Bridge, Caller, ConversationError, MembershipChange};
use crate::{
    domain::{
        ids::{ConversationId, Subject, UserId},
        message::Sequence,
    },
    store::{
        conversations::{Kind, Role},
        view::View,
    },
};

impl Bridge {
    /// Adds a participant, as a member unless a role is given. Answers the sequence of the
    /// entry that says so, or nothing if the user takes part already.
    pub async fn add_participant(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        name: Subject,
        role: Option<Role>,
    ) -> Result<Option<Sequence>, ConversationError> {
        let view = self.managed(caller, conversation).await?;
        let wanted = role.unwrap_or(Role::Member);
        if wanted == Role::Owner && !owns(caller, &view) {
            return Err(ConversationError::Forbidden(
                "only an owner makes another owner",
            ));
        }
        let target = self.look(conversation, &name).await?;
        if let Some(present) = target.role() {
            return match role {
                Some(role) if role != present => Err(ConversationError::Conflict(
                    "the user takes part with another role; remove them first",
                )),
                _ => Ok(None),
            };
        }
        if view.kind == Kind::Direct && target.participation.is_none() {
            return Err(ConversationError::Conflict(
                "a direct conversation is between two; create a group instead",
            ));
        }
        let user = self.user(&name).await?;
        self.change(caller, conversation, (user, name), Some(wanted))
            .await
    }

    /// Removes a participant: anybody themself, owners and admins also others. Answers the
    /// sequence of the entry that says so, or nothing if the user does not take part.
    pub async fn remove_participant(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        name: Subject,
    ) -> Result<Option<Sequence>, ConversationError> {
        if name == caller.subject {
            let view = self.visible(caller, conversation).await?;
            return match view.current() {
                Some(_) => {
                    self.change(caller, conversation, (caller.user, name), None)
                        .await
                }
                None => Ok(None),
            };
        }
        let view = self.managed(caller, conversation).await?;
        let Some(target) = self.look(conversation, &name).await?.current() else {
            return Ok(None);
        };
        if target.role == Role::Owner && !owns(caller, &view) {
            return Err(ConversationError::Forbidden(
                "only an owner removes an owner",
            ));
        }
        self.change(caller, conversation, (target.user, name), None)
            .await
    }

    /// For those who may add and remove others.
    async fn managed(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<View, ConversationError> {
        let view = self.look(conversation, &caller.subject).await?;
        match view.role() {
            _ if caller.is_admin => Ok(view),
            Some(Role::Owner | Role::Admin) => Ok(view),
            Some(Role::Member | Role::Readonly) => Err(ConversationError::Forbidden(
                "only an owner or an admin of the conversation changes its participants",
            )),
            None => Err(ConversationError::NotFound),
        }
    }

    async fn change(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        (user_id, user): (UserId, Subject),
        role: Option<Role>,
    ) -> Result<Option<Sequence>, ConversationError> {
        let change = MembershipChange {
            conversation,
            user,
            user_id,
            role,
            actor: caller.subject.clone(),
            actor_id: caller.user,
        };
        Ok(self.change_membership(change).await?)
    }
}

fn owns(caller: &Caller, view: &View) -> bool {
    caller.is_admin || view.role() == Some(Role::Owner)
}
