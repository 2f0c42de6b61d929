//! Publishes of a device that wait for their verdict.
//!
//! Several commit at the same time and end in any order; their acknowledgements leave in
//! the order of the publishes. [MQTT-4.6.0-2]

use std::collections::VecDeque;

use super::packet::PacketId;
use super::reason::ReasonCode;
use crate::domain::message::Sequence;

/// Names one publish of a connection until its verdict is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Committed, now or at an earlier attempt, under this sequence.
    Committed(Sequence),
    /// Committed; it has no sequence of its own (a receipt).
    Done,
    /// It will never be taken as it is.
    Refused {
        code: ReasonCode,
        why: String,
        message_id: Option<String>,
        topic: String,
    },
}

/// The publishes of one connection, oldest first. Empty, it owns no memory.
#[derive(Debug, Default)]
pub struct Publishes {
    slots: VecDeque<Slot>,
    first: u64,
}

#[derive(Debug)]
struct Slot {
    packet_id: Option<PacketId>,
    verdict: Option<Verdict>,
}

impl Publishes {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many of them the client wants acknowledged.
    #[must_use]
    pub fn len_at_least_once(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.packet_id.is_some())
            .count()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A publish came in; QoS 0 has no packet id.
    pub fn begin(&mut self, packet_id: Option<PacketId>) -> Ticket {
        self.slots.push_back(Slot {
            packet_id,
            verdict: None,
        });
        Ticket(self.first + self.slots.len() as u64 - 1)
    }

    /// Its verdict is in. A ticket of an earlier connection is ignored.
    pub fn end(&mut self, ticket: Ticket, verdict: Verdict) {
        let place = ticket
            .0
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            slot.verdict = Some(verdict);
        }
    }

    /// The oldest publish, if its verdict is in.
    pub fn poll(&mut self) -> Option<(Option<PacketId>, Verdict)> {
        let slot = self.slots.pop_front_if(|slot| slot.verdict.is_some())?;
        self.first += 1;
        slot.verdict.map(|verdict| (slot.packet_id, verdict))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: acknowledgements leave in the order of the publishes, each once.
        /// Method: end eight publishes in any order, polling after each.
        #[test]
        fn acknowledgements_leave_in_order(
            order in Just((0..8_u16).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut publishes = Publishes::default();
            let tickets: Vec<_> = (1..=8).map(|id| publishes.begin(PacketId::new(id))).collect();
            let mut left = Vec::new();
            for place in order {
                publishes.end(tickets[usize::from(place)], Verdict::Done);
                left.extend(std::iter::from_fn(|| publishes.poll()).map(|(id, _)| id.unwrap().get()));
            }
            prop_assert_eq!(left, (1..=8).collect::<Vec<_>>());
            prop_assert!(publishes.is_empty());
        }
    }
}
