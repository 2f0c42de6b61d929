//! A hash over entries of a log, by which a device finds out that it holds the same ones as the
//! server.
//!
//! The sum, modulo 2^64, of the first eight bytes (big endian) of SHA-256("{seq}:{from}:{id}") of
//! each entry, as the log brings it. It covers which entries there are, in which order and of
//! whom; not their content, which may be taken back.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Members, number, text};

/// Entries of a thread that are hashed, the newest ones: 8 kB.
const ENTRIES_MAX: usize = 1_000;

/// The hash of the entries `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub from: i64,
    pub to: i64,
    pub sum: u64,
}

impl Hash {
    /// As the server wants it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"from": self.from, "to": self.to, "value": format!("{:016x}", self.sum)})
    }
}

/// The hash of each of the entries that followed one upon the other, the newest one last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hashes(VecDeque<u64>);

impl Hashes {
    /// The entry after the newest one.
    pub(super) fn push(&mut self, entry: &Members) {
        match hash(entry) {
            Some(hash) => self.0.push_back(hash),
            None => self.0.clear(), // it is none of the server's
        }
        self.keep(ENTRIES_MAX);
    }

    /// Forgets all but that many of the newest ones.
    pub(super) fn keep(&mut self, newest: usize) {
        self.0.drain(..self.0.len().saturating_sub(newest));
    }

    /// The hash of at most `entries_max` of them, of which the newest one is at `to`.
    pub(super) fn up_to(&self, to: i64, entries_max: usize) -> Option<Hash> {
        let count = self.0.len().min(entries_max);
        let from = to + 1 - i64::try_from(count).ok()?;
        let newest = self.0.iter().rev().take(count);
        let sum = newest.fold(0, |sum: u64, hash| sum.wrapping_add(*hash));
        (count > 0).then_some(Hash { from, to, sum })
    }
}

fn hash(entry: &Members) -> Option<u64> {
    let (seq, from, id) = (
        number(entry, "seq")?,
        text(entry, "from")?,
        text(entry, "id")?,
    );
    let digest: [u8; 32] = Sha256::digest(format!("{seq}:{from}:{id}")).into();
    let first = digest.first_chunk()?;
    Some(u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: i64, from: &str, id: &str) -> Members {
        let entry = json!({"seq": seq, "from": from, "id": id, "type": "text", "body": "x"});
        entry.as_object().unwrap().clone()
    }

    /// Goal: another author of a client computes the same; the numbers are those of `sha256sum`.
    #[test]
    fn the_hashes_of_entries_add_up() {
        let mut hashes = Hashes::default();
        assert_eq!(hashes.up_to(0, 9), None);
        let entries = [(1, "ann", "m1"), (2, "ben", "m2"), (3, "ann", "e1")];
        for (seq, from, id) in entries {
            hashes.push(&entry(seq, from, id));
        }
        let first = Hash {
            from: 1,
            to: 3,
            sum: 0x7b56_2b5d_9813_e818,
        };
        assert_eq!(hashes.up_to(3, 9), Some(first));
        let value = json!({"from": 1, "to": 3, "value": "7b562b5d9813e818"});
        assert_eq!(first.json(), value);
        let newest = hashes.up_to(3, 1).unwrap();
        assert_eq!((newest.from, newest.to), (3, 3));
        assert_eq!(newest.json()["value"], "5b9e9add4f13171d");
        hashes.keep(1);
        assert_eq!(hashes.up_to(3, 9), Some(newest));
        assert_eq!(hashes.up_to(3, 0), None);
    }

    #[test]
    fn past_the_bound_the_oldest_entry_is_not_hashed() {
        let mut hashes = Hashes::default();
        for seq in 1..1_002 {
            hashes.push(&entry(seq, "ann", "m"));
        }
        assert_eq!(hashes.up_to(1_001, usize::MAX).unwrap().from, 2);
    }

    #[test]
    fn what_names_nobody_has_no_hash() {
        let mut hashes = Hashes::default();
        hashes.push(&entry(1, "ann", "m1"));
        let mut nameless = entry(2, "ann", "m2");
        nameless.remove("from");
        hashes.push(&nameless);
        assert_eq!(hashes.up_to(2, 9), None);
    }
}
