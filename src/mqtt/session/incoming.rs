//! What comes in: packets of the device.

use std::time::Instant;

use super::{Action, Answer, Control, Session, SubscriptionChange};
use crate::{
    domain::topic::{Filter, PublishTopic, TopicError},
    mqtt::{
        frame,
        packet::{Packet, Publish, Subscribe, SubscribeRequest, Unsubscribe, Version},
        publishes::{Ticket, Verdict},
        reason::ReasonCode,
        subscriptions::{Subscription, Subscriptions},
    },
};

/// SUBSCRIBE and UNSUBSCRIBE packets that may wait before reading stops.
const CONTROLS_MAX: usize = 4;

impl Session {
    /// Whether the next packet may be read. While not, the socket is left alone, and the
    /// device slows down by itself.
    #[must_use]
    pub fn can_read(&self, now: Instant) -> bool {
        let publishes_max = match self.version {
            Version::V311 => usize::from(self.limits.receive_max.get()),
            // One more than allowed must be read, to be refused; QoS 0 has no such limit.
            Version::V5 => 2 * usize::from(self.limits.receive_max.get()),
        };
        !self.is_closing
            && self.publishes.len() < publishes_max
            && self.controls.len() < CONTROLS_MAX
            && self.has_room_for_requests()
            && self.out.len() < 2 * self.limits.outbound_bytes_max
            && self.paused_until(now).is_none()
    }

    /// Takes a packet.
    pub fn handle_packet(&mut self, packet: Packet, now: Instant) {
        self.clock = now;
        self.last_heard = now;
        self.handle_sign_of_life();
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish, now),
            Packet::PubAck { packet_id } => {
                // An unknown id is harmless: the device acknowledges what it has.
                if self.inflight.acknowledge(packet_id).is_ok() {
                    self.settle();
                    self.pump();
                }
            }
            Packet::Subscribe(subscribe) => self.control(Control::Subscribe(subscribe)),
            Packet::Unsubscribe(unsubscribe) => self.control(Control::Unsubscribe(unsubscribe)),
            Packet::PingReq => frame::write_pingresp(&mut self.out),
            Packet::Disconnect {
                reason,
                session_expiry_seconds,
            } => {
                self.handle_disconnect(reason, session_expiry_seconds);
            }
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => self.close(ReasonCode::PROTOCOL_ERROR, "CONNECT was sent twice"),
        }
    }

    fn handle_publish(&mut self, publish: Publish, now: Instant) {
        if let Some(rate) = &mut self.rate {
            rate.count(now);
        }
        if publish.is_retained && self.version == Version::V5 {
            return self.close(
                ReasonCode::RETAIN_NOT_SUPPORTED,
                "conversations retain nothing",
            );
        }
        let receive_max = usize::from(self.limits.receive_max.get());
        if self.version == Version::V5
            && publish.packet_id.is_some()
            && self.publishes.len_at_least_once() >= receive_max
        {
            // [MQTT-3.3.4-9]
            let why = "more publishes in flight than the Receive Maximum of the CONNACK";
            return self.close(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, why);
        }
        let alias_max = self.limits.topic_alias_max;
        let Ok(topic) = self
            .aliases_in
            .resolve(publish.topic, publish.topic_alias, alias_max)
        else {
            return self.close(
                ReasonCode::TOPIC_ALIAS_INVALID,
                "the topic alias is unknown",
            );
        };
        let ticket = self.publishes.begin(publish.packet_id);
        let parsed = match PublishTopic::parse(&topic) {
            Ok(parsed) => parsed,
            Err(error) => {
                let code = topic_code(error, ReasonCode::TOPIC_NAME_INVALID);
                return self.refuse(ticket, topic, code, error.to_string());
            }
        };
        let payload = match self.read_payload(&parsed, publish.payload, publish.is_text) {
            Ok(payload) => payload,
            Err(error) => {
                let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
                return self.refuse(ticket, topic, code, error.to_string());
            }
        };
        match parsed {
            PublishTopic::Request(operation) => {
                let reply_to = publish.reply_to.map(|boxed| *boxed).unwrap_or_default();
                self.request(ticket, operation, &payload, reply_to);
            }
            topic => {
                self.actions.push_back(Action::Accept {
                    ticket,
                    topic,
                    payload,
                });
            }
        }
    }

    fn refuse(&mut self, ticket: Ticket, topic: String, code: ReasonCode, why: String) {
        let verdict = Verdict::Refused {
            code,
            why,
            message_id: None,
            topic,
        };
        self.handle_verdict(ticket, verdict);
    }

    fn handle_disconnect(&mut self, reason: ReasonCode, session_expiry_seconds: Option<u32>) {
        if let Some(seconds) = session_expiry_seconds {
            if seconds > 0 && self.session_expiry_seconds == 0 {
                // [MQTT-3.14.2-2] of MQTT 5
                let why = "a session that ends with its connection cannot be prolonged";
                return self.close(ReasonCode::PROTOCOL_ERROR, why);
            }
            let max = u32::try_from(self.limits.session_expiry_max.as_secs()).unwrap_or(u32::MAX);
            self.session_expiry_seconds = seconds.min(max);
        }
        self.is_closing = true;
        self.actions.push_back(Action::Close { reason });
    }

    /// Subscriptions change one packet at a time, in order.
    fn control(&mut self, control: Control) {
        self.controls.push_back(control);
        self.next_control();
    }

    fn next_control(&mut self) {
        while self.answer.is_none() {
            match self.controls.pop_front() {
                Some(Control::Subscribe(subscribe)) => self.subscribe(subscribe),
                Some(Control::Unsubscribe(unsubscribe)) => self.unsubscribe(&unsubscribe),
                None => return,
            }
        }
    }

    /// New subscriptions count from now on, before they are stored: a commit notice between
    /// the two must not be missed. The SUBACK waits for the store.
    fn subscribe(&mut self, subscribe: Subscribe) {
        let before = self.subscriptions.clone();
        let identifier = subscribe.identifier;
        let mut codes = Vec::with_capacity(subscribe.requests.len());
        for request in subscribe.requests {
            codes.push(self.grant(&request).map(|filter| {
                let SubscribeRequest {
                    filter: text,
                    qos,
                    no_local,
                } = request;
                let text = text.into_boxed_str();
                self.subscriptions.insert(Subscription {
                    text,
                    filter,
                    qos,
                    no_local,
                    identifier,
                });
                qos
            }));
        }
        let answer = Answer::SubAck {
            packet_id: subscribe.packet_id,
            codes,
            before: before.clone(),
        };
        self.has_new_subscriptions = true;
        self.store_or_answer(&before, self.subscriptions.clone(), answer);
    }

    fn grant(&self, request: &SubscribeRequest) -> Result<Filter, ReasonCode> {
        if request.filter.starts_with("$share/") {
            return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        let filter = Filter::parse(&request.filter)
            .map_err(|error| topic_code(error, ReasonCode::TOPIC_FILTER_INVALID))?;
        let is_known = self.subscriptions.contains(&request.filter);
        if !is_known && self.subscriptions.len() >= self.limits.subscriptions_max {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        Ok(filter)
    }

    /// Subscriptions that end count until that is stored: should it fail, nothing was missed.
    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let mut after = self.subscriptions.clone();
        let codes = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if after.remove(filter) {
                    ReasonCode::SUCCESS
                } else {
                    ReasonCode::NO_SUBSCRIPTION_EXISTED
                }
            })
            .collect();
        let answer = Answer::UnsubAck {
            packet_id: unsubscribe.packet_id,
            codes,
            after: after.clone(),
        };
        let before = self.subscriptions.clone();
        self.store_or_answer(&before, after, answer);
    }

    fn store_or_answer(&mut self, before: &Subscriptions, after: Subscriptions, answer: Answer) {
        self.answer = Some(Box::new(answer));
        if after == *before || !self.is_persistent() {
            return self.handle_persisted(true);
        }
        self.actions.push_back(Action::Persist(SubscriptionChange {
            before: before.coverage(),
            after: after.coverage(),
            subscriptions: after,
        }));
    }

    /// The subscriptions of [`Action::Persist`] are stored, or could not be.
    pub fn handle_persisted(&mut self, is_stored: bool) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        if self.is_closing {
            return; // [MQTT-3.14.4-1]; the device asks again
        }
        match *answer {
            Answer::SubAck {
                packet_id,
                mut codes,
                before,
            } => {
                if !is_stored {
                    codes.fill(Err(ReasonCode::IMPLEMENTATION_SPECIFIC));
                    self.subscriptions = before;
                    self.forget_uncovered();
                }
                frame::write_suback(self.version, packet_id, &codes, &mut self.out);
            }
            Answer::UnsubAck {
                packet_id,
                mut codes,
                after,
            } => {
                if is_stored {
                    self.subscriptions = after;
                    self.forget_uncovered();
                } else if self.version == Version::V311 {
                    // Its UNSUBACK cannot refuse: the device connects and asks again.
                    let why = "the store is away";
                    return self.close(ReasonCode::SERVER_UNAVAILABLE, why);
                } else {
                    codes.fill(ReasonCode::IMPLEMENTATION_SPECIFIC);
                }
                frame::write_unsuback(self.version, packet_id, &codes, &mut self.out);
            }
        }
        self.has_new_subscriptions = true;
        self.pump();
        self.next_control();
        // Subscriptions change rarely: what waited for it need not keep its memory.
        self.controls.shrink_to_fit();
        self.actions.shrink_to_fit();
    }

    fn forget_uncovered(&mut self) {
        let known: Vec<_> = self.replay.conversations().collect();
        for conversation in known {
            if self.route_of(conversation).is_none() {
                self.replay.forget(conversation);
                self.inflight.forget(conversation);
            }
        }
    }
}

fn topic_code(error: TopicError, malformed: ReasonCode) -> ReasonCode {
    match error {
        TopicError::NotGranted => ReasonCode::NOT_AUTHORIZED,
        TopicError::InvalidName | TopicError::InvalidFilter => malformed,
    }
}
