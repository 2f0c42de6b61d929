//! An honest device: it keeps what was not acknowledged and says it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use homing::{
    domain::ids::ConversationId,
    mqtt::packet::{PacketId, Version},
};
use rand::{Rng as _, rngs::SmallRng};

use crate::{
    invariants::{Check, ensure},
    link::{Link, take},
    log::{Conversation, Device, User},
    wire::{self, FromServer, Hello, Reader, Wish},
};

/// A message that the server has not acknowledged.
#[derive(Clone, Debug)]
struct Outgoing {
    id: String,
    topic: String,
    payload: String,
    packet_id: u16,
}

/// A SUBSCRIBE (with a wish) or UNSUBSCRIBE that has no answer yet.
#[derive(Clone, Debug)]
struct Request {
    packet_id: u16,
    filter: String,
    wish: Option<Wish>,
}

#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) device: Device,
    pub(crate) user: User,
    pub(crate) hello: Hello,
    /// The filters it uses.
    pub(crate) menu: Vec<(String, Wish)>,
    /// Its place among the links, while it has one.
    pub(crate) link: Option<usize>,
    pub(crate) is_connected: bool,
    /// A slow reader takes nothing for a while.
    pub(crate) is_reading: bool,
    reader: Reader,
    packet_id_next: u16,
    messages: u32,
    outgoing: Vec<Outgoing>,
    /// The PUBACKs that must come next.
    expected: VecDeque<u16>,
    requests: Vec<Request>,
    granted: BTreeSet<String>,
    unacknowledged: Vec<PacketId>,
}

impl Phone {
    pub(crate) fn new(device: Device, user: User, hello: Hello, menu: Vec<(String, Wish)>) -> Self {
        let reader = Reader::new(hello.version);
        Self {
            device,
            user,
            hello,
            menu,
            link: None,
            is_connected: false,
            is_reading: true,
            reader,
            packet_id_next: 1,
            messages: 0,
            outgoing: Vec::new(),
            expected: VecDeque::new(),
            requests: Vec::new(),
            granted: BTreeSet::new(),
            unacknowledged: Vec::new(),
        }
    }

    fn version(&self) -> Version {
        self.hello.version
    }

    /// Whether it waits for nothing.
    pub(crate) fn is_content(&self) -> bool {
        self.is_connected
            && self.outgoing.is_empty()
            && self.requests.is_empty()
            && self.unacknowledged.is_empty()
    }

    /// Filters whose last change was answered, and whether they are granted.
    pub(crate) fn certain(&self) -> BTreeMap<&str, bool> {
        let is_open = |filter: &str| self.requests.iter().any(|one| one.filter == filter);
        self.menu
            .iter()
            .map(|(filter, _)| filter.as_str())
            .filter(|filter| !is_open(filter))
            .map(|filter| (filter, self.granted.contains(filter)))
            .collect()
    }

    pub(crate) fn connect(&mut self, place: usize, link: &mut Link) {
        self.link = Some(place);
        self.reader = Reader::new(self.version());
        self.is_connected = false;
        self.unacknowledged.clear();
        self.expected.clear();
        link.up.extend(wire::connect(&self.hello));
    }

    pub(crate) fn lose_link(&mut self) {
        self.link = None;
        self.is_connected = false;
    }

    pub(crate) fn publish(
        &mut self,
        conversation: ConversationId,
        body: usize,
        rng: &mut SmallRng,
        link: &mut Link,
    ) {
        self.messages += 1;
        let id = format!("{}-{}", self.device, self.messages);
        let topic = format!("c/{conversation}/send");
        let body = "x".repeat(body);
        let payload = format!("{{\"id\":\"{id}\",\"body\":\"{body}\"}}");
        if rng.random_bool(0.1) {
            let bytes = wire::publish(self.version(), &topic, None, false, payload);
            return link.up.extend(bytes);
        }
        // What the server grants: an MQTT 3.1.1 client cannot know, and sends more.
        let window = if self.version() == Version::V5 { 4 } else { 7 };
        if self.outgoing.len() >= window {
            return;
        }
        let packet_id = self.free_packet_id();
        let outgoing = Outgoing {
            id,
            topic,
            payload,
            packet_id,
        };
        self.send(&outgoing, false, link);
        self.outgoing.push(outgoing);
    }

    fn send(&mut self, outgoing: &Outgoing, is_repeated: bool, link: &mut Link) {
        let Outgoing {
            topic,
            payload,
            packet_id,
            ..
        } = outgoing;
        self.expected.push_back(*packet_id);
        let (version, payload) = (self.version(), payload.clone());
        let bytes = wire::publish(version, topic, Some(*packet_id), is_repeated, payload);
        link.up.extend(bytes);
    }

    /// Subscribes to a filter of its menu, or unsubscribes if it has it.
    pub(crate) fn change(&mut self, place: usize, link: &mut Link) {
        let (filter, wish) = self.menu[place].clone();
        if self.requests.iter().any(|open| open.filter == filter) {
            return;
        }
        let wish = (!self.granted.contains(&filter)).then_some(wish);
        self.request(filter, wish, link);
    }

    fn request(&mut self, filter: String, wish: Option<Wish>, link: &mut Link) {
        let packet_id = self.free_packet_id();
        let version = self.version();
        link.up.extend(match wish {
            Some(wish) => wire::subscribe(version, packet_id, &filter, wish),
            None => wire::unsubscribe(version, packet_id, &filter),
        });
        self.requests.push(Request {
            packet_id,
            filter,
            wish,
        });
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            let candidate = self.packet_id_next;
            self.packet_id_next = candidate % 20 + 1;
            let is_used = self.outgoing.iter().any(|open| open.packet_id == candidate)
                || self.requests.iter().any(|open| open.packet_id == candidate);
            if !is_used {
                return candidate;
            }
        }
    }

    /// Acknowledges one delivery, any of them.
    pub(crate) fn acknowledge(&mut self, rng: &mut SmallRng, link: &mut Link) {
        if !self.unacknowledged.is_empty() {
            let place = rng.random_range(0..self.unacknowledged.len());
            let packet_id = self.unacknowledged.remove(place);
            link.up.extend(wire::puback(self.version(), packet_id));
        }
    }

    pub(crate) fn ping(&self, link: &mut Link) {
        link.up.extend(wire::ping(self.version()));
    }

    pub(crate) fn disconnect(&mut self, link: &mut Link) {
        link.up.extend(wire::disconnect(self.version()));
        link.close();
        self.lose_link();
    }

    /// Takes what has arrived.
    pub(crate) fn receive(
        &mut self,
        bytes_max: usize,
        link: &mut Link,
        log: &[Conversation],
        refused: &BTreeSet<String>,
    ) -> Check {
        self.reader.push(&take(&mut link.down, bytes_max));
        while self.link.is_some()
            && let Some(packet) = self.reader.read()?
        {
            match packet {
                FromServer::Connected { is_session_present } => {
                    self.connected(is_session_present, link);
                }
                FromServer::Refused => return Err(format!("device {} is refused", self.device)),
                FromServer::Delivery(delivery) => self.unacknowledged.extend(delivery.packet_id),
                FromServer::Acknowledged {
                    packet_id,
                    is_taken,
                } => self.acknowledged(packet_id, is_taken, log, refused)?,
                FromServer::Subscribed {
                    packet_id,
                    is_granted,
                } => self.answered(packet_id, is_granted)?,
                FromServer::Unsubscribed { packet_id, is_done } => {
                    self.answered(packet_id, is_done)?;
                }
                FromServer::Pong => {}
                FromServer::Disconnected => {
                    link.close();
                    self.lose_link();
                }
            }
        }
        Ok(())
    }

    fn connected(&mut self, is_session_present: bool, link: &mut Link) {
        self.is_connected = true;
        for outgoing in self.outgoing.clone() {
            self.send(&outgoing, is_session_present, link);
        }
        let mut open = std::mem::take(&mut self.requests);
        if !is_session_present {
            let menu = self.menu.iter();
            for (filter, wish) in menu.filter(|(filter, _)| self.granted.contains(filter)) {
                let (packet_id, filter, wish) = (0, filter.clone(), Some(*wish));
                open.retain(|one| one.filter != filter);
                open.push(Request {
                    packet_id,
                    filter,
                    wish,
                });
            }
            self.granted.clear();
        }
        for Request { filter, wish, .. } in open {
            self.request(filter, wish, link);
        }
    }

    fn acknowledged(
        &mut self,
        packet_id: u16,
        is_taken: bool,
        log: &[Conversation],
        refused: &BTreeSet<String>,
    ) -> Check {
        let device = self.device;
        let expected = self.expected.pop_front();
        ensure(expected == Some(packet_id), || {
            format!("device {device}: PUBACK {packet_id}, but {expected:?} is next")
        })?;
        let place = self
            .outgoing
            .iter()
            .position(|open| open.packet_id == packet_id);
        let place = place.ok_or_else(|| format!("device {device}: PUBACK {packet_id} twice"))?;
        let message = self.outgoing.remove(place).id;
        let is_stored = log.iter().any(|log| log.known.contains_key(&message));
        let was_refused = refused.contains(&message);
        let is_true = match self.version() {
            Version::V311 => is_stored || was_refused,
            Version::V5 if is_taken => is_stored,
            Version::V5 => was_refused,
        };
        ensure(is_true, || {
            format!("device {device}: {message} acknowledged ({is_taken}), stored {is_stored}")
        })
    }

    fn answered(&mut self, packet_id: u16, is_done: bool) -> Check {
        let place = self
            .requests
            .iter()
            .position(|open| open.packet_id == packet_id);
        let place = place.ok_or_else(|| format!("{packet_id} answers nothing"))?;
        let Request { filter, wish, .. } = self.requests.remove(place);
        match (is_done, wish) {
            (true, Some(_)) => drop(self.granted.insert(filter)),
            (true, None) => drop(self.granted.remove(&filter)),
            (false, _) => {}
        }
        Ok(())
    }
}
