//! How far the participants of a conversation have got, and what that means for one message.
//!
//! Who has receipts switched off, for themselves or by the conversation, is not listed; of a
//! message they count among those who could see it, and as not reached. So the sender cannot tell
//! whether such a user has read it, or has it at all.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Bridge, Caller, ConversationError};
use crate::{
    bridge::counts,
    domain::{
        ids::{ConversationId, DeviceId, Subject, UserId},
        message::Sequence,
        problem::ProblemKind,
        receipt::{Counts, Report, Standing},
    },
    store::{
        cursors,
        status::{self, Reached, Status},
        view::Participation,
    },
};

/// A page of a list of users.
#[derive(Clone, Debug)]
pub struct UserPage {
    /// The users after this one; none is from the first one on.
    pub after: Option<Subject>,
    pub limit: usize,
}

/// How far participants have got.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Receipts {
    #[serde(rename = "receipts")]
    standings: Vec<Standing>,
    /// Of the caller's own newest messages, on the first page: what `c/{conversation}/receipts`
    /// tells authors in large conversations.
    #[serde(flatten)]
    counts: Option<Counts>,
    /// There are more: ask again with `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<Subject>,
}

/// How far a message has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Progress {
    /// Stored: it will be delivered.
    Sent,
    /// Everybody who could see it has it on a device.
    Delivered,
    /// Everybody who could see it has read it.
    Read,
}

/// What has become of a message.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MessageStatus {
    seq: Sequence,
    /// When it was stored, in milliseconds since 1970.
    at: i64,
    status: Progress,
    /// How many others could see it when it was said.
    participants: i64,
    /// How many of them have it, and have read it. Who has receipts switched off is not counted.
    delivered: i64,
    read: i64,
    /// Each of them, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<UserStatus>>,
    /// There are more: ask again with `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<Subject>,
}

/// What has become of a message for one user.
#[derive(Debug, Serialize, JsonSchema)]
struct UserStatus {
    user: Subject,
    delivered: bool,
    read: bool,
    /// How far the user has got; 0 is before the first message, or receipts switched off.
    delivered_seq: i64,
    read_seq: i64,
    /// Those that receive the conversation.
    devices: Vec<DeviceStatus>,
}

/// What has become of a message on one device.
#[derive(Debug, Serialize, JsonSchema)]
struct DeviceStatus {
    client_id: String,
    delivered: bool,
    /// Only if it was said of this device; what names no device is read by the user.
    read: bool,
}

impl Bridge {
    /// How far the participants have got, as far as the caller may know.
    pub async fn standings(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        page: UserPage,
    ) -> Result<Receipts, ConversationError> {
        self.participation(caller, conversation).await?;
        let after = self.place(conversation, page.after).await?;
        let mut conn = self.pool().acquire().await?;
        let counts = match after {
            None => counts::of_author(&mut conn, conversation, caller.user).await?,
            Some(_) => None,
        };
        let more = one_more(page.limit);
        let mut receipts =
            cursors::standings(&mut conn, conversation, caller.user, after, more).await?;
        let next_after = cut(&mut receipts, page.limit, |standing| &standing.user);
        Ok(Receipts {
            standings: receipts,
            counts,
            next_after,
        })
    }

    /// Takes the caller's word for how far they have got, on a device if it is known which, and
    /// answers where they stand then: positions only rise, and never beyond the newest entry.
    pub async fn report(
        &self,
        caller: &Caller,
        device: Option<DeviceId>,
        conversation: ConversationId,
        report: Report,
    ) -> Result<Standing, ConversationError> {
        self.participation(caller, conversation).await?;
        self.settle_report(caller.user, device, conversation, report)
            .await?;
        let Participation {
            delivered, read, ..
        } = self.participation(caller, conversation).await?;
        Ok(Standing {
            user: caller.subject.clone(),
            delivered,
            read,
        })
    }

    /// What has become of a message, for its sender and for administrators; with a page of the
    /// users if one is wanted.
    pub async fn message_status(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        sequence: Sequence,
        page: Option<UserPage>,
    ) -> Result<MessageStatus, ConversationError> {
        if !caller.is_admin {
            self.participation(caller, conversation).await?;
        }
        let mut conn = self.pool().acquire().await?;
        let status = status::of_entry(&mut conn, conversation, sequence.get())
            .await?
            .ok_or_else(no_such_message)?;
        drop(conn);
        if !caller.is_admin && status.sender != caller.user {
            return Err(ConversationError::Forbidden(
                "only its sender sees what has become of a message",
            ));
        }
        let mut shown = MessageStatus::new(sequence, &status);
        if let Some(page) = page {
            let after = self.place(conversation, page.after).await?;
            let mut conn = self.pool().acquire().await?;
            let (message, more) = ((sequence.get(), status.sender), one_more(page.limit));
            let mut users = status::reached(&mut conn, conversation, message, after, more).await?;
            shown.next_after = cut(&mut users, page.limit, |reached| &reached.name);
            let users = users.into_iter();
            shown.users = Some(users.map(|user| UserStatus::new(sequence, user)).collect());
        }
        Ok(shown)
    }

    /// For everyone who takes part.
    async fn participation(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<Participation, ConversationError> {
        let view = self.look(conversation, &caller.subject).await?;
        view.current().ok_or(ConversationError::NotFound)
    }

    /// The user that a page begins after. Only of those who take part or took part: whether there
    /// is a user of another name is nobody's business.
    pub(super) async fn place(
        &self,
        conversation: ConversationId,
        after: Option<Subject>,
    ) -> Result<Option<UserId>, ConversationError> {
        let Some(name) = after else { return Ok(None) };
        let view = self.look(conversation, &name).await?;
        let participation = view.participation.ok_or_else(|| {
            ConversationError::Invalid("`after` names somebody who never took part".to_owned())
        })?;
        Ok(Some(participation.user))
    }
}

impl MessageStatus {
    fn new(seq: Sequence, status: &Status) -> Self {
        let Status {
            at_millis,
            participants,
            delivered,
            read,
            ..
        } = *status;
        let progress = match participants {
            0 => Progress::Sent,
            all if read == all => Progress::Read,
            all if delivered == all => Progress::Delivered,
            _ => Progress::Sent,
        };
        Self {
            seq,
            at: at_millis,
            status: progress,
            participants,
            delivered,
            read,
            users: None,
            next_after: None,
        }
    }
}

impl UserStatus {
    fn new(sequence: Sequence, reached: Reached) -> Self {
        let sequence = sequence.get();
        let devices = reached.devices.into_iter().map(|device| DeviceStatus {
            client_id: device.client_id,
            delivered: device.delivered_seq >= sequence,
            read: device.read_seq >= sequence,
        });
        Self {
            user: reached.name,
            delivered: reached.delivered_seq >= sequence,
            read: reached.read_seq >= sequence,
            delivered_seq: reached.delivered_seq,
            read_seq: reached.read_seq,
            devices: devices.collect(),
        }
    }
}

fn no_such_message() -> ConversationError {
    let detail = "there is no such message in this conversation".to_owned();
    ConversationError::Refused(ProblemKind::NotFound, detail)
}

/// One more than wanted says whether there is more.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX)
}

/// Cuts a list to its limit; the name after which it goes on, if it does.
fn cut<T>(list: &mut Vec<T>, limit: usize, name: impl Fn(&T) -> &Subject) -> Option<Subject> {
    let has_more = list.len() > limit;
    list.truncate(limit);
    list.last()
        .filter(|_| has_more)
        .map(|last| name(last).clone())
}
