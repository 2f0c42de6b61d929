//! What users do with conversations, and who may; the rights of participants stand in
//! `changes::rights`.
//!
//! Who is no participant cannot tell a conversation that is closed to them from one that
//! does not exist: both are [`ConversationError::NotFound`]. A former participant still reads
//! the log, up to the entry of the removal. The admin scope creates conversations and changes
//! participants; it does not read messages.

mod create;
mod handover;
mod participants;
mod reading;
mod receipts;
mod roster;
mod settings;
mod shown;

pub use super::changes::SettingsChange;
pub use create::{Created, Creation, TITLE_BYTES_MAX};
pub use handover::{NOTE_BYTES_MAX, Transfer};
pub use participants::{ADDED_MAX, HANDED_OVER_MAX};
pub use reading::{Page, Range};
pub use receipts::{MessageStatus, Receipts, UserPage};
pub use roster::{PRESENT_MAX, PresentShown, Roster};
pub use shown::{PageShown, PageWanted, Shown};

pub(super) use {reading::conversation, roster::participant};

use sqlx::PgConnection;

use super::{
    Accepted, Bridge, BridgeError, Refusal,
    changes::{Change, User, What},
    condition::{Condition, NotMet},
    identity::Identity,
};
use crate::{
    domain::{
        ids::{ConversationId, Subject, UserId},
        message::{Content, NewMessage},
        problem::ProblemKind,
    },
    store::{
        StoreError,
        view::{self, View},
    },
};

/// Who asks: a user that exists, and what the token allows.
#[derive(Clone, Debug)]
pub struct Caller {
    pub subject: Subject,
    pub user: UserId,
    pub is_admin: bool,
    /// When the token was issued, in seconds since 1970: it acts for no device that was signed
    /// out later.
    pub issued_at: Option<u64>,
}

impl Caller {
    /// As the store counts.
    pub(super) fn issued_at(&self) -> Option<i64> {
        self.issued_at
            .and_then(|seconds| i64::try_from(seconds).ok())
    }
}

/// Why something cannot be done with a conversation.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// There is none, or none that the caller may know of.
    #[error("there is no such conversation among yours")]
    NotFound,
    /// The caller knows the conversation, but may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// It contradicts what the conversation is.
    #[error("{0}")]
    Conflict(&'static str),
    /// It cannot be granted to anybody.
    #[error("{0}")]
    Invalid(String),
    /// For a reason with a problem type of its own.
    #[error("{1}")]
    Refused(ProblemKind, String),
    /// The store is away; the same request may succeed later.
    #[error("the store is away; try again later")]
    Unavailable,
    #[error("store")]
    Store(#[from] StoreError),
}

impl ConversationError {
    /// The kind of problem that it is for whoever asks.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        match self {
            Self::NotFound => ProblemKind::NotFound,
            Self::Forbidden(_) => ProblemKind::Forbidden,
            Self::Conflict(_) => ProblemKind::Conflict,
            Self::Invalid(_) => ProblemKind::Invalid,
            Self::Refused(kind, _) => *kind,
            Self::Unavailable => ProblemKind::Unavailable,
            Self::Store(error) if error.is_transient() => ProblemKind::Unavailable,
            Self::Store(_) => ProblemKind::Internal,
        }
    }
}

impl From<sqlx::Error> for ConversationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<BridgeError> for ConversationError {
    fn from(error: BridgeError) -> Self {
        match error {
            BridgeError::NotParticipant => Self::NotFound,
            BridgeError::Unavailable | BridgeError::TakenOver | BridgeError::SignedOut => {
                Self::Unavailable
            }
            BridgeError::Store(error) => Self::Store(error),
        }
    }
}

impl From<NotMet> for ConversationError {
    fn from(not_met: NotMet) -> Self {
        Self::Refused(ProblemKind::PreconditionFailed, not_met.to_string())
    }
}

impl From<Refusal> for ConversationError {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Full | Refusal::Unavailable => return Self::Unavailable,
            Refusal::NoConversation => return Self::NotFound,
            Refusal::NotParticipant => ProblemKind::Forbidden,
            Refusal::Archived => ProblemKind::Archived,
            Refusal::Silenced => ProblemKind::Silenced,
            Refusal::Blocked => ProblemKind::Blocked,
            Refusal::NoMessage => ProblemKind::NotFound,
            Refusal::NotAuthor => ProblemKind::NotAuthor,
            Refusal::Gone => ProblemKind::Retracted,
            Refusal::ReactionsFull => ProblemKind::Full,
            Refusal::Unstorable => ProblemKind::Invalid,
        };
        Self::Refused(kind, refusal.to_string())
    }
}

impl Bridge {
    /// The user of a token, who exists from the first one on.
    pub async fn caller(&self, identity: &Identity) -> Result<Caller, ConversationError> {
        let user = self.user(&identity.subject).await?;
        Ok(Caller {
            subject: identity.subject.clone(),
            user,
            is_admin: identity.is_admin,
            issued_at: identity.issued_at,
        })
    }

    /// Sends a message on behalf of a user, as a device would.
    pub async fn post(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        content: Content,
    ) -> Result<Accepted, ConversationError> {
        let message = NewMessage {
            conversation,
            sender: caller.user,
            sender_name: caller.subject.clone(),
            sender_device: None,
            content,
        };
        match self.send(message).await {
            Ok(accepted) => Ok(accepted),
            Err(Refusal::NotParticipant) => {
                self.visible(caller, conversation).await?;
                Err(ConversationError::Forbidden(
                    "you may read this conversation, not write to it",
                ))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// For everyone who takes part or has taken part.
    pub(super) async fn visible(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<View, ConversationError> {
        let view = self.look(conversation, &caller.subject).await?;
        if view.participation.is_some() {
            Ok(view)
        } else {
            Err(ConversationError::NotFound)
        }
    }

    async fn look(
        &self,
        conversation: ConversationId,
        name: &Subject,
    ) -> Result<View, ConversationError> {
        look(&mut *self.pool().acquire().await?, conversation, name).await
    }
}

async fn look(
    conn: &mut PgConnection,
    conversation: ConversationId,
    name: &Subject,
) -> Result<View, ConversationError> {
    let view = view::of(conn, conversation, name).await?;
    view.ok_or(ConversationError::NotFound)
}
