//! The product from outside, and its store: one file for each capability.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod command_line;
mod embedded;
mod store;
