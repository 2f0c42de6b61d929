//! Participants come and go through the writer of their conversation, so that the entry
//! that says so is told in its place.

use tokio::sync::oneshot;

use super::{BridgeError, MembershipChange, accept::Writer, batch::Commit};
use crate::{
    domain::message::Sequence,
    store::{
        StoreError,
        conversations::{self, Change},
    },
};

/// A change of the participants, and who waits for it.
#[derive(Debug)]
pub(super) struct MembershipRequest {
    pub change: MembershipChange,
    pub reply: oneshot::Sender<Result<Option<Sequence>, BridgeError>>,
}

impl Writer {
    pub(super) async fn change_membership(&mut self, request: MembershipRequest) {
        let MembershipRequest { change, reply } = request;
        let result = loop {
            match self.try_change(&change).await {
                Err(error) if error.is_transient() && self.database.retry_after(&error).await => {}
                other => break other,
            }
        };
        let answer = match result {
            Ok(Change::Changed {
                entry,
                members_version,
            }) => {
                let sequence = entry.position.sequence;
                let commit = Commit {
                    conversation: change.conversation,
                    from: sequence.get(),
                    to: sequence.get(),
                    entries: vec![entry],
                    members_version,
                };
                self.told.commits(&mut self.database, vec![commit]).await;
                Ok(Some(sequence))
            }
            // After a lost attempt this may be its result; the outbox tells of it then.
            Ok(Change::Unchanged) => Ok(None),
            Ok(Change::NoConversation) => Err(BridgeError::NoConversation),
            Ok(Change::Full) => Err(BridgeError::Full {
                participants_max: self.participants_max,
            }),
            Err(error) => Err(BridgeError::Store(error)),
        };
        // Whoever asked may have gone; the change stands all the same.
        drop(reply.send(answer));
    }

    async fn try_change(&mut self, change: &MembershipChange) -> Result<Change, StoreError> {
        use sqlx::Connection as _;
        let mut tx = self.database.conn().await?.begin().await?;
        let user = (change.user_id, &change.user);
        let actor = (change.actor_id, &change.actor);
        let done = match change.role {
            Some(role) => {
                let max = self.participants_max;
                conversations::add(&mut tx, change.conversation, user, role, actor, max).await?
            }
            None => conversations::remove(&mut tx, change.conversation, user, actor).await?,
        };
        tx.commit().await?;
        self.database.worked();
        Ok(done)
    }
}
