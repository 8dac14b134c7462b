//! `bottle-egress`: the way out of a bottle. An intercepting proxy and a DNS that answers the
//! bottle's own names; both refuse, explain and record all else.

use std::process::ExitCode;

mod args;
mod ca;
mod check;
mod conf;
mod connect;
mod dial;
mod dns;
mod forward;
mod headers;
mod journal;
mod lanes;
mod pool;
mod prefixed;
mod proxy;
mod reply;
mod resolve;
mod send;
mod serve;
mod tls;
mod tunnel;
mod watch;

use args::{Args, Verb};

fn main() -> ExitCode {
    bottle::run("bottle-egress", |args: Args| match args.verb {
        Verb::Serve(args) => serve::serve(&args),
        Verb::Ca(args) => ca::print(&args),
        Verb::Check(args) => check::check(&args),
    })
}
