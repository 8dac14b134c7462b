//! `bottle-egress` as a process, on loopback: a real binary, a real TLS origin, real clients.
//!
//! Each safety test attempts what is forbidden, and has a control: the same act, allowed.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test spawns, writes files and fails by panicking"
)]

mod answers;
mod audit;
mod client;
mod clients;
mod destinations;
mod dlp;
mod dlp_http2;
mod grants;
mod http2;
mod mitmproxy;
mod names;
mod origin;
mod parent;
mod passthrough;
mod raw;
mod reload;
mod requests;
mod schema;
mod secrets;
mod soak;
mod streams;
mod support;
mod table;
mod tools;
mod websocket;
