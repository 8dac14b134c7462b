//! Tests that need no engine.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test spawns, writes files and fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod compose;
mod contract;
mod examples;
mod glue;
mod laws;
mod man;
mod manifests;
mod net;
mod probe;
mod transcripts;
mod up;
