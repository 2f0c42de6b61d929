//! Everything that is SQL.

pub mod embedded;
