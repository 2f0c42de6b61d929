//! Push: tokens, jobs, and the ledger of what became of them.
