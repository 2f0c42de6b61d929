//! All of MQTT: no socket, no clock, no async.
//!
//! Bytes come in through [`codec`], time as an argument, and [`session`] says what must
//! happen next: bytes to write, messages to accept, pages of the log to read. Whoever drives
//! it (the broker's connection task, or the simulation) does the waiting.

pub mod alias;
pub mod codec;
pub mod frame;
pub mod inflight;
pub mod packet;
pub mod publishes;
pub mod rate;
pub mod reason;
pub mod replay;
pub mod session;
pub mod subscriptions;
