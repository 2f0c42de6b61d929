//! Apple's, Google's and a browser maker's push service, on loopback: stricter than they are.
//!
//! ```text
//!   Providers    all three, with TLS and HTTP/2; what a deployment needs to reach them in a folder
//!   Fault        what is to go wrong with a token: scripted, or named in the token itself
//!   Seen         what has arrived, been accepted, been refused: tests wait for a fact of it
//!   ConnectProxy for clients that insist on the names of Google
//!   BlackHole    a network that swallows everything and says nothing
//! ```
//!
//! What the real ones would let pass, and is a mistake all the same, is refused with a reason
//! that begins with `strict: `.

mod answer;
mod apns;
mod aps;
mod clock;
pub(crate) mod credentials;
mod fake;
mod fcm;
mod fcm_message;
mod jwt;
mod network;
mod oauth;
pub(crate) mod script;
pub(crate) mod seen;
mod server;
mod subscription;
mod web;

pub(crate) use credentials::{APP, KEY_ID, PROJECT, TEAM_ID};
pub(crate) use fake::{Options, Providers};
pub(crate) use network::{BlackHole, ConnectProxy};
pub(crate) use script::{EVERY, Fault, Gate, OAUTH, apns_token};
pub(crate) use seen::{Accepted, Kind, Seen};
pub(crate) use subscription::Subscription;
