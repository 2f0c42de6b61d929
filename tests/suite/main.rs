//! What Homing does, seen from outside; a file per capability.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
