//! What one receiver got of one sender's numbered messages: each once, in order, or not.

use std::collections::BTreeSet;

use crate::payload::Mark;

/// Follows the numbers 0, 1, 2, … and the broker's own sequence.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    next: u64,
    /// Numbers below `next` that did not come yet.
    missing: BTreeSet<u64>,
    sequence_last: Option<u64>,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Different messages that arrived.
    pub(crate) delivered: u64,
    /// Came again, without being marked as a repetition.
    pub(crate) doubled: u64,
    /// Came again, marked as a repetition: at-least-once allows it.
    pub(crate) repeated: u64,
    /// Came after a later one.
    pub(crate) reordered: u64,
    /// Sequences that were skipped.
    pub(crate) gaps: u64,
    /// Belonged to somebody else, or were no messages.
    pub(crate) misdelivered: u64,
}

impl Tracker {
    /// Says whether the message is here for the first time.
    pub(crate) fn note(&mut self, mark: Mark, is_repeat: bool) -> bool {
        if let Some(sequence) = mark.sequence {
            self.note_sequence(sequence);
        }
        let Some(message) = mark.message else {
            return false;
        };
        let number = message.number;
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.tally.reordered += 1;
        } else {
            let again = if is_repeat {
                &mut self.tally.repeated
            } else {
                &mut self.tally.doubled
            };
            *again += 1;
            return false;
        }
        self.tally.delivered += 1;
        true
    }

    fn note_sequence(&mut self, sequence: u64) {
        let last = self.sequence_last.unwrap_or(sequence);
        self.tally.gaps += sequence.saturating_sub(last + 1);
        self.sequence_last = Some(sequence.max(last));
    }

    pub(crate) fn note_misdelivered(&mut self) {
        self.tally.misdelivered += 1;
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Message;

    fn tally(arrivals: &[(u64, u64, bool)]) -> Tally {
        let mut tracker = Tracker::default();
        for (sequence, number, is_repeat) in arrivals.iter().copied() {
            let message = Some(Message { number, due: 0 });
            tracker.note(
                Mark {
                    sequence: Some(sequence),
                    message,
                },
                is_repeat,
            );
        }
        tracker.tally()
    }

    #[test]
    fn in_order_and_once_is_no_fault() {
        let got = tally(&[(7, 0, false), (8, 1, false), (9, 2, false)]);
        assert_eq!(
            got,
            Tally {
                delivered: 3,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn each_fault_is_counted_for_what_it_is() {
        let doubled = tally(&[(1, 0, false), (1, 0, false), (1, 0, true)]);
        assert_eq!(
            doubled,
            Tally {
                delivered: 1,
                doubled: 1,
                repeated: 1,
                ..Tally::default()
            }
        );
        let late = tally(&[(1, 0, false), (3, 2, false), (2, 1, false)]);
        assert_eq!(
            late,
            Tally {
                delivered: 3,
                reordered: 1,
                gaps: 1,
                ..Tally::default()
            }
        );
        let lost = tally(&[(1, 0, false), (4, 3, false)]);
        assert_eq!(
            lost,
            Tally {
                delivered: 2,
                gaps: 2,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn a_first_message_that_is_not_the_first_leaves_the_others_missing() {
        let late = tally(&[(2, 1, false), (1, 0, false)]);
        assert_eq!(
            late,
            Tally {
                delivered: 2,
                reordered: 1,
                ..Tally::default()
            }
        );
    }
}
