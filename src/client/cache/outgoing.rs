//! What the user sent and the server has not confirmed yet.
//!
//! A message shows at once; when it fails it stays, with the reason, until the user retries or gives
//! up. It is repeated under the same id, so that a lost acknowledgement stores nothing twice.
//!
//! It leaves the list when its own entry arrives, or when the thread is in step with the place that
//! its acknowledgement names: pages bring messages without the entries that changed them, and what
//! changes nothing, a reaction given twice, leaves no entry at all.
//!
//! MQTT 3.1.1 names no place. Then any answer tells that was asked for after the acknowledgement: what
//! had been committed lies at its `last_seq` or before.
//!
//! ```text
//!   acknowledged(id, none) ─▶ ask() ─▶ request, answer: `last_seq` ─▶ answered(…) ─▶ in_step(…)
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Members, text};
use crate::domain::{
    ids::{ClientMessageId, ConversationId},
    message::Sequence,
};

/// Where a message stands on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Written by the user, and not handed to a connection yet.
    Pending,
    /// Handed over; not acknowledged.
    Sending,
    /// Committed, at this place of the log or before; none if nobody has said where. It shows
    /// as sent, until the thread has got there.
    Sent(Option<Sequence>),
    /// Refused: what the user wrote is kept.
    Failed(String),
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sending {
    pub conversation: ConversationId,
    /// The envelope, as it is sent.
    pub envelope: Members,
    pub state: State,
    place: u64,
    /// Questions that had been asked when it was acknowledged.
    asked: u64,
}

/// A question to the server, asked after everything that had been acknowledged by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(u64);

/// The messages on their way, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    messages: BTreeMap<String, Sending>,
    begun: u64,
    asked: u64,
}

impl Outgoing {
    /// A message that the user wrote; it shows from now on. `envelope` gets the id.
    pub fn begin(
        &mut self,
        conversation: ConversationId,
        id: &ClientMessageId,
        mut envelope: Members,
    ) {
        envelope.insert("id".to_owned(), id.as_str().into());
        self.begun += 1;
        let place = self.begun;
        let state = State::Pending;
        self.messages
            .entry(id.as_str().to_owned())
            .or_insert(Sending {
                conversation,
                envelope,
                state,
                place,
                asked: 0,
            });
    }

    /// It was handed to a connection.
    pub fn handed_over(&mut self, id: &str) {
        self.set(id, State::Sending);
    }

    /// It is committed: at `sequence`, which MQTT 3.1.1 does not say.
    pub fn acknowledged(&mut self, id: &str, sequence: Option<Sequence>) {
        let asked = self.asked;
        if let Some(sending) = self.messages.get_mut(id) {
            sending.state = State::Sent(sequence);
            sending.asked = asked;
        }
    }

    /// Something is about to be asked whose answer has a `last_seq`: a thread, a row of the
    /// inbox, what differs.
    pub fn ask(&mut self) -> Asked {
        self.asked += 1;
        Asked(self.asked)
    }

    /// The answer has come: what was acknowledged before it was asked for lies at `last_seq` or
    /// before.
    pub fn answered(&mut self, asked: Asked, conversation: ConversationId, last_seq: i64) {
        let Ok(last_seq) = Sequence::new(last_seq) else {
            return;
        };
        for sending in self.messages.values_mut() {
            let is_before = sending.conversation == conversation && sending.asked < asked.0;
            if is_before && sending.state == State::Sent(None) {
                sending.state = State::Sent(Some(last_seq));
            }
        }
    }

    /// The thread shows everything up to `synced`, as [`Thread::synced`](super::Thread::synced)
    /// says: what was sent before is in it.
    pub fn in_step(&mut self, conversation: ConversationId, synced: i64) {
        self.messages.retain(|_, sending| {
            let is_shown =
                matches!(sending.state, State::Sent(Some(sequence)) if sequence.get() <= synced);
            sending.conversation != conversation || !is_shown
        });
    }

    /// It is refused for good, and shows so.
    pub fn refused(&mut self, id: &str, reason: &str) {
        self.set(id, State::Failed(reason.to_owned()));
    }

    /// The connection ended: what was not acknowledged is to be handed over once more.
    pub fn disconnected(&mut self) {
        for sending in self.messages.values_mut() {
            if sending.state == State::Sending {
                sending.state = State::Pending;
            }
        }
    }

    /// The user wants a failed message to be tried again; it keeps its id.
    pub fn retry(&mut self, id: &str) {
        if let Some(sending) = self.messages.get_mut(id)
            && matches!(sending.state, State::Failed(_))
        {
            sending.state = State::Pending;
        }
    }

    /// The user gives up on it; what they wrote comes back.
    pub fn give_up(&mut self, id: &str) -> Option<Members> {
        self.messages.remove(id).map(|sending| sending.envelope)
    }

    /// An entry of the user's own has arrived: if it is one of these, it is done.
    pub fn entry(&mut self, entry: &Members) {
        if let Some(id) = text(entry, "id") {
            self.messages.remove(id);
        }
    }

    /// What is to be handed to a connection, in the order it was written.
    #[must_use]
    pub fn pending(&self) -> Vec<(&str, &Sending)> {
        let pending = |sending: &Sending| sending.state == State::Pending;
        self.in_order(pending)
    }

    /// What shows at the end of a conversation, in the order it was written.
    #[must_use]
    pub fn shown(&self, conversation: ConversationId) -> Vec<(&str, &Sending)> {
        self.in_order(|sending| sending.conversation == conversation)
    }

    fn in_order(&self, wanted: impl Fn(&Sending) -> bool) -> Vec<(&str, &Sending)> {
        let all = self
            .messages
            .iter()
            .map(|(id, sending)| (id.as_str(), sending));
        let mut some: Vec<_> = all.filter(|(_, sending)| wanted(sending)).collect();
        some.sort_by_key(|(_, sending)| sending.place);
        some
    }

    fn set(&mut self, id: &str, state: State) {
        if let Some(sending) = self.messages.get_mut(id) {
            sending.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn begun(ids: &[&str]) -> (Outgoing, ConversationId) {
        let conversation = ConversationId::random();
        let mut outgoing = Outgoing::default();
        for id in ids {
            let envelope = json!({"body": format!("text of {id}")});
            let id = ClientMessageId::new((*id).to_owned()).unwrap();
            outgoing.begin(conversation, &id, envelope.as_object().unwrap().clone());
        }
        (outgoing, conversation)
    }

    fn ids(list: &[(&str, &Sending)]) -> Vec<String> {
        list.iter().map(|(id, _)| (*id).to_owned()).collect()
    }

    #[test]
    fn a_message_shows_until_its_entry_does() {
        let (mut outgoing, conversation) = begun(&["b", "a"]);
        assert_eq!(ids(&outgoing.shown(conversation)), ["b", "a"]);
        outgoing.handed_over("b");
        outgoing.acknowledged("b", Some(Sequence::FIRST));
        assert_eq!(ids(&outgoing.shown(conversation)), ["b", "a"]);
        outgoing.entry(json!({"seq": 1, "id": "b"}).as_object().unwrap());
        assert_eq!(ids(&outgoing.shown(conversation)), ["a"]);
    }

    /// Goal: what leaves no entry, or whose entry came within a page, does not stay for ever.
    #[test]
    fn what_the_thread_has_reached_is_done() {
        let (mut outgoing, conversation) = begun(&["a", "b", "c"]);
        let at = |number| Some(Sequence::new(number).unwrap());
        outgoing.acknowledged("a", at(4));
        outgoing.acknowledged("b", at(6));
        outgoing.in_step(ConversationId::random(), 9);
        outgoing.in_step(conversation, 3);
        assert_eq!(ids(&outgoing.shown(conversation)), ["a", "b", "c"]);
        outgoing.in_step(conversation, 5);
        assert_eq!(ids(&outgoing.shown(conversation)), ["b", "c"]);
        outgoing.in_step(conversation, 6);
        assert_eq!(ids(&outgoing.shown(conversation)), ["c"], "not sent yet");
    }

    /// Goal: an answer says nothing of what was acknowledged after it was asked for.
    #[test]
    fn without_a_place_the_next_answer_tells() {
        let (mut outgoing, conversation) = begun(&["a", "b"]);
        outgoing.acknowledged("a", None);
        let asked = outgoing.ask();
        outgoing.acknowledged("b", None);
        outgoing.in_step(conversation, 9);
        assert_eq!(ids(&outgoing.shown(conversation)), ["a", "b"]);
        outgoing.answered(asked, conversation, 9);
        outgoing.in_step(conversation, 9);
        assert_eq!(ids(&outgoing.shown(conversation)), ["b"]);
        let asked = outgoing.ask();
        outgoing.answered(asked, conversation, 9);
        outgoing.in_step(conversation, 9);
        assert!(outgoing.shown(conversation).is_empty());
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_under_its_id() {
        let (mut outgoing, _) = begun(&["a", "b"]);
        outgoing.handed_over("a");
        assert_eq!(ids(&outgoing.pending()), ["b"]);
        outgoing.disconnected();
        assert_eq!(ids(&outgoing.pending()), ["a", "b"]);
        assert_eq!(outgoing.pending()[0].1.envelope["id"], "a");
    }

    #[test]
    fn a_failure_shows_and_keeps_what_was_written() {
        let (mut outgoing, conversation) = begun(&["a"]);
        outgoing.handed_over("a");
        outgoing.refused("a", "you may not write");
        assert!(outgoing.pending().is_empty(), "nothing is retried silently");
        let failed = State::Failed("you may not write".to_owned());
        assert_eq!(outgoing.shown(conversation)[0].1.state, failed);
        outgoing.retry("a");
        assert_eq!(ids(&outgoing.pending()), ["a"]);
        assert_eq!(outgoing.give_up("a").unwrap()["body"], "text of a");
        assert!(outgoing.shown(conversation).is_empty());
    }
}
