//! A new conversation.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::{Bridge, Caller, ConversationError, User};
use crate::{
    bridge::changes::refuse_blocked,
    domain::{
        ids::{ConversationId, Subject, UserId},
        problem::ProblemKind,
    },
    store::{
        blocks,
        conversations::{self, Kind, NewConversation, Role},
        direct, users,
    },
};

/// The longest title, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// The largest depth that is a number: as good as everything.
const HISTORY_DEPTH_MAX: i64 = 1_000_000_000;
/// What a direct conversation consists of.
const DIRECT_PARTICIPANTS: usize = 2;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// With or without the creator.
    pub participants: Vec<Subject>,
    /// Of some of them; the creator owns the conversation, and others are members.
    pub roles: HashMap<Subject, Role>,
    pub title: Option<String>,
    /// If it is not said: direct for two participants without a title, otherwise a group.
    pub kind: Option<Kind>,
    /// Of a request that may come again: if there is such a conversation, it is the answer.
    pub id: Option<ConversationId>,
    /// How many entries before their beginning newcomers may see, none is all of them; as
    /// configured if it is not said.
    pub history_depth: Option<Option<i64>>,
}

/// What became of a [`Creation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: ConversationId,
    /// False: the two had their direct conversation already.
    pub is_new: bool,
}

impl Bridge {
    /// Creates a conversation. A user owns what they create and takes part in it; an
    /// administrator creates for others, and the first of them owns it. Two users have one
    /// direct conversation, which nobody owns: whoever creates it again is led to it.
    pub async fn create_conversation(
        &self,
        caller: &Caller,
        creation: Creation,
    ) -> Result<Created, ConversationError> {
        check_title(creation.title.as_deref())?;
        if let Some(Some(depth)) = creation.history_depth {
            check_depth(depth)?;
        }
        let names = self.founders(caller, creation.participants)?;
        let kind = kind(creation.kind, names.len(), creation.title.is_some())?;
        let roles = roles(kind, &names, &creation.roles)?;

        let mut tx = self.pool().begin().await?;
        if let Some(id) = creation.id
            && conversations::exists(&mut tx, id).await?
        {
            return Ok(Created { id, is_new: true });
        }
        let ids = users::ensure(&mut tx, &names).await?;
        let id = creation.id.unwrap_or_else(ConversationId::random);
        if let (Kind::Direct, &[one, other]) = (kind, &ids[..]) {
            if let Some(id) = direct::find_or_claim(&mut tx, one, other, id).await? {
                return Ok(Created { id, is_new: false });
            }
            refuse_blocked_pair(&mut tx, caller, one, other).await?;
        } else {
            let founders: Vec<User> = ids.iter().copied().zip(names).collect();
            let founders: Vec<&User> = founders.iter().collect();
            refuse_blocked(&mut tx, caller, &founders).await?;
        }
        let new = NewConversation {
            id,
            kind,
            title: creation.title,
            history_depth: creation.history_depth.unwrap_or(self.history_depth()),
            participants: ids.iter().copied().zip(roles).collect(),
        };
        conversations::create(&mut tx, &new).await?;
        tx.commit().await?;
        for user in ids {
            self.commits().inbox_changed(user, id);
        }
        Ok(Created { id, is_new: true })
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

/// The roles of the first participants, in their order.
fn roles(
    kind: Kind,
    names: &[Subject],
    said: &HashMap<Subject, Role>,
) -> Result<Vec<Role>, ConversationError> {
    if kind == Kind::Direct {
        return if said.is_empty() {
            Ok(vec![Role::Member; names.len()])
        } else {
            Err(invalid("a direct conversation has no roles".to_owned()))
        };
    }
    let of = |(place, name)| {
        let usual = if place == 0 {
            Role::Owner
        } else {
            Role::Member
        };
        said.get(name).copied().unwrap_or(usual)
    };
    let roles: Vec<Role> = names.iter().enumerate().map(of).collect();
    let known: HashSet<_> = names.iter().collect();
    if let Some(stranger) = said.keys().find(|name| !known.contains(name)) {
        return Err(invalid(format!(
            "`roles` names {stranger}, who is no participant"
        )));
    }
    if !roles.contains(&Role::Owner) {
        return Err(invalid("`roles` leaves no owner".to_owned()));
    }
    Ok(roles)
}

/// Between two of whom one has blocked the other nothing begins.
async fn refuse_blocked_pair(
    conn: &mut PgConnection,
    caller: &Caller,
    one: UserId,
    other: UserId,
) -> Result<(), ConversationError> {
    let mut is_by_caller = false;
    for (user, blocked) in [(one, other), (other, one)] {
        if blocks::who_blocked(conn, &[user], blocked)
            .await?
            .is_empty()
        {
            continue;
        }
        if user != caller.user {
            return Err(ConversationError::Refused(
                ProblemKind::Blocked,
                "one of the two has blocked the other".to_owned(),
            ));
        }
        is_by_caller = true;
    }
    if is_by_caller {
        return Err(ConversationError::Refused(
            ProblemKind::Blocked,
            "you have blocked this user; unblock them first".to_owned(),
        ));
    }
    Ok(())
}

pub(super) fn check_title(title: Option<&str>) -> Result<(), ConversationError> {
    let is_title = |text: &str| {
        (1..=TITLE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
    };
    if title.is_none_or(is_title) {
        return Ok(());
    }
    Err(invalid(format!(
        "a title has 1 to {TITLE_BYTES_MAX} bytes without control characters"
    )))
}

pub(super) fn check_depth(entries: i64) -> Result<(), ConversationError> {
    if (0..=HISTORY_DEPTH_MAX).contains(&entries) {
        return Ok(());
    }
    Err(invalid(format!(
        "`history_depth` lies between 0 and {HISTORY_DEPTH_MAX}; null is everything"
    )))
}

fn invalid(reason: String) -> ConversationError {
    ConversationError::Invalid(reason)
}
