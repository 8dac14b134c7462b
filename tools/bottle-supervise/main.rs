//! `bottle-supervise`: the agent's way to learn what is allowed, why something was denied, and to ask
//! for more. It decides nothing: what it writes are proposals, and what it reads are answers.

use std::process::ExitCode;

mod args;
mod denials;
mod desk;
mod inputs;
mod pace;
mod rules;
mod serve;
mod tools;

use args::Args;

/// The name that messages begin with.
const TOOL: &str = "bottle-supervise";

fn main() -> ExitCode {
    bottle::run(TOOL, |args: Args| serve::serve(&args))
}
