//! Every metric of the process, in one place.
