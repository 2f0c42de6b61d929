//! What the user sent and the server has not confirmed yet.
//!
//! A message shows at once. It leaves the list when its own entry arrives, or its
//! acknowledgement; when it fails it stays, with the reason, until the user retries or gives up.
//! It is repeated under the same id, so that a lost acknowledgement stores nothing twice.

use std::collections::BTreeMap;

use super::{Members, text};
use crate::domain::{
    ids::{ClientMessageId, ConversationId},
    message::Sequence,
};

/// Where a message stands on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Written by the user, and not handed to a connection yet.
    Pending,
    /// Handed over; not acknowledged.
    Sending,
    /// Committed. It shows as sent, until its entry takes its place.
    Sent(Sequence),
    /// Refused: what the user wrote is kept.
    Failed(String),
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Sending {
    pub conversation: ConversationId,
    /// The envelope, as it is sent.
    pub envelope: Members,
    pub state: State,
    place: u64,
}

/// The messages on their way, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    messages: BTreeMap<String, Sending>,
    begun: u64,
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
            });
    }

    /// It was handed to a connection.
    pub fn handed_over(&mut self, id: &str) {
        self.set(id, State::Sending);
    }

    /// It is committed.
    pub fn acknowledged(&mut self, id: &str, sequence: Sequence) {
        self.set(id, State::Sent(sequence));
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
        outgoing.acknowledged("b", Sequence::FIRST);
        assert_eq!(ids(&outgoing.shown(conversation)), ["b", "a"]);
        outgoing.entry(json!({"seq": 1, "id": "b"}).as_object().unwrap());
        assert_eq!(ids(&outgoing.shown(conversation)), ["a"]);
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
