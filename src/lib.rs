//! Homing: a messaging broker for mobile and constrained devices.
//!
//! The modules, in the order of their layers; `ARCHITECTURE.md` draws the picture and
//! `tests/architecture.rs` keeps it true.

pub mod domain;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod telemetry;

#[cfg(feature = "server")]
pub mod mqtt;
#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "server")]
pub mod bridge;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod broker;
pub mod client;
#[cfg(feature = "server")]
pub mod push;

#[cfg(feature = "server")]
pub mod lifecycle;
#[cfg(feature = "server")]
pub mod serve;
