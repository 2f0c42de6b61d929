//! What the product does, seen from outside; a file or folder per capability.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;
