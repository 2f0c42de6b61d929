//! What the process says about itself.

pub mod logs;
pub mod metrics;
