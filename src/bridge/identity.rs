//! Who a token speaks for.
