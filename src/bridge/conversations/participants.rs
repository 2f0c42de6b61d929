//! Who comes and goes, and with which role. Whether the caller may is judged by the writer;
//! what is asked before only keeps strangers from making users.

use super::{Bridge, Caller, Change, Condition, ConversationError, User, What};
use crate::{
    domain::{
        change::Until,
        ids::{ConversationId, Subject},
        message::Sequence,
        problem::ProblemKind,
    },
    store::{
        conversations::{Kind, Role},
        users::{self, NOBODY},
        view::View,
    },
};

/// The most users that one request adds.
pub const ADDED_MAX: usize = 1000;
/// The most users on either side of a transfer.
pub const HANDED_OVER_MAX: usize = 100;

impl Bridge {
    /// Adds a participant, as a member unless a role is given, or gives a participant another
    /// role. Answers the sequence of the entry that says so, or nothing if it is so already.
    pub async fn add_participant(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        name: Subject,
        role: Option<Role>,
        condition: Option<&Condition>,
    ) -> Result<Option<Sequence>, ConversationError> {
        if name != caller.subject {
            self.managed(caller, conversation).await?;
        }
        let put = |mut users: Vec<User>| What::Put {
            user: users.remove(0),
            role,
        };
        self.ask_for(caller, conversation, vec![name], put, condition)
            .await
    }

    /// Adds those of the users who do not take part, all with the same role, at one entry.
    pub async fn add_participants(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        names: Vec<Subject>,
        role: Option<Role>,
    ) -> Result<Option<Sequence>, ConversationError> {
        self.managed(caller, conversation).await?;
        let names = distinct(names, ADDED_MAX)?;
        let add = |users| What::Add { users, role };
        self.ask_for(caller, conversation, names, add, None).await
    }

    /// Removes a participant: anybody themself, owners and admins also others. Answers the
    /// sequence of the entry that says so, or nothing if the user does not take part.
    pub async fn remove_participant(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        name: Subject,
        condition: Option<&Condition>,
    ) -> Result<Option<Sequence>, ConversationError> {
        let user = if name == caller.subject {
            caller.user
        } else {
            self.managed(caller, conversation).await?;
            match self.look(conversation, &name).await?.participation {
                Some(participation) => participation.user,
                None => return Ok(None),
            }
        };
        let user = (user, name);
        self.ask_if(caller, conversation, What::Remove { user }, condition)
            .await
    }

    /// Takes the word from a participant until then, or gives it back.
    pub async fn silence_participant(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        name: Subject,
        until: Option<Until>,
    ) -> Result<Option<Sequence>, ConversationError> {
        self.managed(caller, conversation).await?;
        let Some(participation) = self.look(conversation, &name).await?.participation else {
            return Err(ConversationError::Refused(
                ProblemKind::NotFound,
                format!("{name} does not take part in this conversation"),
            ));
        };
        let user = (participation.user, name);
        self.ask(caller, conversation, What::Silence { user, until })
            .await
    }

    /// Users by their names; nobody is made.
    pub(super) async fn known(&self, names: Vec<Subject>) -> Result<Vec<User>, ConversationError> {
        let mut conn = self.pool().acquire().await?;
        let ids = users::known(&mut conn, &names).await?;
        Ok(ids.into_iter().zip(names).collect())
    }

    /// Asks for a change by which users come. Those who do not exist yet are made when it is
    /// certain that it would be granted.
    pub(super) async fn ask_for(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        comers: Vec<Subject>,
        what: impl Fn(Vec<User>) -> What,
        condition: Option<&Condition>,
    ) -> Result<Option<Sequence>, ConversationError> {
        let mut users = self.known(comers).await?;
        if users.iter().any(|(user, _)| *user == NOBODY) {
            let change = Change {
                conversation,
                caller: caller.clone(),
                what: what(users.clone()),
                condition: condition.cloned(),
            };
            self.would_change(&change).await?;
            let names: Vec<_> = users.into_iter().map(|(_, name)| name).collect();
            let mut conn = self.pool().acquire().await?;
            let ids = users::ensure(&mut conn, &names).await?;
            users = ids.into_iter().zip(names).collect();
        }
        self.ask_if(caller, conversation, what(users), condition)
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
            // In a direct conversation what is asked contradicts what it is.
            Some(_) if view.kind == Kind::Direct => Ok(view),
            Some(Role::Member | Role::Readonly) => Err(ConversationError::Forbidden(
                "only an owner or an admin of the conversation changes its participants",
            )),
            None => Err(ConversationError::NotFound),
        }
    }

    pub(super) async fn ask(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        what: What,
    ) -> Result<Option<Sequence>, ConversationError> {
        self.ask_if(caller, conversation, what, None).await
    }

    pub(super) async fn ask_if(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        what: What,
        condition: Option<&Condition>,
    ) -> Result<Option<Sequence>, ConversationError> {
        self.change(Change {
            conversation,
            caller: caller.clone(),
            what,
            condition: condition.cloned(),
        })
        .await
    }
}

/// Names, each once, in their order.
pub(super) fn distinct(
    mut names: Vec<Subject>,
    users_max: usize,
) -> Result<Vec<Subject>, ConversationError> {
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    if names.is_empty() || names.len() > users_max {
        return Err(ConversationError::Invalid(format!(
            "name 1 to {users_max} users at once"
        )));
    }
    Ok(names)
}
