//! The device side: connect, publish, receive, acknowledge.
//!
//! ```text
//!   connect ──▶ subscribe ──▶ next ──▶ acknowledge ──▶ next ──▶ …
//!                  └────▶ publish (returns when the message is committed)
//! ```
//!
//! A [`device::Device`] is one connection, carried by rumqttc. Whoever wants to stay connected opens
//! the next one with the same client id, after [`backoff::Backoff`]: the server holds the
//! session, and a message that is sent again under its old id is stored once.
//! [`cache`] holds what such a device shows.

pub mod backoff;
pub mod cache;
pub mod device;
pub mod error;
pub mod message;
