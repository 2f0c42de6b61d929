//! A phone: it sends and receives over one kept session, goes away at any moment, comes
//! back, repeats what was not acknowledged, and complains about everything that is not as
//! promised. Some of what it sends edits, retracts or reacts to what it sent before.

use std::{
    collections::{HashSet, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use homing::client::backoff::Backoff;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    broker::Addresses,
    ledger::{Acknowledged, Ledger, Phase, Place, Sent},
    wire::{Connection, Login, Packet, Publish},
};

/// The packet id of the SUBSCRIBE is 1; publishes have those after it.
const PACKET_ID_FIRST: u16 = 2;
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(5);
pub(crate) const RETRY_MAX: Duration = Duration::from_millis(200);

/// Entries at the end of a log among which it looks for something to change.
const CHANGED_MAX: usize = 100;

/// What a device is, and what it shares with the test.
pub(crate) struct Setup {
    pub(crate) login: Login,
    pub(crate) filter: String,
    /// The ids of all conversations; the places of those it sends to and receives.
    pub(crate) conversations: Arc<Vec<String>>,
    pub(crate) places: Vec<Place>,
    pub(crate) addresses: watch::Receiver<Addresses>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) seed: u64,
}

pub(crate) struct Device {
    setup: Setup,
    rng: StdRng,
    has_subscribed: bool,
    /// Sent and not acknowledged, oldest first.
    outbox: VecDeque<Outgoing>,
    window: usize,
    number: u64,
    /// The numbers of what is no message but changes one.
    changes: HashSet<u64>,
    /// Its messages, by number, that it has reacted to or retracted.
    reacted: HashSet<u64>,
    retracted: HashSet<u64>,
    packet_id: u16,
    /// By place; empty where it is no participant.
    logs: Vec<Received>,
    /// Received and not acknowledged.
    held: Vec<(u16, Place, i64)>,
    held_max: usize,
}

/// What a device got of one conversation.
#[derive(Default)]
pub(crate) struct Received {
    /// The id of each sequence, from 1.
    pub(crate) ids: Vec<String>,
    /// The newest sequence whose acknowledgement was written.
    acknowledged: i64,
    /// The same, whatever a killed broker has forgotten of it.
    acknowledged_max: i64,
    /// The newest sequence on this connection.
    current: Option<i64>,
    /// A connection on which something came ended by a DISCONNECT after so many kills, of
    /// whatever. Without another kill the next one begins right after.
    parted: Option<u64>,
}

struct Outgoing {
    packet_id: u16,
    conversation: Place,
    id: String,
    topic: String,
    payload: String,
}

/// How a connection ends if nobody kills the broker.
enum Leave {
    /// The test is over.
    End,
    Disconnect,
    /// The socket is closed without a word.
    Vanish,
    /// The next connection opens while this one is.
    Replace,
}

impl Device {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut rng = StdRng::seed_from_u64(setup.seed);
        let logs = setup
            .conversations
            .iter()
            .map(|_| Received::default())
            .collect();
        Self {
            has_subscribed: false,
            outbox: VecDeque::new(),
            window: rng.random_range(1..=16),
            number: 0,
            changes: HashSet::new(),
            reacted: HashSet::new(),
            retracted: HashSet::new(),
            packet_id: PACKET_ID_FIRST,
            logs,
            held: Vec::new(),
            held_max: 1,
            rng,
            setup,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.setup.login.client_id
    }

    pub(crate) fn user(&self) -> &str {
        &self.setup.login.user
    }

    /// What it got of the conversation at `place`.
    pub(crate) fn received(&self, place: Place) -> &Received {
        &self.logs[place]
    }

    /// Lives until the test is over.
    pub(crate) async fn run(mut self) -> Self {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut replaced = None;
        while *self.setup.phase.borrow() != Phase::End {
            let connected = self.connect().await;
            drop(replaced.take());
            let Ok(mut connection) = connected else {
                tokio::time::sleep(backoff.wait()).await;
                continue;
            };
            backoff.reset();
            match self.live(&mut connection).await {
                Ok(Leave::End) => break,
                Ok(Leave::Disconnect) => {
                    self.part(connection).await;
                    self.stay_away().await;
                }
                Ok(Leave::Vanish) => {
                    drop(connection);
                    self.stay_away().await;
                }
                Ok(Leave::Replace) => replaced = Some(connection),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.complain(&format!("the broker sent what is no MQTT: {error}"));
                }
                Err(_) => {}
            }
        }
        self
    }

    async fn connect(&mut self) -> io::Result<Connection> {
        let address = self.setup.addresses.borrow().mqtt;
        let mut connection = Connection::open(address, &self.setup.login).await?;
        match connection.next().await? {
            Packet::ConnAck {
                is_accepted: true,
                has_session,
                ..
            } => {
                if self.has_subscribed && !has_session {
                    self.complain("the broker has forgotten the session");
                }
            }
            Packet::ConnAck { code, .. } if code == "ServerUnavailable" => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            other => {
                self.complain(&format!("no CONNACK with success: {other:?}"));
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        self.held.clear();
        for log in &mut self.logs {
            log.current = None;
        }
        Ok(connection)
    }

    async fn live(&mut self, connection: &mut Connection) -> io::Result<Leave> {
        if !self.has_subscribed {
            connection.subscribe(&self.setup.filter).await?;
        }
        for outgoing in &self.outbox {
            connection.publish(outgoing.packet(true)).await?;
        }
        let mut packets_left = self.rng.random_range(20..600);
        let mut phase = self.setup.phase.clone();
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::Load => self.fill(connection).await?,
                Phase::End => return Ok(Leave::End),
                _ => {}
            }
            tokio::select! {
                packet = connection.next() => self.handle(packet?, connection).await?,
                _ = phase.changed() => {}
            }
            packets_left -= 1;
            if packets_left <= 0 && now == Phase::Load {
                return Ok(match self.rng.random_range(0..3) {
                    0 => Leave::Disconnect,
                    1 => Leave::Vanish,
                    _ => Leave::Replace,
                });
            }
        }
    }

    async fn fill(&mut self, connection: &mut Connection) -> io::Result<()> {
        while self.outbox.len() < self.window {
            let Some(outgoing) = self.compose() else {
                return Ok(());
            };
            let result = connection.publish(outgoing.packet(false)).await;
            self.outbox.push_back(outgoing);
            result?;
        }
        Ok(())
    }

    fn compose(&mut self) -> Option<Outgoing> {
        let Setup {
            conversations,
            places,
            ledger,
            ..
        } = &self.setup;
        let conversation = places[self.rng.random_range(0..places.len())];
        self.number += 1;
        let (number, sender) = (self.number, self.name().to_owned());
        let id = format!("{sender}-{number}");
        let sent = Sent {
            conversation,
            sender,
            number,
        };
        if !ledger.sent(&id, sent) {
            return None;
        }
        let topic = format!("c/{}/send", conversations[conversation]);
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(PACKET_ID_FIRST);
        let content = self
            .change(conversation)
            .unwrap_or_else(|| format!(r#""body":{number}"#));
        let payload = format!(r#"{{"id":"{id}",{content}}}"#);
        Some(Outgoing {
            packet_id: self.packet_id,
            conversation,
            id,
            topic,
            payload,
        })
    }

    /// Now and then, a change of something that it sent and got back. None changes nothing: each
    /// leaves an entry.
    fn change(&mut self, conversation: Place) -> Option<String> {
        let number = self.number;
        let kind = match number % 8 {
            3 => "edit",
            5 => "reaction",
            7 => "retract",
            _ => return None,
        };
        let own = format!("{}-", self.name());
        let newest = self.logs[conversation].ids.iter().enumerate().rev();
        let (place, target) = newest.take(CHANGED_MAX).find_map(|(place, id)| {
            let target: u64 = id.strip_prefix(&own)?.parse().ok()?;
            let is_message = !self.changes.contains(&target) && !self.retracted.contains(&target);
            let is_new = kind != "reaction" || !self.reacted.contains(&target);
            (is_message && is_new).then_some((place, target))
        })?;
        let body = match kind {
            "edit" => format!(r#","body":"edit {number}""#),
            "reaction" => r#","body":{"key":"x"}"#.to_owned(),
            _ => String::new(),
        };
        self.changes.insert(number);
        match kind {
            "reaction" => drop(self.reacted.insert(target)),
            "retract" => drop(self.retracted.insert(target)),
            _ => {}
        }
        let sequence = place + 1;
        Some(format!(r#""type":"{kind}","ref":{sequence}{body}"#))
    }

    async fn handle(&mut self, packet: Packet, connection: &mut Connection) -> io::Result<()> {
        match packet {
            Packet::SubAck => {
                self.has_subscribed = true;
                self.setup.ledger.subscribed();
            }
            Packet::PubAck {
                packet_id,
                sequence,
                refused,
            } => {
                self.acknowledged(packet_id, sequence, refused);
            }
            Packet::Publish {
                packet_id: Some(packet_id),
                topic,
                payload,
            } => {
                self.delivered(packet_id, &topic, &payload);
                if self.held.len() >= self.held_max {
                    self.acknowledge(connection).await?;
                }
            }
            // A receipt.
            Packet::Publish {
                packet_id: None, ..
            } => {}
            Packet::ConnAck { .. } | Packet::Other(_) => {
                self.complain(&format!("unexpected: {packet:?}"));
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, packet_id: u16, sequence: Option<i64>, refused: Option<String>) {
        let Some(outgoing) = self
            .outbox
            .pop_front_if(|first| first.packet_id == packet_id)
        else {
            return self.complain(&format!("PUBACK {packet_id} is not for the oldest publish"));
        };
        let Outgoing {
            conversation, id, ..
        } = outgoing;
        if let Some(code) = refused {
            return self.complain(&format!("{id} was refused: {code}"));
        }
        if sequence.is_none() && self.setup.login.version == crate::wire::Version::V5 {
            self.complain(&format!("the PUBACK of {id} names no sequence"));
        }
        self.setup.ledger.acknowledged(Acknowledged {
            conversation,
            id,
            sequence,
        });
    }

    fn delivered(&mut self, packet_id: u16, topic: &str, payload: &[u8]) {
        let place = self.setup.places.iter().copied().find(|place| {
            topic
                .strip_prefix("c/")
                .and_then(|rest| rest.strip_suffix("/messages"))
                == Some(&self.setup.conversations[*place])
        });
        let entry: Value = serde_json::from_slice(payload).unwrap_or_default();
        let (Some(place), Some(sequence), Some(id)) =
            (place, entry["seq"].as_i64(), entry["id"].as_str())
        else {
            return self.complain(&format!("not for this device: {topic} {entry}"));
        };
        let kills = self.setup.ledger.kills();
        if let Err(what) = self.logs[place].take(sequence, id, kills) {
            self.complain(&format!("{topic}: {what}"));
        }
        self.held.push((packet_id, place, sequence));
        self.setup.ledger.received(self.name(), place, sequence);
    }

    async fn acknowledge(&mut self, connection: &mut Connection) -> io::Result<()> {
        let packet_ids: Vec<u16> = self.held.iter().map(|(packet_id, ..)| *packet_id).collect();
        for (_, place, sequence) in self.held.drain(..) {
            let log = &mut self.logs[place];
            log.acknowledged = sequence;
            log.acknowledged_max = log.acknowledged_max.max(sequence);
        }
        self.held_max = self.rng.random_range(1..=12);
        connection.acknowledge(&packet_ids).await
    }

    async fn part(&mut self, connection: Connection) {
        // From before: the end that comes may be that of a killed broker.
        let kills = self.setup.ledger.kills();
        if connection.disconnect().await.is_ok() {
            for log in self.logs.iter_mut().filter(|log| log.current.is_some()) {
                log.parted = Some(kills);
            }
        }
    }

    /// Misses some messages.
    async fn stay_away(&mut self) {
        let mut counts = self.setup.ledger.counts();
        let mut phase = self.setup.phase.clone();
        let back_at = counts.borrow().acknowledged + self.rng.random_range(0..100);
        tokio::select! {
            _ = counts.wait_for(|counts| counts.acknowledged >= back_at) => {}
            _ = phase.wait_for(|phase| matches!(phase, Phase::Drain | Phase::End)) => {}
        }
    }

    fn complain(&self, what: &str) {
        self.setup
            .ledger
            .violation(format!("{}: {what}", self.name()));
    }
}

impl Outgoing {
    fn packet(&self, is_repeated: bool) -> Publish<'_> {
        let Self {
            packet_id,
            topic,
            payload,
            ..
        } = self;
        Publish {
            packet_id: *packet_id,
            is_repeated,
            topic,
            payload,
        }
    }
}

impl Received {
    /// In order and without a gap: on one connection each sequence follows the one before;
    /// a new connection begins no later than at the first that was not acknowledged.
    fn take(&mut self, sequence: i64, id: &str, kills: u64) -> Result<(), String> {
        let before = self.current.replace(sequence);
        let has_parted = self.parted.take() == Some(kills);
        if let Some(before) = before {
            if sequence != before + 1 {
                return Err(format!("{sequence} follows {before}"));
            }
        } else {
            let next = self.acknowledged + 1;
            // A killed broker's last write of cursors may come after its end.
            let never = self.acknowledged_max + 1;
            if sequence > never {
                return Err(format!(
                    "{sequence} comes first, {never} was never acknowledged"
                ));
            }
            if sequence < next && has_parted {
                return Err(format!(
                    "{sequence} comes again, acknowledged before a DISCONNECT"
                ));
            }
            // A killed broker may not have stored the last acknowledgements.
            self.acknowledged = sequence - 1;
        }
        let known = usize::try_from(sequence - 1)
            .ok()
            .and_then(|place| self.ids.get(place));
        match known {
            Some(known) if known != id => Err(format!("{sequence} was {known} and is {id} now")),
            Some(_) => Ok(()),
            None => {
                self.ids.push(id.to_owned());
                Ok(())
            }
        }
    }
}
