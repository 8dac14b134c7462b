//! What the bottle tools share.
//!
//! The contract, in twenty lines:
//!
//! - A tool reads one JSON document on stdin, sets its own section, and writes the document to
//!   stdout, once, at its end. It reads to the end before its first side effect, and if it fails,
//!   nothing goes to stdout. Empty stdin is refused, so a broken pipeline fails closed.
//! - Sections that a tool does not know pass through untouched, to the byte. Unknown fields of a
//!   known section are refused: a misspelt rule must never mean "no rule".
//! - Setting a section twice is setting it once. Pure tools are deterministic to the byte.
//! - A tool that acted and then cannot write its stdout undoes what it did.
//! - A document never holds a secret. It names the variable, file or command that does.
//! - stdout carries the document only; stderr one line, `tool: verb phrase: cause`.
//! - Exit codes: 0 done, 1 the honest no, 2 the caller's fault, 3 the world's fault.
//!
//! The laws of this crate: it knows no tool; type modules do no I/O; only [`spawn`] spawns; only
//! [`state`] writes files; only [`mod@run`] prints to stderr or decides an exit code.

pub mod apply;
pub mod compose;
pub mod credentials;
pub mod diff;
pub mod docker;
pub mod document;
pub mod error;
pub mod gate;
pub mod grant;
pub mod host;
pub mod image;
pub mod inventory;
pub mod lease;
pub mod live;
pub mod manifest;
pub mod name;
pub mod net;
pub mod owner;
pub mod path;
pub mod pins;
pub mod pipelock;
pub mod plan;
pub mod policy;
pub mod proposal;
pub mod reap;
pub mod record;
pub mod remote;
pub mod render;
pub mod report;
pub mod rules;
pub mod run;
pub mod scalar;
pub mod seal;
pub mod secret;
pub mod serve;
pub mod source;
pub mod spawn;
pub mod ssh;
pub mod state;
pub mod story;
pub mod strict;
pub mod trust;
pub mod up;
pub mod verdict;

pub use document::Document;
pub use error::{Blame, Exit, caller, no, world};
pub use name::Slug;
pub use run::run;
