//! How log lines look and which are written.
