//! The participants of a conversation, changed under its lock.
//!
//! [`lock`] first; what it answers holds until the end of the transaction, so whoever judges a
//! change by it judges right. Every change is an entry of the log and takes effect at its sequence.

use sqlx::PgConnection;

use crate::domain::{
    change::{ConversationNotice, KIND_CONVERSATION, Membership, Until, Who},
    envelope::KIND_MEMBERSHIP,
    ids::{ConversationId, Subject, UserId},
};

use super::{
    StoreError,
    conversations::{Kind, Role},
    entries::{Actor, Written, append_notice},
};

/// A user, and the name of the user.
pub type Named<'a> = (UserId, &'a Subject);

/// What owners and admins decide for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub title: Option<String>,
    /// Closed: read, and not written to.
    pub is_archived: bool,
    pub receipts: bool,
    /// How many entries before their beginning newcomers may see; none is all of them.
    pub history_depth: Option<i64>,
    /// How long contents are kept; none is for ever.
    pub retention_seconds: Option<i64>,
}

/// A conversation that nobody else changes.
#[derive(Clone, Debug)]
pub struct Locked {
    pub id: ConversationId,
    pub kind: Kind,
    pub settings: Settings,
    /// How many take part, and how many of them own it.
    pub present: i64,
    pub owners: i64,
    /// Of the users that were asked about, those who take part or took part.
    parts: Vec<Part>,
}

/// How a user takes part, or took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub user: UserId,
    pub role: Role,
    pub joined: i64,
    /// The last entry the user may see; none while taking part.
    pub left: Option<i64>,
    /// The first entry the user may read.
    pub visible_from: i64,
    /// Until when the user may not write, if they may not now.
    pub silenced: Option<Until>,
    /// The other one of a direct conversation does not want to hear of the user.
    pub is_blocked: bool,
}

impl Locked {
    /// The user takes part, or took part.
    #[must_use]
    pub fn part(&self, user: UserId) -> Option<&Part> {
        self.parts.iter().find(|part| part.user == user)
    }

    /// The user takes part.
    #[must_use]
    pub fn present(&self, user: UserId) -> Option<&Part> {
        self.part(user).filter(|part| part.left.is_none())
    }
}

/// Takes the lock under which sequences are assigned, until the end of the transaction, and
/// looks at the users in question. None: there is no such conversation.
pub async fn lock(
    conn: &mut PgConnection,
    id: ConversationId,
    users: &[UserId],
) -> Result<Option<Locked>, StoreError> {
    let Some(row) = sqlx::query!(
        r#"select kind, title, archived_at is not null as "is_archived!", receipts, history_depth,
                  retention_seconds
           from conversations where conversation_id = $1 for no key update"#,
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(None);
    };
    // Statements of their own: their snapshots are younger than the lock.
    let count = sqlx::query!(
        r#"select count(*) as "present!", count(*) filter (where role = 'owner') as "owners!"
           from participants where conversation_id = $1 and left_seq is null"#,
        id.0,
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(Some(Locked {
        id,
        kind: row.kind.parse().map_err(StoreError::corrupt)?,
        settings: Settings {
            title: row.title,
            is_archived: row.is_archived,
            receipts: row.receipts,
            history_depth: row.history_depth,
            retention_seconds: row.retention_seconds,
        },
        present: count.present,
        owners: count.owners,
        parts: parts(conn, id, users).await?,
    }))
}

/// Locked in the order in which positions are written, so that the two cannot wait in a circle.
async fn parts(
    conn: &mut PgConnection,
    id: ConversationId,
    users: &[UserId],
) -> Result<Vec<Part>, StoreError> {
    let users: Vec<_> = users.iter().map(|user| user.0).collect();
    let rows = sqlx::query!(
        r#"select user_id, role, joined_seq, left_seq, visible_from,
                  case when isfinite(silenced_until) and silenced_until > now()
                       then (extract(epoch from silenced_until) * 1000)::bigint end as until_millis,
                  coalesce(silenced_until = 'infinity', false) as "is_forever!", is_blocked
           from participants where conversation_id = $1 and user_id = any($2)
           order by user_id for no key update"#,
        id.0,
        &users[..],
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Part {
                user: UserId(row.user_id),
                role: row.role.parse().map_err(StoreError::corrupt)?,
                joined: row.joined_seq,
                left: row.left_seq,
                visible_from: row.visible_from,
                silenced: silenced(row.until_millis, row.is_forever),
                is_blocked: row.is_blocked,
            })
        })
        .collect()
}

/// What the columns of a silence say.
pub(super) fn silenced(until_millis: Option<i64>, is_forever: bool) -> Option<Until> {
    let forever = is_forever.then_some(Until::Forever);
    forever.or(until_millis.map(Until::Millis))
}

/// Lets users who do not take part do so from the entry on that says it.
pub async fn add(
    conn: &mut PgConnection,
    conversation: &Locked,
    users: &[Named<'_>],
    role: Role,
    actor: Actor<'_>,
) -> Result<Written, StoreError> {
    let names = names(users);
    let who = match names[..] {
        [name] => Who::User(name),
        _ => Who::Users(&names),
    };
    let role_name = role.as_str();
    let notice = Membership::Added {
        who,
        role: role_name,
    };
    let written = tell(conn, conversation.id, actor, &notice).await?;
    let depth = conversation.settings.history_depth;
    enter(conn, conversation.id, users, role, depth, 1, &[]).await?;
    Ok(written)
}

/// Ends a user's part at the entry that says so, the last one the user may see.
pub async fn remove(
    conn: &mut PgConnection,
    conversation: &Locked,
    user: Named<'_>,
    actor: Actor<'_>,
) -> Result<Written, StoreError> {
    let notice = Membership::Removed { user: user.1 };
    let written = tell(conn, conversation.id, actor, &notice).await?;
    leave(conn, conversation.id, &[user]).await?;
    Ok(written)
}

/// Gives a participant another role. Owners and admins are not silenced.
pub async fn set_role(
    conn: &mut PgConnection,
    conversation: &Locked,
    user: Named<'_>,
    role: Role,
    actor: Actor<'_>,
) -> Result<Written, StoreError> {
    let notice = Membership::Role {
        user: user.1,
        role: role.as_str(),
    };
    let written = tell(conn, conversation.id, actor, &notice).await?;
    sqlx::query!(
        "update participants
         set role = $3, own_version = own_version + 1, changed_at = clock_timestamp(),
             silenced_until = case when $3 not in ('owner', 'admin') then silenced_until end
         where conversation_id = $1 and user_id = $2",
        conversation.id.0,
        user.0.0,
        role.as_str(),
    )
    .execute(&mut *conn)
    .await?;
    Ok(written)
}

/// Takes the word from a participant, or gives it back.
pub async fn silence(
    conn: &mut PgConnection,
    conversation: &Locked,
    user: Named<'_>,
    until: Option<Until>,
    actor: Actor<'_>,
) -> Result<Written, StoreError> {
    let notice = Membership::Silenced {
        user: user.1,
        until,
    };
    let written = tell(conn, conversation.id, actor, &notice).await?;
    let millis = match until {
        Some(Until::Millis(millis)) => Some(millis),
        _ => None,
    };
    sqlx::query!(
        "update participants
         set silenced_until = case when $4 then 'infinity'
                                   else to_timestamp($3::bigint / 1000.0) end,
             own_version = own_version + 1, changed_at = clock_timestamp()
         where conversation_id = $1 and user_id = $2",
        conversation.id.0,
        user.0.0,
        millis,
        until == Some(Until::Forever),
    )
    .execute(&mut *conn)
    .await?;
    Ok(written)
}

/// A conversation changes hands.
#[derive(Clone, Debug)]
pub struct Handover<'a> {
    /// Who take part, and go.
    pub from: Vec<Named<'a>>,
    /// Who do not, and come.
    pub to: Vec<Named<'a>>,
    /// The role of those who come.
    pub role: Role,
    pub note: Option<&'a str>,
    /// How many entries before they may see; none is all from `visible_from` on.
    pub history_depth: Option<i64>,
    pub visible_from: i64,
}

/// Ends the part of some and begins that of others, at one entry. A silence passes to who comes.
pub async fn transfer(
    conn: &mut PgConnection,
    conversation: &Locked,
    handover: &Handover<'_>,
    actor: Actor<'_>,
) -> Result<Written, StoreError> {
    let notice = Membership::Transferred {
        from: &names(&handover.from),
        to: &names(&handover.to),
        note: handover.note,
    };
    let id = conversation.id;
    let written = tell(conn, id, actor, &notice).await?;
    leave(conn, id, &handover.from).await?;
    let (role, depth, from) = (handover.role, handover.history_depth, handover.visible_from);
    let silenced = &handover.from;
    enter(conn, id, &handover.to, role, depth, from, silenced).await?;
    Ok(written)
}

/// Changes what is decided for everybody.
pub async fn set_settings(
    conn: &mut PgConnection,
    conversation: &Locked,
    settings: &Settings,
    notice: &ConversationNotice,
    actor: Actor<'_>,
) -> Result<Written, StoreError> {
    let written = append_notice(conn, conversation.id, actor, KIND_CONVERSATION, notice).await?;
    sqlx::query!(
        "update conversations
         set title = $2, receipts = $4, history_depth = $5, retention_seconds = $6,
             archived_at = case when $3 then coalesce(archived_at, clock_timestamp()) end
         where conversation_id = $1",
        conversation.id.0,
        settings.title,
        settings.is_archived,
        settings.receipts,
        settings.history_depth,
        settings.retention_seconds,
    )
    .execute(&mut *conn)
    .await?;
    Ok(written)
}

async fn tell(
    conn: &mut PgConnection,
    conversation: ConversationId,
    actor: Actor<'_>,
    notice: &Membership<'_>,
) -> Result<Written, StoreError> {
    append_notice(conn, conversation, actor, KIND_MEMBERSHIP, notice).await
}

/// Their part begins at the newest entry. A silence outlasts an absence, and that of whom they
/// replace is theirs too.
async fn enter(
    conn: &mut PgConnection,
    conversation: ConversationId,
    users: &[Named<'_>],
    role: Role,
    history_depth: Option<i64>,
    visible_from: i64,
    replaced: &[Named<'_>],
) -> Result<(), StoreError> {
    // greatest() passes over a depth that is null, and over who is not silenced.
    sqlx::query!(
        "insert into participants as p (conversation_id, user_id, role, joined_seq, visible_from,
                                        read_seq, read_ordinal, delivered_seq, silenced_until)
         select c.conversation_id, n.user_id, $3, c.last_seq,
                greatest(1, $5, c.last_seq - $4::bigint),
                c.last_seq - 1, c.last_ordinal, c.last_seq - 1,
                case when $3 not in ('owner', 'admin') then r.silenced_until end
         from conversations c cross join unnest($2::bigint[]) as n (user_id)
         cross join (
             select max(r.silenced_until) as silenced_until from participants r
             where r.conversation_id = $1 and r.user_id = any($6)
         ) r
         where c.conversation_id = $1
         order by n.user_id
         on conflict (conversation_id, user_id) do update
         set role = excluded.role, joined_seq = excluded.joined_seq, left_seq = null,
             visible_from = excluded.visible_from,
             read_seq = excluded.read_seq, read_ordinal = excluded.read_ordinal,
             delivered_seq = excluded.delivered_seq, muted_until = null,
             mentions_break_mute = true, pinned_at = null, archived_seq = null,
             silenced_until = case when excluded.role not in ('owner', 'admin')
                                   then greatest(p.silenced_until, excluded.silenced_until) end,
             own_version = p.own_version + 1, changed_at = clock_timestamp()",
        conversation.0,
        &ids(users)[..],
        role.as_str(),
        history_depth,
        visible_from,
        &ids(replaced)[..],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Their part ends with the newest entry.
async fn leave(
    conn: &mut PgConnection,
    conversation: ConversationId,
    users: &[Named<'_>],
) -> Result<(), StoreError> {
    sqlx::query!(
        "update participants p
         set left_seq = c.last_seq, own_version = p.own_version + c.erasures + 1,
             changed_at = clock_timestamp()
         from conversations c
         where c.conversation_id = $1 and p.conversation_id = $1 and p.user_id = any($2)",
        conversation.0,
        &ids(users)[..],
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn names<'a>(users: &[Named<'a>]) -> Vec<&'a Subject> {
    users.iter().map(|user| user.1).collect()
}

fn ids(users: &[Named<'_>]) -> Vec<i64> {
    users.iter().map(|user| user.0.0).collect()
}
