//! Requests on `q/{operation}`: read here, done by the bridge, answered in a PUBLISH.

use super::{Action, Session, outgoing::at_most_once};
use crate::{
    domain::{
        request::{Answer, Request},
        topic::ME_DEVICE,
    },
    mqtt::{
        frame::Delivery,
        packet::ReplyTo,
        publishes::{Ticket, Verdict},
        reason::ReasonCode,
    },
};

/// Requests without an answer. With so many, nothing is read until one is answered.
const REQUESTS_MAX: u8 = 8;

/// A request that waits for its answer, and where that goes.
#[derive(Clone, Debug)]
pub struct Ask {
    pub request: Request,
    ticket: Ticket,
    reply_to: ReplyTo,
}

impl Session {
    pub(super) fn has_room_for_requests(&self) -> bool {
        self.requests < REQUESTS_MAX
    }

    pub(super) fn request(
        &mut self,
        ticket: Ticket,
        operation: Box<str>,
        payload: &[u8],
        reply_to: ReplyTo,
    ) {
        let topic = format!("q/{operation}");
        let request = self
            .check_reply_to(&reply_to)
            .and_then(|()| read(operation, payload));
        match request {
            Ok(request) => {
                self.requests += 1;
                self.actions.push_back(Action::Request(Box::new(Ask {
                    request,
                    ticket,
                    reply_to,
                })));
            }
            Err((code, why)) => {
                let message_id = None;
                let verdict = Verdict::Refused {
                    code,
                    why,
                    message_id,
                    topic,
                };
                self.handle_verdict(ticket, verdict);
            }
        }
    }

    /// The answer goes to this device alone, and only where it listens.
    fn check_reply_to(&self, reply_to: &ReplyTo) -> Result<(), (ReasonCode, String)> {
        let Some(topic) = &reply_to.topic else {
            return Ok(());
        };
        if !topic.starts_with("me/") {
            let why = "a Response Topic begins with me/";
            return Err((ReasonCode::TOPIC_NAME_INVALID, why.to_owned()));
        }
        if !self.subscriptions.cover_mine(topic) {
            let why = "subscribe to the Response Topic first: me/# covers it";
            return Err((ReasonCode::NOT_AUTHORIZED, why.to_owned()));
        }
        Ok(())
    }

    /// What became of an [`Action::Request`]. The answer is sent at most once; the PUBACK
    /// follows it.
    pub fn handle_answer(&mut self, ask: &Ask, answer: &Answer) {
        self.requests = self.requests.saturating_sub(1);
        let topic = ask.reply_to.topic.as_deref().unwrap_or(ME_DEVICE);
        if self.subscriptions.cover_mine(topic) {
            let identifiers: Vec<_> = self.subscriptions.identifiers_mine(topic).collect();
            let delivery = |payload| Delivery {
                correlation_data: ask.reply_to.correlation_data.as_deref(),
                ..at_most_once(topic, &identifiers, payload)
            };
            let payload =
                |answer: &Answer| self.encoded(topic, &answer.json(&ask.request)).into_owned();
            let whole = payload(answer);
            let fits = self.fits(&delivery(&whole));
            let instead = (!fits).then(|| payload(&Answer::too_large()));
            self.write_at_most_once(&delivery(instead.as_ref().unwrap_or(&whole)));
        }
        self.handle_verdict(ask.ticket, Verdict::Done);
    }
}

fn read(operation: Box<str>, payload: &[u8]) -> Result<Request, (ReasonCode, String)> {
    Request::from_json(operation, payload)
        .map_err(|error| (ReasonCode::PAYLOAD_FORMAT_INVALID, error.to_string()))
}
