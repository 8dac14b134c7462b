//! The gate as a program, between a real git and a real sshd, on loopback.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests"
)]

mod attempts;
mod fetch;
mod push;
mod reload;
mod secrets;
mod support;
