//! The in-flight window: QoS 1 messages sent to a device and not yet acknowledged.
//!
//! ```text
//!   send ──▶ [ 7 · 8 ✓ · 9 ✓ · 10 ] ──▶ settled
//!              ▲ unacknowledged head: nothing settles before it
//! ```
//!
//! A device may acknowledge in any order. Messages settle in the order they were sent, so
//! a restart can repeat a message but can never skip one.

use std::{collections::VecDeque, num::NonZeroU16, time::Instant};

use super::packet::PacketId;
use crate::domain::{ids::ConversationId, message::Position};

/// The in-flight window of one session. Empty, it owns no memory.
#[derive(Debug)]
pub struct Inflight {
    deliveries: VecDeque<Delivery>,
    deliveries_max: usize,
    packet_id_next: PacketId,
    /// Sent before the connection was lost and not yet sent again: the original packet id,
    /// or none if the device has acknowledged it out of order. [MQTT-4.4.0-1]
    interrupted: Vec<(Position, Option<PacketId>)>,
}

#[derive(Debug)]
struct Delivery {
    packet_id: Option<PacketId>,
    position: Position,
    committed_at: Option<Instant>,
    is_acknowledged: bool,
}

/// What a device has acknowledged, and all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub position: Position,
    /// When it was committed, if it went out live and was acknowledged.
    pub committed_at: Option<Instant>,
}

/// How a message goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Under this packet id; repeated if it was sent before.
    As {
        packet_id: PacketId,
        is_repeated: bool,
    },
    /// Not at all: the device acknowledged it before its connection was lost.
    Already,
}

/// A device acknowledged a packet that is not in flight.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet {0} is not in flight")]
pub struct NotInFlight(pub PacketId);

impl Inflight {
    /// A window for at most `deliveries_max` unacknowledged messages. `interrupted` is what
    /// the session had in flight when its last connection ended, oldest first.
    #[must_use]
    pub fn new(deliveries_max: NonZeroU16, interrupted: Vec<(Position, Option<PacketId>)>) -> Self {
        Self {
            deliveries: VecDeque::new(),
            deliveries_max: usize::from(deliveries_max.get()),
            packet_id_next: PacketId::MIN,
            interrupted,
        }
    }

    /// Whether another message may be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.deliveries.len() < self.deliveries_max
    }

    /// How many messages wait for their acknowledgement or for one before them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Puts a message in flight; `committed_at` is known if it is live. Ask
    /// [`Inflight::has_room`] before.
    pub fn send(&mut self, position: Position, committed_at: Option<Instant>) -> Sent {
        let before = self
            .interrupted
            .iter()
            .position(|(earlier, _)| *earlier == position);
        let before = before.map(|place| self.interrupted.swap_remove(place).1);
        // Who subscribes anew may have had it in flight twice; once is enough.
        self.interrupted.retain(|(earlier, _)| *earlier != position);
        let sent = match before {
            Some(Some(packet_id)) => Sent::As {
                packet_id,
                is_repeated: true,
            },
            Some(None) => Sent::Already,
            None => Sent::As {
                packet_id: self.free_packet_id(),
                is_repeated: false,
            },
        };
        let packet_id = match sent {
            Sent::As { packet_id, .. } => Some(packet_id),
            Sent::Already => None,
        };
        let is_acknowledged = packet_id.is_none();
        self.deliveries.push_back(Delivery {
            packet_id,
            position,
            committed_at,
            is_acknowledged,
        });
        sent
    }

    /// Takes the place of a message that needs no acknowledgement (QoS 0, No Local), so
    /// that it settles in its turn.
    pub fn pass(&mut self, position: Position) {
        // It may have been sent before under another subscription.
        self.interrupted.retain(|(earlier, _)| *earlier != position);
        self.deliveries.push_back(Delivery {
            packet_id: None,
            position,
            committed_at: None,
            is_acknowledged: true,
        });
    }

    /// Takes a PUBACK. Ask [`Inflight::settle`] what it settled.
    ///
    /// # Errors
    ///
    /// [`NotInFlight`] if the packet was never sent or is acknowledged already.
    pub fn acknowledge(&mut self, packet_id: PacketId) -> Result<(), NotInFlight> {
        let delivery = self
            .deliveries
            .iter_mut()
            .find(|delivery| delivery.packet_id == Some(packet_id) && !delivery.is_acknowledged)
            .ok_or(NotInFlight(packet_id))?;
        delivery.is_acknowledged = true;
        Ok(())
    }

    /// The next message that has settled, oldest first.
    pub fn settle(&mut self) -> Option<Settled> {
        let head = self.deliveries.pop_front_if(|head| head.is_acknowledged)?;
        Some(Settled {
            position: head.position,
            committed_at: head.committed_at,
        })
    }

    /// What a later connection must know, oldest first: what is not settled, with its
    /// packet id unless it is acknowledged.
    pub fn unsettled(&self) -> impl Iterator<Item = (Position, Option<PacketId>)> {
        let sent = self.deliveries.iter().map(|delivery| {
            let packet_id = delivery.packet_id.filter(|_| !delivery.is_acknowledged);
            (delivery.position, packet_id)
        });
        sent.chain(self.interrupted.iter().copied())
    }

    /// Gives up what was interrupted in a conversation that the device may no longer see.
    pub fn forget(&mut self, conversation: ConversationId) {
        self.interrupted
            .retain(|(position, _)| position.conversation != conversation);
    }

    /// The window is smaller than the id space, so a free id always exists.
    fn free_packet_id(&mut self) -> PacketId {
        loop {
            let candidate = self.packet_id_next;
            self.packet_id_next = candidate.checked_add(1).unwrap_or(PacketId::MIN);
            let sent = self
                .deliveries
                .iter()
                .any(|delivery| delivery.packet_id == Some(candidate));
            if !sent
                && !self
                    .interrupted
                    .iter()
                    .any(|(_, id)| *id == Some(candidate))
            {
                return candidate;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::message::Sequence;

    fn position(number: i64) -> Position {
        let conversation = ConversationId(uuid::Uuid::from_u128(1));
        Position {
            conversation,
            sequence: Sequence::new(number).unwrap(),
        }
    }

    fn window(size: u16) -> Inflight {
        Inflight::new(NonZeroU16::new(size).unwrap(), Vec::new())
    }

    fn settle(inflight: &mut Inflight) -> Vec<Position> {
        let settled = std::iter::from_fn(|| inflight.settle());
        settled.map(|settled| settled.position).collect()
    }

    fn packet_of(sent: Sent) -> PacketId {
        match sent {
            Sent::As { packet_id, .. } => packet_id,
            Sent::Already => panic!("not sent"),
        }
    }

    proptest! {
        /// Goal: no acknowledgement order lets the cursor skip a message.
        /// Method: acknowledge any subset of a full window in any order; what
        /// settled must be exactly the messages before the oldest one pending.
        #[test]
        fn settled_is_the_prefix_before_the_oldest_pending(
            order in Just((1..=32_i64).collect::<Vec<_>>()).prop_shuffle(),
            acknowledged in 0..=32_usize,
        ) {
            let mut inflight = window(32);
            let packets: Vec<_> =
                (1..=32).map(|number| packet_of(inflight.send(position(number), None))).collect();

            let (first, pending) = order.split_at(acknowledged);
            let mut settled = Vec::new();
            for &number in first {
                let packet = packets[usize::try_from(number - 1).unwrap()];
                inflight.acknowledge(packet).unwrap();
                settled.extend(settle(&mut inflight));
            }

            let oldest_pending = pending.iter().copied().min().unwrap_or(33);
            prop_assert_eq!(settled, (1..oldest_pending).map(position).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_interrupted_message_keeps_its_packet_id() {
        let seven = PacketId::new(7).unwrap();
        let one = PacketId::new(1).unwrap();
        let interrupted = vec![
            (position(1), Some(seven)),
            (position(2), None),
            (position(3), Some(one)),
        ];
        let mut inflight = Inflight::new(NonZeroU16::new(8).unwrap(), interrupted);

        assert_eq!(
            inflight.send(position(1), None),
            Sent::As {
                packet_id: seven,
                is_repeated: true
            }
        );
        assert_eq!(inflight.send(position(2), None), Sent::Already);
        let fresh = inflight.send(position(9), None);
        assert_eq!(
            fresh,
            Sent::As {
                packet_id: PacketId::new(2).unwrap(),
                is_repeated: false
            }
        );

        inflight.acknowledge(seven).unwrap();
        let settled = settle(&mut inflight);
        assert_eq!(settled, [position(1), position(2)]);
    }

    #[test]
    fn a_packet_is_acknowledged_once() {
        let mut inflight = window(2);
        let first = packet_of(inflight.send(position(1), None));
        packet_of(inflight.send(position(2), None));
        assert!(!inflight.has_room());
        let second = PacketId::new(2).unwrap();
        inflight.acknowledge(second).unwrap();
        assert_eq!(inflight.acknowledge(second), Err(NotInFlight(second)));
        assert_eq!(inflight.settle(), None);
        inflight.acknowledge(first).unwrap();
        assert_eq!(settle(&mut inflight), [position(1), position(2)]);
    }
}
