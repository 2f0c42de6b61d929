//! Signals, the graceful stop and its deadline.
