//! The nouns every other module speaks in. No I/O, no clock, no async.

pub mod address;
pub mod cbor;
pub mod change;
pub mod envelope;
pub mod format;
pub mod ids;
pub mod message;
pub mod patch;
pub mod presence;
pub mod problem;
pub mod push;
pub mod receipt;
pub mod request;
pub mod settings;
pub mod thread;
pub mod topic;
pub mod typing;
