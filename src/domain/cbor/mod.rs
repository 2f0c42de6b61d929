//! The CBOR of what travels (RFC 8949): the JSON of it, with numbers for the names of members.
//!
//! ```text
//!   {"seq": 42, "id": "0198f3c2-…", "from": "alice", "at": 1766400000123, "type": "text", "body": "on my way"}
//!   {1: 42, 2: h'0198f3c2…', 3: "alice", 4: 1766400000123, 5: 0, 6: "on my way"}
//! ```
//!
//! Nothing below the sessions knows CBOR: what a device sends becomes JSON, and JSON becomes
//! what it receives. Both directions lose nothing but the order of members and the spelling of
//! numbers. What is written is deterministic (RFC 8949, 4.2.1): equal JSON gives equal bytes.
//!
//! - [`members`] says which members have numbers, and which hold ids that travel as 16 bytes.
//!   Other members keep their names, and so does everything inside what is the application's.
//! - A body of bytes, `bytes` in JSON, is a byte string in the place of `body`.
//! - What serde cannot hold (nested too deep, a number beyond any float, half a surrogate)
//!   travels as the JSON text it is, in a byte string with tag 262.

mod decode;
mod encode;
mod members;
#[cfg(test)]
mod tests;

pub use decode::{CborError, to_json};
pub use encode::from_json;

/// Arrays and maps inside each other, at most.
pub const DEPTH_MAX: usize = 128;

/// Embedded JSON, in the registry of CBOR tags.
const TAG_JSON: u64 = 262;

/// What a payload is, as its topic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// On `c/…`: `body` is the application's.
    Entry,
    /// On `q/…` and `me/…`: `body` is the server's, and has members with numbers itself.
    Answer,
}

impl Document {
    /// What the payloads of a topic are.
    #[must_use]
    pub fn on(topic: &str) -> Self {
        if topic.starts_with("c/") {
            Self::Entry
        } else {
            Self::Answer
        }
    }
}
