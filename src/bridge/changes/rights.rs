//! Who may change what of a conversation.
//!
//! ```text
//!                                          owner   admin                      member   readonly
//!   add, remove, silence, change roles     all     members and readonly       –        –
//!   make somebody                          all     admin, member, readonly    –        –
//!   title, archive, settings               yes     yes                        –        –
//!   hand over the part of others           all     members and readonly       –        –
//!   hand over one's own part, leave        yes     yes                        yes      yes
//! ```
//!
//! Everybody may lower their own role. The admin scope of a token is as good as owning every
//! conversation, without taking part in it.
//!
//! A group in which somebody takes part keeps an owner. The two of a direct conversation are
//! equals: they change its settings, but neither who takes part nor who may do what. Who is
//! blocked there changes nothing, and an archived group is not handed over. Who may not write
//! hands their own part over without a note, and whoever comes may not write either.

use super::{Change, Until, User, What};
use crate::{
    bridge::{Refusal, conversations::ConversationError},
    domain::{
        change::{ConversationNotice, SettingsNotice},
        ids::UserId,
        problem::ProblemKind,
    },
    store::{
        conversations::{Kind, Role},
        members::{Locked, Part, Settings},
    },
};

const DIRECT: &str = "a direct conversation stays between its two; archive it or block the other \
                      one, or create a group";

/// What is to be changed of the settings: none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    pub title: Option<Option<String>>,
    pub archived: Option<bool>,
    pub receipts: Option<bool>,
    pub history_depth: Option<Option<i64>>,
    pub retention_seconds: Option<Option<i64>>,
}

/// What is done to the store.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Add {
        users: Vec<&'a User>,
        role: Role,
    },
    SetRole {
        user: &'a User,
        role: Role,
    },
    Remove {
        user: &'a User,
    },
    Silence {
        user: &'a User,
        until: Option<Until>,
    },
    Transfer {
        from: Vec<&'a User>,
        to: Vec<&'a User>,
        note: Option<&'a str>,
        role: Role,
        history_depth: Option<i64>,
        visible_from: i64,
    },
    Set {
        settings: Settings,
        notice: ConversationNotice,
    },
}

impl<'a> Step<'a> {
    /// The users who come by it.
    pub(super) fn comers(&self) -> &[&'a User] {
        match self {
            Self::Add { users, .. } | Self::Transfer { to: users, .. } => users,
            _ => &[],
        }
    }
}

type Judgement<'a> = Result<Option<Step<'a>>, ConversationError>;

/// Who asks, and as what.
#[derive(Clone, Copy, Debug)]
pub(in crate::bridge) struct Actor {
    pub user: UserId,
    /// None if the user does not take part.
    pub role: Option<Role>,
    pub is_admin: bool,
}

impl Actor {
    fn owns(self) -> bool {
        self.is_admin || self.role == Some(Role::Owner)
    }

    pub(in crate::bridge) fn manages(self) -> bool {
        self.owns() || self.role == Some(Role::Admin)
    }

    /// May decide over somebody of that role, or give it.
    fn is_above(self, role: Role) -> bool {
        self.owns() || (self.manages() && matches!(role, Role::Member | Role::Readonly))
    }

    fn gives(self, role: Role) -> bool {
        self.owns() || (self.manages() && role != Role::Owner)
    }
}

/// What the change comes to; none if it is so already.
pub(super) fn judge<'a>(
    locked: &Locked,
    change: &'a Change,
    participants_max: usize,
) -> Judgement<'a> {
    let caller = &change.caller;
    let actor = Actor {
        user: caller.user,
        role: locked.present(caller.user).map(|part| part.role),
        is_admin: caller.is_admin,
    };
    let took_part = locked.part(actor.user).is_some();
    if actor.role.is_none() && !actor.is_admin {
        return match &change.what {
            // Who has gone may repeat what made them go.
            What::Remove { user } if took_part && user.0 == actor.user => Ok(None),
            What::Transfer { from, to, .. } if took_part && is_done(locked, from, to) => Ok(None),
            _ => Err(ConversationError::NotFound),
        };
    }
    if locked.kind == Kind::Direct && !matches!(change.what, What::Set(_)) {
        return Err(ConversationError::Conflict(DIRECT));
    }
    match &change.what {
        What::Put { user, role } => put(locked, actor, user, *role, participants_max),
        What::Add { users, role } => add(locked, actor, users, *role, participants_max),
        What::Remove { user } => remove(locked, actor, user),
        What::Silence { user, until } => silence(locked, actor, user, *until),
        What::Transfer {
            from,
            to,
            note,
            history_depth,
        } => {
            let mut step = transfer(locked, actor, from, to, participants_max)?;
            if step.is_some() && note.is_some() {
                writes(locked, actor)?;
            }
            if let Some(Step::Transfer {
                note: says,
                history_depth: depth,
                ..
            }) = &mut step
            {
                (*says, *depth) = (note.as_deref(), *history_depth);
            }
            Ok(step)
        }
        What::Set(wanted) => set(locked, actor, wanted),
    }
}

fn put<'a>(
    locked: &Locked,
    actor: Actor,
    user: &'a User,
    role: Option<Role>,
    participants_max: usize,
) -> Judgement<'a> {
    let Some(part) = locked.present(user.0) else {
        return add(
            locked,
            actor,
            std::slice::from_ref(user),
            role,
            participants_max,
        );
    };
    let is_own = user.0 == actor.user;
    if !is_own {
        manages(actor)?;
    }
    let role = match role {
        Some(role) if role != part.role => role,
        _ => return Ok(None),
    };
    if !(is_own && rank(role) < rank(part.role)) {
        manages(actor)?;
        above(actor, part.role)?;
        gives(actor, role)?;
    }
    let owner = |role| i64::from(role == Role::Owner);
    keep_owner(
        locked,
        locked.present,
        locked.owners + owner(role) - owner(part.role),
    )?;
    Ok(Some(Step::SetRole { user, role }))
}

fn add<'a>(
    locked: &Locked,
    actor: Actor,
    users: &'a [User],
    role: Option<Role>,
    participants_max: usize,
) -> Judgement<'a> {
    manages(actor)?;
    // The first one in an empty group owns it.
    let usual = if locked.present == 0 {
        Role::Owner
    } else {
        Role::Member
    };
    let role = role.unwrap_or(usual);
    gives(actor, role)?;
    let is_absent = |user: &&User| locked.present(user.0).is_none();
    let users: Vec<_> = users.iter().filter(is_absent).collect();
    if users.is_empty() {
        return Ok(None);
    }
    let added = count(users.len());
    has_room(locked.present + added, participants_max)?;
    let owners = if role == Role::Owner { added } else { 0 };
    keep_owner(locked, locked.present + added, locked.owners + owners)?;
    Ok(Some(Step::Add { users, role }))
}

fn remove<'a>(locked: &Locked, actor: Actor, user: &'a User) -> Judgement<'a> {
    let is_own = user.0 == actor.user;
    if !is_own {
        manages(actor)?;
    }
    let Some(part) = locked.present(user.0) else {
        return Ok(None);
    };
    if !is_own {
        above(actor, part.role)?;
    }
    let owners = locked.owners - i64::from(part.role == Role::Owner);
    keep_owner(locked, locked.present - 1, owners)?;
    Ok(Some(Step::Remove { user }))
}

fn silence<'a>(
    locked: &Locked,
    actor: Actor,
    user: &'a User,
    until: Option<Until>,
) -> Judgement<'a> {
    manages(actor)?;
    let Some(part) = locked.present(user.0) else {
        return Err(ConversationError::Refused(
            ProblemKind::NotFound,
            format!("{} does not take part in this conversation", user.1),
        ));
    };
    above(actor, part.role)?;
    if matches!(part.role, Role::Owner | Role::Admin) {
        return Err(ConversationError::Conflict(
            "owners and admins are not silenced; change the role first",
        ));
    }
    if part.silenced == until {
        return Ok(None);
    }
    Ok(Some(Step::Silence { user, until }))
}

fn transfer<'a>(
    locked: &Locked,
    actor: Actor,
    from: &'a [User],
    to: &'a [User],
    participants_max: usize,
) -> Judgement<'a> {
    if is_done(locked, from, to) {
        return Ok(None);
    }
    if locked.settings.is_archived {
        return Err(Refusal::Archived.into());
    }
    let going: Vec<&Part> = from
        .iter()
        .map(|user| {
            locked.present(user.0).ok_or_else(|| {
                let reason = format!("{} does not take part in this conversation", user.1);
                ConversationError::Refused(ProblemKind::Conflict, reason)
            })
        })
        .collect::<Result<_, _>>()?;
    for part in &going {
        if part.user != actor.user {
            manages(actor)?;
            above(actor, part.role)?;
        }
    }
    if let Some(user) = to.iter().find(|user| locked.present(user.0).is_some()) {
        let reason = format!("{} takes part already", user.1);
        return Err(ConversationError::Refused(ProblemKind::Conflict, reason));
    }
    let role = going
        .iter()
        .map(|part| part.role)
        .max_by_key(|role| rank(*role));
    let visible_from = going.iter().map(|part| part.visible_from).min();
    let (Some(role), Some(visible_from)) = (role, visible_from) else {
        return Err(ConversationError::Invalid("`from` names nobody".to_owned()));
    };
    has_room(
        locked.present + count(to.len()) - count(going.len()),
        participants_max,
    )?;
    Ok(Some(Step::Transfer {
        from: from.iter().collect(),
        to: to.iter().collect(),
        note: None,
        role,
        history_depth: None,
        visible_from,
    }))
}

/// Those who were to go left with the entry with which those who were to come joined.
fn is_done(locked: &Locked, from: &[User], to: &[User]) -> bool {
    let left = from.first().and_then(|user| locked.part(user.0)?.left);
    left.is_some()
        && from
            .iter()
            .all(|user| locked.part(user.0).is_some_and(|part| part.left == left))
        && to.iter().all(|user| {
            locked
                .present(user.0)
                .is_some_and(|part| Some(part.joined) == left)
        })
}

fn set<'a>(locked: &Locked, actor: Actor, wanted: &SettingsChange) -> Judgement<'a> {
    if locked.kind == Kind::Direct {
        let is_blocked = |part: &Part| part.is_blocked && !actor.is_admin;
        if locked.present(actor.user).is_some_and(is_blocked) {
            return Err(Refusal::Blocked.into());
        }
        if wanted.archived.is_some() {
            return Err(ConversationError::Conflict(
                "a direct conversation is not closed; archive it in your inbox, or block the other one",
            ));
        }
    } else if !actor.manages() {
        return Err(ConversationError::Forbidden(
            "only an owner or an admin of the conversation changes it",
        ));
    }
    let mut settings = locked.settings.clone();
    let changed = SettingsNotice {
        title: differs(&mut settings.title, wanted.title.as_ref()),
        archived: differs(&mut settings.is_archived, wanted.archived.as_ref()),
        receipts: differs(&mut settings.receipts, wanted.receipts.as_ref()),
        history_depth: differs(&mut settings.history_depth, wanted.history_depth.as_ref()),
        retention_seconds: differs(
            &mut settings.retention_seconds,
            wanted.retention_seconds.as_ref(),
        ),
    };
    Ok(changed
        .notice()
        .map(|notice| Step::Set { settings, notice }))
}

/// Takes over what is wanted, and answers it if it is another value.
fn differs<T: Clone + PartialEq>(now: &mut T, wanted: Option<&T>) -> Option<T> {
    let wanted = wanted.filter(|wanted| *wanted != now)?;
    *now = wanted.clone();
    Some(wanted.clone())
}

fn manages(actor: Actor) -> Result<(), ConversationError> {
    if actor.manages() {
        return Ok(());
    }
    Err(ConversationError::Forbidden(
        "only an owner or an admin of the conversation changes its participants",
    ))
}

/// A note is read by all, as a message is.
fn writes(locked: &Locked, actor: Actor) -> Result<(), ConversationError> {
    match locked.present(actor.user) {
        _ if actor.is_admin => Ok(()),
        Some(part) if part.role == Role::Readonly => Err(ConversationError::Forbidden(
            "you may read this conversation, not write to it: hand over without a note",
        )),
        Some(part) if part.silenced.is_some() => Err(ConversationError::Refused(
            ProblemKind::Silenced,
            format!("{}: hand over without a note", Refusal::Silenced),
        )),
        _ => Ok(()),
    }
}

fn above(actor: Actor, role: Role) -> Result<(), ConversationError> {
    if actor.is_above(role) {
        return Ok(());
    }
    Err(ConversationError::Forbidden(
        "only an owner decides over an owner or an admin",
    ))
}

fn gives(actor: Actor, role: Role) -> Result<(), ConversationError> {
    if actor.gives(role) {
        return Ok(());
    }
    Err(ConversationError::Forbidden(
        "only an owner makes another owner",
    ))
}

fn has_room(participants: i64, participants_max: usize) -> Result<(), ConversationError> {
    if participants <= count(participants_max) {
        return Ok(());
    }
    Err(ConversationError::Refused(
        ProblemKind::Full,
        format!("the conversation is full: it may have {participants_max} participants"),
    ))
}

/// A group that has an owner keeps one, and an empty one begins with one.
fn keep_owner(locked: &Locked, present: i64, owners: i64) -> Result<(), ConversationError> {
    let had_owner = locked.owners > 0 || locked.present == 0;
    if present > 0 && owners <= 0 && had_owner {
        return Err(ConversationError::Refused(
            ProblemKind::LastOwner,
            "the group would be left without an owner; make somebody else an owner first"
                .to_owned(),
        ));
    }
    Ok(())
}

const fn rank(role: Role) -> u8 {
    match role {
        Role::Owner => 3,
        Role::Admin => 2,
        Role::Member => 1,
        Role::Readonly => 0,
    }
}

fn count(users: usize) -> i64 {
    i64::try_from(users).unwrap_or(i64::MAX)
}
