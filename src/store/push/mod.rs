//! Push: tokens, jobs, and the ledger of what became of them.

pub mod settings;
pub mod tokens;
