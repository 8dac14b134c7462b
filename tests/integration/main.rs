//! Tests on a real engine; they skip aloud without one, or fail where
//! `BOTTLE_TEST_REQUIRE_ENGINE=1`.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test spawns, writes files and fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod agent;
mod apply;
mod containment;
mod demo;
mod examples;
mod gate;
mod git_ref;
mod hand;
mod image;
mod mitmproxy;
mod net;
mod origin;
mod orphans;
mod parallel;
mod pipelock;
mod readme;
mod reap;
mod render;
mod script;
mod secrets;
mod ssh;
mod supervise;
mod support;
mod terminal;
mod trust;
mod up;
mod workspace;
