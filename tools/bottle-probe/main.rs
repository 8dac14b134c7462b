//! `bottle-probe`: tries what an agent might try. Called as `sleep` it is the smallest agent.

mod args;
mod attempt;
mod check;
mod connect;
mod fetch;
mod get;
mod origin;
mod sleep;
mod small;
mod targets;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Args, Command};

fn main() -> ExitCode {
    bottle::run::run_from("bottle-probe", arguments(), |args: Args| match args.command {
        Command::Check(args) => check::check(&args),
        Command::Get(args) => get::get(&args),
        Command::Origin(args) => origin::serve(&args),
        Command::Sleep(args) => sleep::sleep(&args.duration),
        Command::Cat => small::cat(),
        Command::Echo(args) => small::echo(&args.words),
        Command::Exit(args) => Ok(ExitCode::from(args.code)),
        Command::Winsize => small::winsize(),
    })
}

/// The arguments, with the subcommand that the name of the program stands for: a link to this
/// binary that is called `sleep` sleeps.
fn arguments() -> Vec<OsString> {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    if called.is_some_and(|name| name == "sleep") {
        args.insert(1, "sleep".into());
    }
    args
}
