//! The capabilities of Homing, tested from outside against real sockets and a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod embedded;
