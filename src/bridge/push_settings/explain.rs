//! Why a message woke a device, or did not.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Bridge, Caller, PushSettingsError};
use crate::{
    domain::{
        ids::{ConversationId, Subject},
        message::Sequence,
    },
    store::{
        messages,
        push::ledger::{self, Decision, Explanation, Waiting},
        view,
    },
};

/// What became of a message on the devices of a user. Times are in milliseconds since 1970,
/// durations in milliseconds.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PushReport {
    pub user: Subject,
    pub seq: Sequence,
    pub committed_at: i64,
    pub devices: Vec<DeviceReport>,
}

/// What became of it on one device.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeviceReport {
    pub client_id: String,
    /// `provider:app:environment`; none without a token.
    pub route: Option<String>,
    /// Oldest first.
    pub decisions: Vec<DecisionReport>,
    pub waiting: Option<WaitingReport>,
    /// Why there is neither a decision nor anything to wait for.
    pub silence: Option<&'static str>,
}

/// A row of the ledger.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DecisionReport {
    /// `wake` or `clear`.
    pub kind: &'static str,
    /// The messages it was about.
    pub from: i64,
    pub to: i64,
    pub outcome: String,
    pub reason: String,
    pub route: Option<String>,
    pub notification_id: Option<String>,
    pub decided_at: i64,
    /// From the commit of the message to the decision.
    pub after_millis: i64,
    /// From the moment a worker took the job to the decision.
    pub took_millis: Option<i64>,
}

/// A job that is not done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WaitingReport {
    /// `armed`, `in_flight` or `backoff`.
    pub state: String,
    pub due_at: i64,
    /// Failed attempts so far.
    pub attempts: i32,
    /// The rule that makes it wait beyond its grace.
    pub postponed: Option<String>,
}

impl Bridge {
    /// What became of a message on the caller's devices; an administrator also asks about
    /// those of others.
    pub async fn explain_push(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        sequence: Sequence,
        user: Option<Subject>,
    ) -> Result<PushReport, PushSettingsError> {
        let name = user.unwrap_or_else(|| caller.subject.clone());
        let is_own = name == caller.subject;
        if !is_own && !caller.is_admin {
            return Err(PushSettingsError::NotYours);
        }
        let mut conn = self.pool().acquire().await?;
        let view = view::of(&mut conn, conversation, &name)
            .await?
            .ok_or(PushSettingsError::NoConversation)?;
        let participation = view.participation.ok_or(if is_own {
            PushSettingsError::NoConversation
        } else {
            PushSettingsError::NoParticipant
        })?;
        // Who asks for others may know of what they could not see.
        let visible_to = is_own.then_some(participation.user);
        let committed_at =
            messages::committed_at_millis(&mut conn, conversation, sequence, visible_to)
                .await?
                .ok_or(PushSettingsError::NoMessage)?;
        let explained =
            ledger::explain(&mut conn, conversation, participation.user, sequence).await?;
        let devices = explained
            .into_iter()
            .map(|device| told(device, committed_at));
        Ok(PushReport {
            user: name,
            seq: sequence,
            committed_at,
            devices: devices.collect(),
        })
    }
}

fn told(explanation: Explanation, committed_at: i64) -> DeviceReport {
    let decision = |decision: Decision| DecisionReport {
        kind: decision.kind.as_str(),
        from: decision.from,
        to: decision.to,
        outcome: decision.outcome,
        reason: decision.reason,
        route: decision.route,
        notification_id: decision.notification_id.map(|id| id.to_string()),
        decided_at: decision.decided_at_millis,
        after_millis: decision.decided_at_millis - committed_at,
        took_millis: decision
            .claimed_at_millis
            .map(|claimed_at| decision.decided_at_millis - claimed_at),
    };
    let waiting = |waiting: Waiting| WaitingReport {
        state: waiting.state,
        due_at: waiting.due_at_millis,
        attempts: waiting.attempts,
        postponed: waiting.postponed,
    };
    DeviceReport {
        client_id: explanation.client_id,
        route: explanation.route,
        decisions: explanation.decisions.into_iter().map(decision).collect(),
        waiting: explanation.waiting.map(waiting),
        silence: explanation.silence.map(ledger::Silence::as_str),
    }
}
