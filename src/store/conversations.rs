//! Conversations and who takes part in them.
//!
//! Every change of the participants is an entry of the log: it takes effect at a sequence.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::domain::{
    ids::{ConversationId, Subject, UserId},
    message::SharedEntry,
};

use super::{StoreError, entries::Written, members};

/// [`unread`] counts no further.
pub const UNREAD_MAX: i64 = 1000;

/// Two people, or any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Direct,
    Group,
}

/// What a participant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Owner,
    Admin,
    Member,
    /// Receives, and sends nothing.
    Readonly,
}

/// A text that names no [`Kind`] or no [`Role`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a conversation is `direct` or `group`, not `{0}`")]
    Kind(String),
    #[error("a role is `owner`, `admin`, `member` or `readonly`, not `{0}`")]
    Role(String),
}

impl Kind {
    /// As it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }
}

impl FromStr for Kind {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "direct" => Ok(Self::Direct),
            "group" => Ok(Self::Group),
            other => Err(InvalidName::Kind(other.to_owned())),
        }
    }
}

impl Role {
    /// As it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Readonly => "readonly",
        }
    }
}

impl FromStr for Role {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "owner" => Ok(Self::Owner),
            "admin" => Ok(Self::Admin),
            "member" => Ok(Self::Member),
            "readonly" => Ok(Self::Readonly),
            other => Err(InvalidName::Role(other.to_owned())),
        }
    }
}

/// A conversation to be made.
#[derive(Clone, Debug)]
pub struct NewConversation {
    pub id: ConversationId,
    pub kind: Kind,
    pub title: Option<String>,
    /// How many entries before their own beginning newcomers may see; none is all of them.
    pub history_depth: Option<i64>,
    pub participants: Vec<(UserId, Role)>,
}

/// A conversation as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRow {
    pub id: ConversationId,
    pub kind: Kind,
    pub title: Option<String>,
    /// Rises when commits may have been lost: clients that see a new one start over.
    pub epoch: i32,
    /// The sequence of the newest entry; 0 while the log is empty.
    pub last_seq: i64,
    pub members_version: i32,
    /// In milliseconds since 1970.
    pub created_at_millis: i64,
}

/// A user in a conversation, or one who was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    pub user: UserId,
    pub name: Subject,
    pub role: Role,
    /// The first sequence that is delivered to the user.
    pub joined: i64,
    /// The last sequence the user may see; none while taking part.
    pub left: Option<i64>,
}

/// What became of a change of the participants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The log says so at this entry.
    Changed {
        entry: SharedEntry,
        members_version: i32,
    },
    /// Takes part already, or does not take part.
    Unchanged,
    NoConversation,
    /// There are as many participants as there may be.
    Full,
}

impl From<Written> for Change {
    fn from(written: Written) -> Self {
        Self::Changed {
            entry: written.entry,
            members_version: written.members_version,
        }
    }
}

/// Makes a conversation with an empty log.
pub async fn create(
    conn: &mut PgConnection,
    conversation: &NewConversation,
) -> Result<(), StoreError> {
    let users: Vec<_> = conversation
        .participants
        .iter()
        .map(|(user, _)| user.0)
        .collect();
    let roles: Vec<_> = conversation
        .participants
        .iter()
        .map(|(_, role)| role.as_str())
        .collect();
    sqlx::query!(
        "with created as (
             insert into conversations (conversation_id, kind, title, history_depth, updated_at)
             -- Whole milliseconds, as entries have: devices know no finer order.
             values ($1, $2, $3, $6, date_trunc('milliseconds', now()))
         )
         insert into participants (conversation_id, user_id, role, joined_seq)
         select $1, p.user_id, p.role, 1
         from unnest($4::bigint[], $5::text[]) as p (user_id, role)",
        conversation.id.0,
        conversation.kind.as_str(),
        conversation.title,
        &users[..],
        &roles[..] as &[&str],
        conversation.history_depth,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether there is such a conversation.
pub async fn exists(conn: &mut PgConnection, id: ConversationId) -> Result<bool, StoreError> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select 1 from conversations where conversation_id = $1) as "exists!""#,
        id.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(exists)
}

/// The conversation, if there is one.
pub async fn conversation(
    conn: &mut PgConnection,
    id: ConversationId,
) -> Result<Option<ConversationRow>, StoreError> {
    sqlx::query!(
        r#"select kind, title, epoch, last_seq, members_version,
                  (extract(epoch from created_at) * 1000)::bigint as "created_at_millis!"
           from conversations where conversation_id = $1"#,
        id.0,
    )
    .fetch_optional(conn)
    .await?
    .map(|row| {
        Ok(ConversationRow {
            id,
            kind: Kind::from_str(&row.kind).map_err(StoreError::corrupt)?,
            title: row.title,
            epoch: row.epoch,
            last_seq: row.last_seq,
            members_version: row.members_version,
            created_at_millis: row.created_at_millis,
        })
    })
    .transpose()
}

/// The participants of conversations, those who left included, with the version of each list.
/// A conversation that does not exist is not in the result.
pub async fn participants(
    conn: &mut PgConnection,
    conversations: &[ConversationId],
) -> Result<Vec<(ConversationId, i32, Vec<Participant>)>, StoreError> {
    let ids: Vec<_> = conversations.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"select c.conversation_id, c.members_version, p.user_id as "user_id?",
                  u.subject as "subject?", p.role as "role?", p.joined_seq as "joined_seq?",
                  p.left_seq
           from conversations c
           left join participants p on p.conversation_id = c.conversation_id
           left join users u on u.user_id = p.user_id
           where c.conversation_id = any($1)
           order by c.conversation_id, p.user_id"#,
        &ids[..],
    )
    .fetch_all(conn)
    .await?;

    let mut lists: Vec<(ConversationId, i32, Vec<Participant>)> = Vec::new();
    for row in rows {
        let id = ConversationId(row.conversation_id);
        if lists.last().is_none_or(|(last, ..)| *last != id) {
            lists.push((id, row.members_version, Vec::new()));
        }
        let (Some((.., list)), Some(user), Some(name), Some(role), Some(joined)) = (
            lists.last_mut(),
            row.user_id,
            row.subject,
            row.role,
            row.joined_seq,
        ) else {
            continue; // a conversation that nobody ever took part in
        };
        list.push(Participant {
            user: UserId(user),
            name: Subject::new(&name).map_err(StoreError::corrupt)?,
            role: Role::from_str(&role).map_err(StoreError::corrupt)?,
            joined,
            left: row.left_seq,
        });
    }
    Ok(lists)
}

/// The role of a user who takes part.
pub async fn role(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
) -> Result<Option<Role>, StoreError> {
    sqlx::query_scalar!(
        "select role from participants
         where conversation_id = $1 and user_id = $2 and left_seq is null",
        conversation.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?
    .map(|role| Role::from_str(&role).map_err(StoreError::corrupt))
    .transpose()
}

/// How many messages of others the user may see and has not read, without those that are gone;
/// at most [`UNREAD_MAX`]. Entries before `first_seq` are erased.
pub async fn unread(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: UserId,
    first_seq: i64,
) -> Result<i64, StoreError> {
    let unread = sqlx::query_scalar!(
        r#"select count(*) as "unread!"
           from participants p
           cross join lateral (
               select from messages m
               where m.conversation_id = $1
                 and m.seq > greatest(p.read_seq, p.visible_from - 1, $4::bigint - 1)
                 and m.seq <= coalesce(p.left_seq, 9223372036854775807)
                 and is_unread(m.ordinal, m.sender_id, m.retract_seq, m.content_format, m.expires_at,
                               $2, now())
               order by m.seq limit $3
           ) m
           where p.conversation_id = $1 and p.user_id = $2"#,
        conversation.0,
        user.0,
        UNREAD_MAX,
        first_seq,
    )
    .fetch_one(conn)
    .await?;
    Ok(unread)
}

/// Lets a user take part from the entry on that says so.
///
/// Belongs into a transaction; it locks the conversation until the end.
pub async fn add(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: (UserId, &Subject),
    role: Role,
    actor: (UserId, &Subject),
    participants_max: usize,
) -> Result<Change, StoreError> {
    let Some(locked) = members::lock(conn, conversation, &[user.0]).await? else {
        return Ok(Change::NoConversation);
    };
    if locked.present(user.0).is_some() {
        return Ok(Change::Unchanged);
    }
    if usize::try_from(locked.present).is_ok_and(|present| present >= participants_max) {
        return Ok(Change::Full);
    }
    let written = members::add(conn, &locked, &[user], role, actor).await?;
    Ok(written.into())
}

/// Ends a user's part at the entry that says so, the last one the user may see.
///
/// Belongs into a transaction; it locks the conversation until the end.
pub async fn remove(
    conn: &mut PgConnection,
    conversation: ConversationId,
    user: (UserId, &Subject),
    actor: (UserId, &Subject),
) -> Result<Change, StoreError> {
    let Some(locked) = members::lock(conn, conversation, &[user.0]).await? else {
        return Ok(Change::NoConversation);
    };
    if locked.present(user.0).is_none() {
        return Ok(Change::Unchanged);
    }
    Ok(members::remove(conn, &locked, user, actor).await?.into())
}
