//! Homing: a messaging broker for mobile and constrained devices.
//!
//! The modules, in the order of their layers; `ARCHITECTURE.md` draws the picture and
//! `tests/architecture.rs` keeps it true.

pub mod domain;
#[cfg(feature = "server")]
pub mod config;
