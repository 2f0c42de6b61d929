//! Conversations change through their writer, so that the entry that says so is told in its
//! place: rights switch at a sequence.
//!
//! ```text
//!   request ──▶ lock the conversation ──▶ judge (`rights`) ──▶ entry and rows ──▶ commit ──▶ notices
//! ```
//!
//! A change is judged under the lock: of two that together would leave a group without an
//! owner, the second one is refused.

pub(super) mod rights;

use sqlx::{Connection as _, PgConnection};
use tokio::sync::oneshot;

use super::{
    accept::{Work, Writer},
    batch::Commit,
    condition::Condition,
    conversations::{self, Caller, ConversationError},
};
use crate::{
    domain::{
        change::Until,
        ids::{ConversationId, Subject, UserId},
        message::Sequence,
        problem::ProblemKind,
    },
    store::{
        StoreError, blocks,
        conversations::Role,
        entries::Written,
        members::{self, Handover, Locked, Named},
    },
};
use rights::Step;

pub use rights::SettingsChange;

/// A user, and the name of the user.
pub(super) type User = (UserId, Subject);

/// What somebody wants to change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub conversation: ConversationId,
    pub caller: Caller,
    pub what: What,
    /// Judged by what the caller is shown of what is changed.
    pub condition: Option<Condition>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// The user takes part, with that role if it is said.
    Put {
        user: User,
        role: Option<Role>,
    },
    /// Those of the users who do not take part, do.
    Add {
        users: Vec<User>,
        role: Option<Role>,
    },
    Remove {
        user: User,
    },
    Silence {
        user: User,
        until: Option<Until>,
    },
    Transfer {
        from: Vec<User>,
        to: Vec<User>,
        note: Option<String>,
        /// How many entries before they may see; none is all that those who go could see.
        history_depth: Option<i64>,
    },
    Set(SettingsChange),
}

/// A change, and who waits for it.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    change: Change,
    reply: oneshot::Sender<Changed>,
}

/// The sequence of the entry that says so; nothing if it was so already.
pub(super) type Changed = Result<Option<Sequence>, ConversationError>;

impl What {
    /// The users whose part it concerns.
    fn users(&self) -> Vec<UserId> {
        let ids = |users: &[User]| users.iter().map(|user| user.0).collect::<Vec<_>>();
        match self {
            Self::Put { user, .. } | Self::Remove { user } | Self::Silence { user, .. } => {
                vec![user.0]
            }
            Self::Add { users, .. } => ids(users),
            Self::Transfer { from, to, .. } => [ids(from), ids(to)].concat(),
            Self::Set(_) => Vec::new(),
        }
    }
}

impl super::Bridge {
    /// Changes a conversation, and waits for the commit.
    pub(super) async fn change(&self, change: Change) -> Changed {
        let (reply, answer) = oneshot::channel();
        let conversation = change.conversation;
        let request = ChangeRequest { change, reply };
        self.0
            .writers
            .send(conversation, Work::Change(Box::new(request)))
            .await;
        answer.await.unwrap_or(Err(ConversationError::Unavailable))
    }

    /// Refuses what would be refused now, and changes nothing.
    pub(super) async fn would_change(&self, change: &Change) -> Result<(), ConversationError> {
        let mut tx = self.pool().begin().await?;
        let judged = judge(&mut tx, change, self.participants_max()).await;
        let judged = judged.map(|_| ());
        tx.rollback().await?;
        judged
    }
}

impl Writer {
    pub(super) async fn change(&mut self, request: ChangeRequest) {
        let ChangeRequest { change, reply } = request;
        let result = loop {
            match self.try_change(&change).await {
                Err(ConversationError::Store(error))
                    if error.is_transient() && self.database.retry_after(&error).await => {}
                other => break other,
            }
        };
        let answer = match result {
            Ok(Some(written)) => {
                let sequence = written.sequence();
                let commit = Commit {
                    conversation: change.conversation,
                    from: sequence.get(),
                    to: sequence.get(),
                    entries: vec![written.entry],
                    members_version: written.members_version,
                };
                self.told.commits(&mut self.database, vec![commit]).await;
                Ok(Some(sequence))
            }
            // After a lost attempt this may be its result; the outbox tells of it then.
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        // Whoever asked may have gone; the change stands all the same.
        drop(reply.send(answer));
    }

    async fn try_change(&mut self, change: &Change) -> Result<Option<Written>, ConversationError> {
        let max = self.participants_max;
        let mut tx = self.database.conn().await?.begin().await?;
        let written = judge_and_apply(&mut tx, change, max).await;
        match &written {
            Ok(Some(_)) => tx.commit().await?,
            // At once: left to the next use of the connection, it would hold its locks until then.
            Ok(None) | Err(_) => tx.rollback().await?,
        }
        self.database.worked();
        written
    }
}

async fn judge_and_apply(
    conn: &mut PgConnection,
    change: &Change,
    participants_max: usize,
) -> Result<Option<Written>, ConversationError> {
    let Some((locked, step)) = judge(conn, change, participants_max).await? else {
        return Ok(None);
    };
    Ok(Some(apply(conn, &locked, step, &change.caller).await?))
}

/// What the change comes to, and for which conversation; none if it is so already.
async fn judge<'a>(
    conn: &mut PgConnection,
    change: &'a Change,
    participants_max: usize,
) -> Result<Option<(Locked, Step<'a>)>, ConversationError> {
    let mut users = change.what.users();
    users.push(change.caller.user);
    let Some(locked) = members::lock(conn, change.conversation, &users).await? else {
        return Err(ConversationError::NotFound);
    };
    if let Some(condition) = &change.condition {
        condition.check(shown(conn, change).await?.as_deref())?;
    }
    let Some(step) = rights::judge(&locked, change, participants_max)? else {
        return Ok(None);
    };
    refuse_blocked(conn, &change.caller, step.comers()).await?;
    Ok(Some((locked, step)))
}

/// What the caller is shown of what is to be changed: as GET of the same path answers it.
async fn shown(
    conn: &mut PgConnection,
    change: &Change,
) -> Result<Option<String>, ConversationError> {
    let (caller, conversation) = (&change.caller, change.conversation);
    let shown = match &change.what {
        What::Set(_) => conversations::conversation(conn, caller, conversation)
            .await
            .map(|shown| serde_json::to_string(&shown)),
        What::Put { user, .. } | What::Remove { user } => {
            conversations::participant(conn, caller, conversation, &user.1)
                .await
                .map(|shown| serde_json::to_string(&shown))
        }
        What::Add { .. } | What::Silence { .. } | What::Transfer { .. } => return Ok(None),
    };
    match shown {
        Ok(json) => Ok(Some(json.map_err(StoreError::corrupt)?)),
        Err(ConversationError::Store(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Who has blocked the caller is brought nowhere by them.
pub(super) async fn refuse_blocked(
    conn: &mut PgConnection,
    caller: &Caller,
    comers: &[&User],
) -> Result<(), ConversationError> {
    if caller.is_admin || comers.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = comers.iter().map(|user| user.0).collect();
    let blockers = blocks::who_blocked(conn, &ids, caller.user).await?;
    let mut named = comers.iter().filter(|user| blockers.contains(&user.0));
    match named.next() {
        None => Ok(()),
        Some((_, name)) => Err(ConversationError::Refused(
            ProblemKind::Blocked,
            format!("{name} has blocked you; somebody else may add them"),
        )),
    }
}

async fn apply(
    conn: &mut PgConnection,
    locked: &Locked,
    step: Step<'_>,
    caller: &Caller,
) -> Result<Written, StoreError> {
    let actor = (caller.user, &caller.subject);
    match step {
        Step::Add { users, role } => members::add(conn, locked, &named(&users), role, actor).await,
        Step::SetRole { user, role } => {
            members::set_role(conn, locked, (user.0, &user.1), role, actor).await
        }
        Step::Remove { user } => members::remove(conn, locked, (user.0, &user.1), actor).await,
        Step::Silence { user, until } => {
            members::silence(conn, locked, (user.0, &user.1), until, actor).await
        }
        Step::Transfer {
            from,
            to,
            note,
            role,
            history_depth,
            visible_from,
        } => {
            let handover = Handover {
                from: named(&from),
                to: named(&to),
                role,
                note,
                history_depth,
                visible_from,
            };
            members::transfer(conn, locked, &handover, actor).await
        }
        Step::Set { settings, notice } => {
            members::set_settings(conn, locked, &settings, &notice, actor).await
        }
    }
}

fn named<'a>(users: &[&'a User]) -> Vec<Named<'a>> {
    users.iter().map(|user| (user.0, &user.1)).collect()
}
