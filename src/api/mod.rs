//! REST, for what is not a stream.
