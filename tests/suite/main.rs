//! The product from outside, and its store: one file for each capability.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod bad_input;
mod command_line;
mod connect;
mod convergence;
mod deliver;
mod embedded;
mod epoch;
mod faults;
mod format;
mod fresh;
mod groups;
mod harness;
mod in_step;
mod inbox;
mod interop;
mod kinds;
mod last_seen;
mod limits;
mod membership;
mod metrics;
mod outage;
mod presence;
#[path = "../providers/mod.rs"]
mod providers;
mod publish;
mod push;
mod push_fakes;
mod push_providers;
mod push_settings;
mod push_store;
mod rates;
mod receipts;
mod receipts_counts;
mod receipts_devices;
mod receipts_retry;
mod receipts_status;
mod reconcile;
mod refusals;
mod requests;
mod requests_wait;
mod sessions;
mod sign_out;
mod state;
mod stop;
mod store;
mod thread;
mod tls;
mod typing;
mod websocket;
mod writes;
