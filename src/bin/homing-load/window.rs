//! The publishes of one sender that are not acknowledged yet, by packet id.

use crate::clock::Nanos;

#[derive(Debug)]
pub(crate) struct Window {
    /// When each publish was due; at `packet_id & mask`.
    due: Vec<Option<Nanos>>,
    size: usize,
    in_flight: usize,
    packet_id_next: u16,
    acknowledged_next: u16,
    out_of_order: u64,
}

impl Window {
    pub(crate) fn new(size: u16) -> Self {
        let slots = (usize::from(size) + 1).next_power_of_two();
        Self {
            due: vec![None; slots],
            size: usize::from(size),
            in_flight: 0,
            packet_id_next: 1,
            acknowledged_next: 1,
            out_of_order: 0,
        }
    }

    /// Takes a place for a publish that was due at `due`; nothing if all are taken.
    pub(crate) fn publish(&mut self, due: Nanos) -> Option<u16> {
        let packet_id = self.packet_id_next;
        let slot = self.slot(packet_id);
        if self.in_flight == self.size || self.due[slot].is_some() {
            return None;
        }
        self.due[slot] = Some(due);
        self.in_flight += 1;
        self.packet_id_next = after(packet_id);
        Some(packet_id)
    }

    /// Frees its place and says when the publish was due; nothing if it was not in flight.
    pub(crate) fn acknowledge(&mut self, packet_id: u16) -> Option<Nanos> {
        let slot = self.slot(packet_id);
        let due = self.due[slot].take()?;
        self.in_flight -= 1;
        self.out_of_order += u64::from(packet_id != self.acknowledged_next);
        self.acknowledged_next = after(packet_id);
        Some(due)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight == 0
    }

    /// Acknowledgements that did not come in the order of the publishes [MQTT-4.6.0-2].
    pub(crate) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    fn slot(&self, packet_id: u16) -> usize {
        usize::from(packet_id) & (self.due.len() - 1)
    }
}

/// Packet id 0 does not exist.
fn after(packet_id: u16) -> u16 {
    packet_id.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_over_all_packet_ids() {
        let mut window = Window::new(3);
        for round in 0..70_000 {
            let first = window.publish(round).unwrap();
            let second = window.publish(round).unwrap();
            let third = window.publish(round).unwrap();
            assert!(first != 0 && second != 0 && third != 0);
            assert_eq!(window.publish(round), None);
            for packet_id in [first, second, third] {
                assert_eq!(window.acknowledge(packet_id), Some(round));
            }
        }
        assert!(window.is_empty());
        assert_eq!(window.out_of_order(), 0);
    }

    #[test]
    fn acknowledgements_out_of_order_are_noticed_and_strangers_ignored() {
        let mut window = Window::new(4);
        let first = window.publish(1).unwrap();
        let second = window.publish(2).unwrap();
        assert_eq!(window.acknowledge(second), Some(2));
        assert_eq!(window.acknowledge(second), None);
        assert_eq!(window.acknowledge(first), Some(1));
        assert_eq!(window.out_of_order(), 2);
    }
}
