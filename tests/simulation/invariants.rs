//! What must hold after every step, told from the bytes that a server really wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use homing::{
    domain::{ids::ConversationId, message::Position},
    mqtt::packet::{PacketId, Version},
};

use crate::{
    log::{Conversation, Device, User},
    wire::{Delivery, FromServer, Reader},
};

/// Nothing, or what was violated.
pub(crate) type Check = Result<(), String>;

/// A place in the log that can be sorted.
pub(crate) type Place = (ConversationId, i64);

pub(crate) fn place(position: Position) -> Place {
    (position.conversation, position.sequence.get())
}

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// What is known of one session, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether the device gets back what it has published itself.
    pub(crate) no_local: bool,
    /// The server has read its PUBACK.
    pub(crate) acknowledged: BTreeSet<Place>,
    /// Sent with QoS 0.
    pub(crate) sent_freely: BTreeSet<Place>,
    /// Where each conversation's log ended when it was subscribed to.
    pub(crate) floors: BTreeMap<ConversationId, i64>,
    /// The same, when the store took the subscription: everything after it is promised.
    pub(crate) promised: BTreeMap<ConversationId, i64>,
}

impl Watch {
    pub(crate) fn new(no_local: bool) -> Self {
        Self {
            no_local,
            ..Self::default()
        }
    }

    /// Whether the device needs this entry no more.
    pub(crate) fn is_done(&self, device: Device, log: &Conversation, sequence: i64) -> bool {
        let place = (log.id, sequence);
        let is_own = self.no_local && log.sender(sequence) == Some(device);
        is_own || self.acknowledged.contains(&place) || self.sent_freely.contains(&place)
    }

    /// A cursor moves to `to`: it may pass nothing that the device still needs.
    pub(crate) fn check_cursor(&self, who: Who, log: &Conversation, stored: i64, to: i64) -> Check {
        let floor = self.floors.get(&log.id).copied().unwrap_or(0);
        for sequence in floor.max(stored) + 1..=to {
            let is_done = !log.shows(who.user, sequence) || self.is_done(who.device, log, sequence);
            ensure(is_done, || {
                format!(
                    "{who:?}: the cursor moves to {to} and skips {sequence} of {}",
                    log.id
                )
            })?;
        }
        Ok(())
    }

    /// After all is healed: everything promised has arrived.
    pub(crate) fn check_promise(&self, who: Who, log: &Conversation) -> Check {
        let Some(stay) = log.stay(who.user) else {
            return Ok(());
        };
        let floor = self.promised.get(&log.id).copied().unwrap_or(0);
        let end = stay.left.unwrap_or(i64::MAX).min(log.head());
        for sequence in floor.max(stay.joined - 1) + 1..=end {
            ensure(self.is_done(who.device, log, sequence), || {
                format!("{who:?}: {sequence} of {} never arrived", log.id)
            })?;
        }
        Ok(())
    }
}

/// Whose session it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) user: User,
    pub(crate) device: Device,
}

/// Reads along what a server writes to one connection.
#[derive(Debug)]
pub(crate) struct Tap {
    reader: Reader,
    who: Who,
    packet_bytes_max: usize,
    inflight_max: usize,
    /// What an earlier connection left unacknowledged, as the store remembers it.
    interrupted: BTreeMap<Place, Option<PacketId>>,
    /// Sent and not acknowledged.
    inflight: BTreeMap<PacketId, Place>,
    last: BTreeMap<ConversationId, i64>,
    settled: BTreeMap<ConversationId, i64>,
    /// Subscribed to anew on this connection.
    begun: BTreeSet<ConversationId>,
    is_over: bool,
    /// When the server took the last packet of the device.
    pub(crate) heard_at: Instant,
    pub(crate) is_suspect: bool,
}

impl Tap {
    pub(crate) fn new(
        version: Version,
        who: Who,
        packet_bytes_max: Option<u32>,
        inflight_max: u16,
        interrupted: BTreeMap<Place, Option<PacketId>>,
        now: Instant,
    ) -> Self {
        Self {
            reader: Reader::new(version),
            who,
            packet_bytes_max: packet_bytes_max.unwrap_or(u32::MAX) as usize,
            inflight_max: usize::from(inflight_max),
            interrupted,
            inflight: BTreeMap::new(),
            last: BTreeMap::new(),
            settled: BTreeMap::new(),
            begun: BTreeSet::new(),
            is_over: false,
            heard_at: now,
            is_suspect: false,
        }
    }

    /// Bytes were written.
    pub(crate) fn see(&mut self, bytes: &[u8], log: &[Conversation], watch: &mut Watch) -> Check {
        self.reader.push(bytes);
        while let Some(packet) = self.reader.read()? {
            let who = self.who;
            ensure(!self.is_over, || {
                format!("{who:?}: {packet:?} after DISCONNECT")
            })?;
            match packet {
                FromServer::Disconnected => self.is_over = true,
                FromServer::Delivery(delivery) => {
                    self.delivered(&delivery, log, watch)?;
                }
                _ => {}
            }
        }
        let largest = self.reader.packet_bytes_max;
        ensure(largest <= self.packet_bytes_max, || {
            format!("{:?}: a packet of {largest} bytes is too large", self.who)
        })
    }

    fn delivered(&mut self, delivery: &Delivery, log: &[Conversation], watch: &mut Watch) -> Check {
        let Some((id, sequence)) = entry_of(delivery) else {
            return Ok(());
        };
        let who = self.who;
        let named = || format!("{who:?}: {sequence} of {id}");
        let log = log.iter().find(|log| log.id == id);
        let log = log.ok_or_else(|| format!("{} is in no log", named()))?;
        ensure(log.ever_showed(who.user, sequence), || {
            format!("{} is not for this user", named())
        })?;
        self.check_order(log, sequence, watch)?;
        let Some(packet_id) = delivery.packet_id else {
            watch.sent_freely.insert((id, sequence));
            return Ok(());
        };
        let original = self.interrupted.remove(&(id, sequence));
        ensure(original != Some(None), || {
            format!(
                "{} was acknowledged out of order and is sent again",
                named()
            )
        })?;
        let original = original.flatten();
        ensure(delivery.is_repeated == original.is_some(), || {
            format!("{} has the wrong DUP", named())
        })?;
        ensure(original.is_none_or(|id| id == packet_id), || {
            format!("{} has lost its packet id {original:?}", named())
        })?;
        let earlier = self.inflight.insert(packet_id, (id, sequence));
        ensure(earlier.is_none(), || {
            format!(
                "{}: {packet_id} is still in flight for {earlier:?}",
                named()
            )
        })?;
        ensure(self.inflight.len() <= self.inflight_max, || {
            format!("{}: {} in flight", named(), self.inflight.len())
        })
    }

    fn check_order(&mut self, log: &Conversation, sequence: i64, watch: &Watch) -> Check {
        let who = self.who;
        let Some(last) = self.last.insert(log.id, sequence) else {
            return Ok(());
        };
        ensure(last < sequence, || {
            format!("{who:?}: {sequence} after {last} of {}", log.id)
        })?;
        let floor = watch.floors.get(&log.id).copied().unwrap_or(0);
        for missing in last.max(floor) + 1..sequence {
            let is_own = watch.no_local && log.sender(missing) == Some(who.device);
            let is_known = is_own
                || !log.shows(who.user, missing)
                || self.interrupted.get(&(log.id, missing)) == Some(&None);
            ensure(is_known, || {
                format!("{who:?}: {sequence} of {} before {missing}", log.id)
            })?;
        }
        Ok(())
    }

    /// A conversation is subscribed to anew: a late notice may repeat what was sent before.
    pub(crate) fn begin(&mut self, id: ConversationId) {
        self.last.remove(&id);
        self.begun.insert(id);
    }

    /// The server has read a PUBACK.
    pub(crate) fn acknowledged(&mut self, packet_id: PacketId, watch: &mut Watch) {
        if let Some(place) = self.inflight.remove(&packet_id) {
            watch.acknowledged.insert(place);
        }
    }

    /// Only who owes an acknowledgement and is silent for so long is suspect; told once.
    pub(crate) fn suspected(&mut self, is_suspect: bool, now: Instant, after: Duration) -> Check {
        let (who, silence) = (self.who, now - self.heard_at);
        ensure(is_suspect != self.is_suspect, || {
            format!("{who:?}: suspect ({is_suspect}) is told twice")
        })?;
        let is_due = !self.inflight.is_empty() && silence >= after;
        ensure(!is_suspect || is_due, || {
            format!("{who:?}: suspect after {silence:?}")
        })?;
        self.is_suspect = is_suspect;
        Ok(())
    }

    /// Within a connection, cursors only rise.
    pub(crate) fn settled(&mut self, (id, sequence): Place) -> Check {
        let before = self.settled.insert(id, sequence).unwrap_or(0);
        ensure(before < sequence || self.begun.contains(&id), || {
            format!(
                "{:?}: the cursor goes back from {before} to {sequence}",
                self.who
            )
        })
    }

    /// A connection ended in good order: whatever is in flight is remembered.
    pub(crate) fn check_remembered(&self, unsettled: &[(Position, Option<PacketId>)]) -> Check {
        for (packet_id, place_sent) in &self.inflight {
            let is_remembered = unsettled
                .iter()
                .any(|(position, id)| place(*position) == *place_sent && *id == Some(*packet_id));
            ensure(is_remembered, || {
                format!("{:?}: {place_sent:?} as {packet_id} is forgotten", self.who)
            })?;
        }
        for (position, packet_id) in unsettled {
            let place = place(*position);
            let is_owed = |id: &PacketId| {
                self.inflight.get(id) == Some(&place)
                    || self.interrupted.get(&place) == Some(&Some(*id))
            };
            ensure(packet_id.as_ref().is_none_or(is_owed), || {
                format!(
                    "{:?}: {place:?} is remembered and was acknowledged",
                    self.who
                )
            })?;
        }
        Ok(())
    }
}

/// The entry of the log that a delivery carries, if it is one.
fn entry_of(delivery: &Delivery) -> Option<Place> {
    let id = delivery
        .topic
        .strip_prefix("c/")?
        .strip_suffix("/messages")?
        .parse()
        .ok()?;
    let json: serde_json::Value = serde_json::from_slice(&delivery.payload).ok()?;
    Some((id, json.get("seq")?.as_i64()?))
}
