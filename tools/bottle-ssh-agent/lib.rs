//! The part of the sidecar that takes hostile bytes and does no I/O of its own, apart from the
//! program so that a fuzzer and the program call the same code.

pub mod frame;
