//! What connects a model device: MQTT of both versions, or REST with a stream of events. All of
//! them break, and then nobody knows whether what was on its way has arrived.

use homing::{
    client::cache::{Members, State},
    domain::{ids::ConversationId, message::Sequence},
};
use rand::{Rng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    client::{Client, Piece},
    events::Stream,
    truth::members,
};
use crate::harness::{Delivery, Received, TestBroker, Wire};

/// Messages that are handed to a connection at once.
const BURST: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    V5,
    V3,
    Events,
}

pub(super) enum Live {
    Mqtt(Wire),
    Events(Stream),
}

impl Client {
    pub(super) async fn connect(&mut self, broker: &TestBroker) {
        if self.live.is_some() {
            return;
        }
        let connect = match self.way {
            Way::Events => {
                self.live = Some(Live::Events(Stream::open(broker, &self.user).await));
                return;
            }
            Way::V5 => broker.v5(&self.user, &self.name),
            Way::V3 => broker.v3(&self.user, &self.name),
        };
        let (mut wire, _) = broker.connect(connect).await;
        wire.send_subscribe(&[("c/+/messages", 1), ("me/#", 1)], &[])
            .await;
        loop {
            match wire.receive().await {
                Received::SubAck { .. } => break,
                other => self.take(&mut wire, other).await,
            }
        }
        self.live = Some(Live::Mqtt(wire));
    }

    /// The connection breaks; what was on its way may be lost.
    pub(super) fn lose_connection(&mut self) {
        self.live = None;
        self.in_flight.clear();
        self.outgoing.disconnected();
        for request in self.requests.values_mut() {
            request.is_sent = false;
        }
    }

    /// Reads what is there. What is not acknowledged is lost, and comes again.
    pub(super) async fn pull(&mut self, rng: &mut StdRng) {
        match self.live.take() {
            None => {}
            Some(Live::Events(mut stream)) => {
                for (name, data) in stream.ready().await {
                    if !rng.random_ratio(1, 4) {
                        self.take_event(&name, data);
                    }
                }
                self.live = Some(Live::Events(stream));
            }
            Some(Live::Mqtt(mut wire)) => {
                if self.pull_wire(&mut wire, rng).await {
                    self.live = Some(Live::Mqtt(wire));
                } else {
                    self.lose_connection();
                }
            }
        }
    }

    /// Whether the connection has outlived it.
    async fn pull_wire(&mut self, wire: &mut Wire, rng: &mut StdRng) -> bool {
        wire.send(&[0xc0, 0]).await;
        loop {
            match wire.receive().await {
                Received::PingResp => return true,
                Received::Publish(_) if rng.random_ratio(1, 60) => return false,
                Received::PubAck(_) if rng.random_ratio(1, 10) => return false,
                // Only patches may be dropped by a server that waits for nobody.
                Received::Publish(delivery)
                    if delivery.topic == "me/inbox" && rng.random_ratio(1, 4) => {}
                other => self.take(wire, other).await,
            }
        }
    }

    /// Reads all that was sent before now.
    pub(super) async fn drain(&mut self) {
        match self.live.take() {
            Some(Live::Mqtt(mut wire)) => {
                wire.send(&[0xc0, 0]).await;
                loop {
                    match wire.receive().await {
                        Received::PingResp => break,
                        other => self.take(&mut wire, other).await,
                    }
                }
                self.live = Some(Live::Mqtt(wire));
            }
            Some(Live::Events(mut stream)) => {
                for (name, data) in stream.ready().await {
                    self.take_event(&name, data);
                }
                self.live = Some(Live::Events(stream));
            }
            None => {}
        }
    }

    async fn take(&mut self, wire: &mut Wire, received: Received) {
        match received {
            Received::Publish(delivery) => {
                if delivery.packet_id != 0 {
                    wire.acknowledge(delivery.packet_id).await;
                }
                self.take_delivery(&delivery);
            }
            Received::PubAck(puback) => {
                // Those of requests say nothing that the answer does not.
                let Some(id) = self.in_flight.remove(&puback.packet_id) else {
                    return;
                };
                if puback.code == 0 {
                    let place = puback.properties.user("seq");
                    let place = place.map(|seq| seq.parse().unwrap());
                    self.acknowledged(&id, place);
                } else {
                    let why = puback.properties.text(0x1f).unwrap_or_default();
                    self.outgoing.refused(&id, why);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A refusal that came before stands: MQTT 3.1.1 acknowledges what it refuses.
    fn acknowledged(&mut self, id: &str, place: Option<i64>) {
        if !self.has_failed(id) {
            let place = place.map(|seq| Sequence::new(seq).unwrap());
            self.outgoing.acknowledged(id, place);
        }
    }

    pub(super) fn has_failed(&self, id: &str) -> bool {
        let written = self.written.iter().find(|written| written.id == id);
        let shown = self.outgoing.shown(written.unwrap().conversation);
        let mut shown = shown.iter().filter(|(shown, _)| *shown == id);
        shown.any(|(_, sending)| matches!(sending.state, State::Failed(_)))
    }

    fn take_delivery(&mut self, delivery: &Delivery) {
        let levels: Vec<_> = delivery.topic.split('/').collect();
        match levels[..] {
            ["c", id, "messages"] => {
                let entry = members(delivery.json());
                self.arrived.push(Piece::Entry(id.parse().unwrap(), entry));
            }
            ["me", "inbox"] => self.arrived.push(Piece::Row(members(delivery.json()))),
            ["me", "device"] => self.take_told(&delivery.json()),
            _ => {}
        }
    }

    fn take_told(&mut self, told: &Value) {
        match told["event"].as_str() {
            Some("refused") => {
                let reason = told["reason"].as_str().unwrap();
                self.outgoing.refused(told["id"].as_str().unwrap(), reason);
            }
            Some("answer") => {
                let number = told["correlation"].as_u64().unwrap();
                self.answer(number, told["status"] == 200, &told["body"]);
            }
            Some("gap") => {} // missing, and found missing
            other => panic!("{other:?}: {told}"),
        }
    }

    fn take_event(&mut self, name: &str, data: Value) {
        match name {
            "message" => {
                let id: ConversationId = data["conversation"].as_str().unwrap().parse().unwrap();
                let entry = members(data["entry"].clone());
                self.arrived.push(Piece::Entry(id, entry));
            }
            "inbox" => self.arrived.push(Piece::Row(members(data))),
            // What a gap names is missing, and found missing.
            _ => {}
        }
    }

    fn answer(&mut self, number: u64, is_done: bool, body: &Value) {
        if let Some(request) = self.requests.remove(&number) {
            let row = is_done.then(|| members(body.clone()));
            self.arrived.push(Piece::Answer(request.expected, row));
        }
    }

    /// Hands over what waits. Of the changes of one row one at a time, so that a repeated one does
    /// not undo a later one.
    pub(super) async fn send_some(&mut self, broker: &TestBroker, rng: &mut StdRng) {
        let is_lossy = rng.random_ratio(1, 8);
        match self.live.take() {
            None => {}
            Some(Live::Events(stream)) => {
                self.live = Some(Live::Events(stream));
                self.send_over_rest(broker, is_lossy).await;
            }
            Some(Live::Mqtt(mut wire)) => {
                self.publish(&mut wire).await;
                self.live = Some(Live::Mqtt(wire));
                if is_lossy {
                    self.lose_connection();
                }
            }
        }
    }

    fn waiting(&self) -> Vec<(ConversationId, Members)> {
        let pending = self.outgoing.pending().into_iter().take(BURST);
        pending
            .map(|(_, sending)| (sending.conversation, sending.envelope.clone()))
            .collect()
    }

    /// The oldest change of each row, unless it is on its way.
    fn next_requests(&self) -> Vec<u64> {
        let mut rows = Vec::new();
        let mut next = Vec::new();
        for (number, request) in &self.requests {
            if !rows.contains(&request.conversation) {
                rows.push(request.conversation);
                next.extend((!request.is_sent).then_some(*number));
            }
        }
        next
    }

    async fn publish(&mut self, wire: &mut Wire) {
        for (conversation, envelope) in self.waiting() {
            let id = envelope["id"].as_str().unwrap().to_owned();
            let payload = Value::Object(envelope).to_string();
            let topic = format!("c/{conversation}/send");
            let packet_id = wire.publish(&topic, payload.as_bytes()).await;
            self.outgoing.handed_over(&id);
            self.in_flight.insert(packet_id, id);
        }
        for number in self.next_requests() {
            let request = self.requests.get_mut(&number).unwrap();
            request.is_sent = true;
            let mut payload = request.arguments.clone();
            payload.insert("conversation".into(), json!(request.conversation));
            payload.insert("correlation".into(), number.into());
            let payload = Value::Object(payload).to_string();
            wire.publish("q/inbox/set", payload.as_bytes()).await;
        }
    }

    /// Whoever loses the answer does not know what became of it.
    async fn send_over_rest(&mut self, broker: &TestBroker, is_lossy: bool) {
        let ask = async |method, path: String, body: Members| {
            let body = Some(Value::Object(body));
            let (status, body) = broker.rest(method, &self.user, &path, body).await;
            assert!(status.as_u16() < 500, "{path}: {status} {body}");
            (status, body)
        };
        let mut sent = Vec::new();
        for (conversation, envelope) in self.waiting() {
            let id = envelope["id"].as_str().unwrap().to_owned();
            let path = format!("/{conversation}/messages");
            sent.push((id, ask(Method::POST, path, envelope).await));
        }
        let mut answers = Vec::new();
        for number in self.next_requests() {
            let request = &self.requests[&number];
            let path = format!("/{}/inbox", request.conversation);
            let arguments = request.arguments.clone();
            answers.push((number, ask(Method::PATCH, path, arguments).await));
        }
        if is_lossy {
            return self.lose_connection();
        }
        for (id, (status, body)) in sent {
            if status.is_success() {
                self.acknowledged(&id, body["seq"].as_i64());
            } else {
                self.outgoing.refused(&id, &body["detail"].to_string());
            }
        }
        for (number, (status, body)) in answers {
            self.answer(number, status == StatusCode::OK, &body);
        }
    }

    /// Sends all that the user wrote and set, until nothing waits for an answer.
    pub(super) async fn flush(&mut self, broker: &TestBroker) {
        self.lose_connection();
        self.connect(broker).await;
        while !self.outgoing.pending().is_empty() || !self.requests.is_empty() {
            match self.live.take() {
                Some(Live::Mqtt(mut wire)) => {
                    self.publish(&mut wire).await;
                    while !self.in_flight.is_empty()
                        || self.requests.values().any(|request| request.is_sent)
                    {
                        let received = wire.receive().await;
                        self.take(&mut wire, received).await;
                    }
                    self.live = Some(Live::Mqtt(wire));
                }
                live => {
                    self.live = live;
                    self.send_over_rest(broker, false).await;
                }
            }
        }
    }
}
