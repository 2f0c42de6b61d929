//! What a publish means: accept, commit, tell.

pub mod conversations;
pub mod identity;
