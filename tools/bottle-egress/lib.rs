//! `bottle-egress`: the way out of a bottle. An intercepting proxy and a DNS that answers the
//! bottle's own names; both refuse, explain and record all else.
//!
//! A library only so that fuzzers and benches call the code that the program runs. What takes bytes
//! and does no I/O is public; [`main`] is the program.

use std::process::ExitCode;

mod args;
mod body;
mod ca;
mod check;
mod conf;
mod connect;
mod counted;
mod dial;
pub mod dlp;
mod dns;
mod exchange;
mod forward;
mod gate;
mod grants;
mod headers;
mod hello;
mod inject;
mod journal;
mod judge;
mod lanes;
mod leaks;
mod mask;
mod parent;
mod passage;
mod passthrough;
mod place;
mod pool;
mod prefixed;
mod proxy;
mod raw;
mod reply;
mod resolve;
mod revoke;
mod scan;
mod secrets;
mod send;
mod serve;
mod strict;
mod tls;
#[cfg(any(test, feature = "trial"))]
pub mod trial;
mod tunnel;
mod upgrade;
mod watch;
mod websocket;

use args::{Args, Verb};

/// Runs the program, from its arguments to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    bottle::run("bottle-egress", |args: Args| match args.verb {
        Verb::Serve(args) => serve::serve(&args),
        Verb::Judge(args) => judge::judge(&args),
        Verb::Ca(args) => ca::print(&args),
        Verb::Check(args) => check::check(&args),
        Verb::Scan(args) => scan::scan(&args),
    })
}
