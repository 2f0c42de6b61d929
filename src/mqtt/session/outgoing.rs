//! What goes out: verdicts, deliveries, receipts, events.

use std::num::NonZeroU32;

use bytes::Bytes;

use super::{Action, Session};
use crate::{
    domain::{
        envelope::{DeviceEvent, stub_json},
        ids::ConversationId,
        message::{LogEntry, SharedEntry},
        topic::{Leaf, ME_DEVICE},
    },
    mqtt::{
        alias::Written,
        frame::{self, Delivery, PubAckDetail},
        inflight::Sent,
        packet::{PacketId, QoS, Version},
        publishes::{Ticket, Verdict},
        reason::ReasonCode,
        replay::{Next, PageRequest},
        subscriptions::Route,
    },
};

impl Session {
    /// The verdict on a publish is in. Acknowledgements leave in the order of the publishes.
    pub fn handle_verdict(&mut self, ticket: Ticket, verdict: Verdict) {
        self.publishes.end(ticket, verdict);
        while let Some((packet_id, verdict)) = self.publishes.poll() {
            match verdict {
                Verdict::Committed(sequence) => {
                    let sequence = Decimal::new(sequence.get());
                    let detail = [(PubAckDetail::Sequence, sequence.as_str())];
                    self.acknowledge(packet_id, ReasonCode::SUCCESS, &detail);
                }
                Verdict::Done => self.acknowledge(packet_id, ReasonCode::SUCCESS, &[]),
                Verdict::Refused {
                    code,
                    why,
                    message_id,
                    topic,
                } => {
                    if self.version == Version::V311 || packet_id.is_none() {
                        // A PUBACK of MQTT 3.1.1 cannot refuse, and QoS 0 has none. It comes
                        // first: whoever has the PUBACK has been told.
                        let event = DeviceEvent::Refused {
                            topic,
                            id: message_id,
                            code: code.0,
                            reason: why.clone(),
                        };
                        self.send_event(&event);
                    }
                    let detail = [(PubAckDetail::Reason, why.as_str())];
                    self.acknowledge(packet_id, code, &detail);
                }
            }
        }
        self.pump();
    }

    fn acknowledge(
        &mut self,
        packet_id: Option<PacketId>,
        code: ReasonCode,
        detail: &[(PubAckDetail, &str)],
    ) {
        // [MQTT-3.14.4-1]: nothing follows a DISCONNECT.
        if let Some(packet_id) = packet_id.filter(|_| !self.is_closing) {
            let detail = if self.wants_problem_information {
                detail
            } else {
                &[]
            };
            frame::write_puback(self.version, packet_id, code, detail, &mut self.out);
        }
    }

    /// The user begins to take part in a conversation, once more or for the first time, with
    /// entry `from`, of which a notice follows.
    pub fn handle_beginning(&mut self, conversation: ConversationId, from: i64) {
        self.replay.begin(conversation, from);
    }

    /// Entries `from..=to` of a conversation were committed and are for this user.
    pub fn handle_notice(
        &mut self,
        conversation: ConversationId,
        from: i64,
        to: i64,
        entries: &[SharedEntry],
    ) {
        if self.route_of(conversation).is_some() {
            self.replay.hear(conversation, from, to, entries);
            self.pump();
        }
    }

    /// A page of [`Action::Read`]: what the user may see, in order; none if the read failed
    /// and should be repeated.
    pub fn handle_page(&mut self, page: PageRequest, entries: Option<Vec<SharedEntry>>) {
        match entries {
            Some(entries) => {
                if entries.is_empty() {
                    self.inflight.forget(page.conversation);
                }
                if let Some((from, to)) = self.replay.read(page, entries) {
                    let conversation = page.conversation;
                    self.send_event(&DeviceEvent::Gap {
                        conversation,
                        from,
                        to,
                    });
                }
            }
            None => self.replay.read_failed(page),
        }
        self.pump();
    }

    /// A participant's new position. A slow reader gets a later one.
    pub fn handle_receipt(&mut self, conversation: ConversationId, payload: &[u8]) {
        self.send_of(conversation, Leaf::Receipts, "receipts", payload);
    }

    /// A participant types, or does not any more. A slow reader is not told.
    pub fn handle_typing(&mut self, conversation: ConversationId, payload: &[u8]) {
        self.send_of(conversation, Leaf::Typing, "typing", payload);
    }

    fn send_of(&mut self, conversation: ConversationId, leaf: Leaf, name: &str, payload: &[u8]) {
        if self.subscriptions.route(&conversation, leaf).is_some() {
            let identifiers = self.identifiers(conversation, leaf);
            let topic = format!("c/{conversation}/{name}");
            self.send_at_most_once(&topic, &identifiers, payload);
        }
    }

    /// Something that concerns this device alone.
    pub fn send_event(&mut self, event: &DeviceEvent) {
        if self.subscriptions.cover_mine(ME_DEVICE) {
            self.handle_mine(ME_DEVICE, &event.json());
        }
    }

    /// Something for this user alone, on a topic that begins with `me/`. At most once: it is
    /// a state that can be asked for.
    pub fn handle_mine(&mut self, topic: &str, payload: &[u8]) {
        if self.subscriptions.cover_mine(topic) {
            let identifiers: Vec<_> = self.subscriptions.identifiers_mine(topic).collect();
            self.send_at_most_once(topic, &identifiers, payload);
        }
    }

    /// Writes a payload of JSON as the device reads it.
    fn send_at_most_once(&mut self, topic: &str, identifiers: &[NonZeroU32], json: &[u8]) {
        let payload = self.encoded(topic, json);
        self.write_at_most_once(&at_most_once(topic, identifiers, &payload));
    }

    pub(super) fn write_at_most_once(&mut self, delivery: &Delivery<'_>) {
        let fits = self.fits(delivery);
        if !fits || self.is_closing || self.out.len() >= self.limits.outbound_bytes_max {
            self.events_dropped = self.events_dropped.saturating_add(1);
            return;
        }
        delivery.write(self.version, &mut self.out);
    }

    /// Output was written: there may be room for more.
    pub fn handle_written(&mut self) {
        self.pump();
    }

    /// Sends what the window and the reader's pace allow.
    pub(super) fn pump(&mut self) {
        while !self.is_closing {
            let may_deliver =
                self.inflight.has_room() && self.out.len() < self.limits.outbound_bytes_max;
            match self.replay.next(may_deliver) {
                Some(Next::Deliver(entry)) => self.deliver(&entry),
                Some(Next::Read(page)) => self.actions.push_back(Action::Read(page)),
                None => return,
            }
        }
    }

    fn deliver(&mut self, entry: &LogEntry) {
        let position = entry.position;
        let Some(route) = self.route_of(position.conversation) else {
            return;
        };
        if route.no_local && entry.sender_device == Some(self.device) {
            // [MQTT-3.8.3-3]
            self.inflight.pass(position);
            return self.settle_passed();
        }
        let (packet_id, is_repeated) = match route.qos {
            QoS::AtMostOnce => (None, false),
            QoS::AtLeastOnce => match self.inflight.send(position, entry.committed_at) {
                Sent::As {
                    packet_id,
                    is_repeated,
                } => {
                    self.remember_soon();
                    self.expect_sign_of_life();
                    (Some(packet_id), is_repeated)
                }
                Sent::Already => return self.settle_passed(),
            },
        };
        let is_written = self.write_entry(entry, packet_id, is_repeated, self.encoded_entry(entry))
            || {
                // [MQTT-3.1.2-24]: never a packet larger than the client takes.
                let stub: Bytes = stub_json(position.conversation, position.sequence);
                let stub = self.encoded("c/", &stub);
                self.write_entry(entry, packet_id, is_repeated, &stub)
            };
        if !is_written {
            let why = "your Maximum Packet Size is too small for any message";
            return self.close(ReasonCode::PACKET_TOO_LARGE, why);
        }
        self.repeated = self.repeated.saturating_add(is_repeated.into());
        if packet_id.is_none() {
            self.inflight.pass(position);
            self.settle_passed();
        }
    }

    fn write_entry(
        &mut self,
        entry: &LogEntry,
        packet_id: Option<PacketId>,
        is_repeated: bool,
        payload: &[u8],
    ) -> bool {
        let conversation = entry.position.conversation;
        let identifiers = self.identifiers(conversation, Leaf::Messages);
        let topic = MessagesTopic::new(conversation);
        let mut delivery = Delivery {
            topic: topic.as_str(),
            topic_alias: None,
            packet_id,
            is_repeated,
            subscription_ids: &identifiers,
            correlation_data: None,
            payload,
        };
        if !self.fits(&delivery) {
            return false;
        }
        match self.aliases_out.write(conversation) {
            Written::Plain => {}
            Written::Setting(alias) => {
                delivery.topic_alias = Some(alias);
                if !self.fits(&delivery) {
                    self.aliases_out.forget(conversation);
                    delivery.topic_alias = None;
                }
            }
            Written::Alias(alias) => (delivery.topic, delivery.topic_alias) = ("", Some(alias)),
        }
        delivery.write(self.version, &mut self.out);
        true
    }

    pub(super) fn fits(&self, delivery: &Delivery<'_>) -> bool {
        self.packet_bytes_max
            .is_none_or(|max| delivery.packet_bytes(self.version) <= max.get() as usize)
    }

    fn identifiers(&self, conversation: ConversationId, leaf: Leaf) -> Vec<NonZeroU32> {
        self.subscriptions
            .identifiers(&conversation, leaf)
            .collect()
    }

    pub(super) fn route_of(&self, conversation: ConversationId) -> Option<Route> {
        self.subscriptions.route(&conversation, Leaf::Messages)
    }

    /// The device acknowledged something.
    pub(super) fn settle(&mut self) {
        self.settle_passed();
        self.remember_soon();
    }

    fn settle_passed(&mut self) {
        while let Some(settled) = self.inflight.settle() {
            self.settled.push(settled);
        }
    }
}

/// What nobody acknowledges.
pub(super) fn at_most_once<'a>(
    topic: &'a str,
    subscription_ids: &'a [NonZeroU32],
    payload: &'a [u8],
) -> Delivery<'a> {
    Delivery {
        topic,
        topic_alias: None,
        packet_id: None,
        is_repeated: false,
        subscription_ids,
        correlation_data: None,
        payload,
    }
}

/// A number as text, without an allocation.
struct Decimal {
    text: [u8; 20],
    length: usize,
}

impl Decimal {
    fn new(number: i64) -> Self {
        use std::io::Write as _;
        let mut text = [0; 20];
        let mut rest = &mut text[..];
        write!(rest, "{number}").expect("an i64 has at most 20 characters");
        let length = 20 - rest.len();
        Self { text, length }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).expect("digits are ASCII")
    }
}

/// `c/{cid}/messages`, without an allocation.
struct MessagesTopic([u8; 33]);

impl MessagesTopic {
    fn new(conversation: ConversationId) -> Self {
        use std::io::Write as _;
        let mut text = [0; 33];
        write!(&mut text[..], "c/{conversation}/messages").expect("the topic has 33 characters");
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the topic is ASCII")
    }
}
