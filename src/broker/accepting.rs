//! What a connection hands to the bridge, and what comes back.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Connection;
use crate::{
    bridge::{
        QueueFull, Refusal,
        mailbox::{Event, RefusedMessage, Reply},
        receipts::ReportReply,
        typing::{TypingReply, TypingRequest},
    },
    domain::{
        envelope::DeviceEvent,
        ids::ConversationId,
        message::{Content, NewMessage},
        presence::StateReport,
        receipt::Report,
        topic::{ME_STATE, PublishTopic},
        typing::TypingReport,
    },
    mqtt::{
        publishes::{Ticket, Verdict},
        reason::ReasonCode,
    },
};

/// One text for both, so that nobody learns which conversations exist.
const NOT_YOURS: &str = "there is no such conversation, or you may not write to it";

impl<S> Connection<S> {
    /// Gives a publish to the bridge. The verdict comes through the mailbox.
    pub(super) fn accept(
        &mut self,
        ticket: Ticket,
        topic: &PublishTopic,
        payload: &Bytes,
        now: Instant,
    ) {
        match topic {
            PublishTopic::Send(conversation) => {
                self.accept_message(ticket, *conversation, payload, now);
            }
            PublishTopic::Receipts(conversation) => {
                self.accept_report(ticket, *conversation, payload);
            }
            PublishTopic::Typing(conversation) => {
                self.accept_typing(ticket, *conversation, payload);
            }
            PublishTopic::State => self.accept_state(ticket, payload),
            PublishTopic::Request(_) => unreachable!("a request is an action of its own"),
        }
    }

    fn accept_message(
        &mut self,
        ticket: Ticket,
        conversation: ConversationId,
        payload: &Bytes,
        now: Instant,
    ) {
        let content = match Content::from_json(payload, self.shared.bridge.content_limits()) {
            Ok(content) => content,
            Err(error) => {
                let topic = format!("c/{conversation}/send");
                return self.refuse(
                    ticket,
                    ReasonCode::PAYLOAD_FORMAT_INVALID,
                    &error,
                    topic,
                    None,
                );
            }
        };
        let message = NewMessage {
            conversation,
            sender: self.held.user,
            sender_name: self.subject.clone(),
            sender_device: Some(self.held.device),
            content,
        };
        let reply = Reply::Session {
            mailbox: self.mailbox.clone(),
            ticket: ticket.0,
        };
        let rates = self.shared.bridge.rates();
        if rates.message(self.held.user, self.is_admin).is_err() {
            // Not refused: its socket waits.
            let (bridge, user) = (self.shared.bridge.clone(), self.held.user);
            self.blocked = Some(Box::pin(async move {
                bridge.rates().message_turn(user).await;
                bridge.publish(message, reply).await;
            }));
            return;
        }
        if let Err(full) = self.shared.bridge.try_publish(message, reply, now) {
            let QueueFull(message, reply) = *full;
            let bridge = self.shared.bridge.clone();
            self.blocked = Some(Box::pin(
                async move { bridge.publish(message, reply).await },
            ));
        }
    }

    fn accept_report(&mut self, ticket: Ticket, conversation: ConversationId, payload: &Bytes) {
        let report = match Report::from_json(payload) {
            Ok(report) => report,
            Err(error) => {
                let why = format!("not a receipt: {error}; send {{\"read\": 42}}");
                let topic = format!("c/{conversation}/receipts");
                return self.refuse(
                    ticket,
                    ReasonCode::PAYLOAD_FORMAT_INVALID,
                    &why,
                    topic,
                    None,
                );
            }
        };
        let reply = ReportReply::Session {
            mailbox: self.mailbox.clone(),
            ticket: ticket.0,
        };
        let (user, device) = (self.held.user, Some(self.held.device));
        let receipts = self.shared.bridge.receipts();
        receipts.report(user, device, conversation, report, reply);
    }

    fn accept_typing(&mut self, ticket: Ticket, conversation: ConversationId, payload: &Bytes) {
        let TypingReport { is_typing } = match TypingReport::from_json(payload) {
            Ok(report) => report,
            Err(error) => {
                let why = format!("not about typing: {error}; send {{}} or {{\"typing\": false}}");
                let topic = format!("c/{conversation}/typing");
                let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
                return self.refuse(ticket, code, &why, topic, None);
            }
        };
        self.shared.bridge.typing(TypingRequest {
            conversation,
            user: self.held.user,
            name: self.subject.clone(),
            is_typing,
            reply: TypingReply::Session {
                mailbox: self.mailbox.clone(),
                ticket: ticket.0,
            },
        });
    }

    /// Acknowledged at once: what a device says of itself ends with its connection.
    fn accept_state(&mut self, ticket: Ticket, payload: &Bytes) {
        match StateReport::from_payload(payload) {
            Ok(report) => {
                self.shared.bridge.say_state(self.held, report);
                self.session.handle_verdict(ticket, Verdict::Done);
            }
            Err(error) => {
                let why = format!("{error}; send {{\"state\": \"background\"}}");
                let (code, topic) = (ReasonCode::PAYLOAD_FORMAT_INVALID, ME_STATE.to_owned());
                self.refuse(ticket, code, &why, topic, None);
            }
        }
    }

    pub(super) fn handle_event(&mut self, event: Event) {
        match event {
            Event::Verdict {
                ticket,
                verdict: Ok(accepted),
            } => {
                self.session
                    .handle_verdict(Ticket(ticket), Verdict::Committed(accepted.sequence));
            }
            Event::Verdict {
                ticket,
                verdict: Err(refused),
            } => self.refused(Ticket(ticket), &refused),
            Event::Reported {
                ticket,
                result: Ok(()),
                ..
            } => {
                self.session.handle_verdict(Ticket(ticket), Verdict::Done);
            }
            Event::Reported {
                ticket,
                conversation,
                result: Err(refusal),
            } => {
                let topic = format!("c/{conversation}/receipts");
                self.refuse_for(Ticket(ticket), refusal, topic, None);
            }
            Event::Typed {
                ticket,
                result: Ok(()),
                ..
            } => self.session.handle_verdict(Ticket(ticket), Verdict::Done),
            Event::Typed {
                ticket,
                conversation,
                result: Err(refusal),
            } => {
                let topic = format!("c/{conversation}/typing");
                self.refuse_for(Ticket(ticket), refusal, topic, None);
            }
            Event::Commit {
                notice,
                from,
                to,
                begins,
            } => {
                if begins {
                    self.session.handle_beginning(notice.conversation, from);
                }
                self.session
                    .handle_notice(notice.conversation, from, to, &notice.entries);
            }
            Event::Behind {
                conversation,
                from,
                to,
            } => {
                self.session.handle_notice(conversation, from, to, &[]);
            }
            Event::Receipt(receipt) => {
                self.session
                    .handle_receipt(receipt.conversation, &receipt.payload);
            }
            Event::Typing(typing) => {
                self.session
                    .handle_typing(typing.conversation, &typing.payload);
            }
            Event::Mine { topic, payload } => self.session.handle_mine(topic, &payload),
            Event::SignedOut(device) if device == self.held.device => {
                self.session.send_event(&DeviceEvent::SignedOut);
                let why = "this device was signed out; get a new token for it";
                self.session.close(ReasonCode::ADMINISTRATIVE_ACTION, why);
            }
            Event::SignedOut(_) => {}
            Event::TakenOver => {
                let why = "another connection uses this client id";
                self.session.close(ReasonCode::SESSION_TAKEN_OVER, why);
            }
            Event::Shutdown => {
                let why = "the server is shutting down; connect again soon";
                self.session.close(ReasonCode::SERVER_SHUTTING_DOWN, why);
            }
        }
    }

    fn refused(&mut self, ticket: Ticket, refused: &RefusedMessage) {
        let topic = format!("c/{}/send", refused.conversation);
        let id = Some(refused.id.as_str().to_owned());
        self.refuse_for(ticket, refused.refusal, topic, id);
    }

    fn refuse_for(&mut self, ticket: Ticket, refusal: Refusal, topic: String, id: Option<String>) {
        match refusal {
            Refusal::NoConversation | Refusal::NotParticipant => {
                self.refuse(ticket, ReasonCode::NOT_AUTHORIZED, NOT_YOURS, topic, id);
            }
            Refusal::Archived | Refusal::Silenced | Refusal::Blocked | Refusal::NotAuthor => {
                self.refuse(ticket, ReasonCode::NOT_AUTHORIZED, &refusal, topic, id);
            }
            Refusal::NoMessage => {
                let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
                self.refuse(ticket, code, &refusal, topic, id);
            }
            Refusal::ReactionsFull | Refusal::Full => {
                self.refuse(ticket, ReasonCode::QUOTA_EXCEEDED, &refusal, topic, id);
            }
            Refusal::Gone | Refusal::Unstorable => {
                let code = ReasonCode::IMPLEMENTATION_SPECIFIC;
                self.refuse(ticket, code, &refusal, topic, id);
            }
            // Not acknowledged: the process stops, and the device repeats it elsewhere.
            Refusal::Unavailable => {}
        }
    }

    fn refuse(
        &mut self,
        ticket: Ticket,
        code: ReasonCode,
        why: &(impl ToString + ?Sized),
        topic: String,
        message_id: Option<String>,
    ) {
        let why = why.to_string();
        self.session.handle_verdict(
            ticket,
            Verdict::Refused {
                code,
                why,
                message_id,
                topic,
            },
        );
    }
}
