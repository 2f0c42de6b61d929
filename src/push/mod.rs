//! The push gateway: wakes devices that do not answer.
//!
//! It reads the outbox, as its own consumer, and knows nothing of the broker: what a device
//! has acknowledged, and whether it is connected, stands in the store.

pub mod notification;
pub mod provider;
