//! A network connection: bytes that arrive late, in pieces, or not at all.

use std::collections::VecDeque;

use rand::{Rng as _, rngs::SmallRng};

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// From the device to the server.
    pub(crate) up: VecDeque<u8>,
    /// From the server to the device.
    pub(crate) down: VecDeque<u8>,
    /// Nothing is sent any more; what is underway may still arrive.
    pub(crate) is_cut: bool,
}

/// The server's socket takes this many bytes that the device has not read.
const DOWN_BYTES_MAX: usize = 600;

impl Link {
    /// Cuts it at any byte of either direction.
    pub(crate) fn cut(&mut self, rng: &mut SmallRng) {
        self.is_cut = true;
        for bytes in [&mut self.up, &mut self.down] {
            bytes.truncate(rng.random_range(0..=bytes.len()));
        }
    }

    /// One side closes: what the device sends after it is lost, the rest arrives.
    pub(crate) fn close(&mut self) {
        self.is_cut = true;
    }

    /// How much the server can write now.
    pub(crate) fn room(&self) -> usize {
        DOWN_BYTES_MAX.saturating_sub(self.down.len())
    }
}

/// Takes up to `bytes_max` bytes out of one direction.
pub(crate) fn take(bytes: &mut VecDeque<u8>, bytes_max: usize) -> Vec<u8> {
    bytes.drain(..bytes_max.min(bytes.len())).collect()
}
