//! `bottle-git-gate`: an agent's way to its remotes. It speaks git's own protocol, and leaves all of
//! it but the first message to git; what a push may change, its hook judges, which is this program by
//! another name.

use std::path::Path;
use std::process::ExitCode;

mod args;
mod attempt;
mod commits;
mod conf;
mod git;
mod grants;
mod hook;
mod journal;
mod mirror;
mod patch;
mod scan;
mod serve;
mod session;

use args::{Args, Verb};

const TOOL: &str = "bottle-git-gate";

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    if name.is_some_and(|name| Path::new(&name).ends_with("pre-receive")) {
        return hook::run();
    }
    bottle::run(TOOL, |args: Args| match args.verb {
        Verb::Serve(args) => serve::serve(args),
        Verb::Check(args) => serve::check(&args),
        Verb::Try(args) => attempt::attempt(&args),
    })
}
