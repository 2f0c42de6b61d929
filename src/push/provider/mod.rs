//! The thin clients of the providers, all on one HTTP stack.
