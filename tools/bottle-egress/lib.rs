//! The part of egress that takes hostile bytes and does no I/O, apart from the program so that a
//! fuzzer, a bench and the program itself call the same code.

pub mod dlp;
