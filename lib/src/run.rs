//! From argv to an exit code: the only place that prints to stderr.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::{ExitCode, Termination};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{exit_of, visible};

/// Parses the arguments, runs the tool, reports its error as one line, and gives its exit code:
/// that of the body's result, `()` or an `ExitCode`, where there is no error.
pub fn run<A: clap::Parser, T: Termination>(
    tool: &str,
    body: impl FnOnce(A) -> anyhow::Result<T>,
) -> ExitCode {
    run_from(tool, std::env::args_os(), body)
}

/// [`run`] with arguments of the caller's; the first one is the name of the program.
pub fn run_from<A: clap::Parser, T: Termination>(
    tool: &str,
    arguments: impl IntoIterator<Item = OsString>,
    body: impl FnOnce(A) -> anyhow::Result<T>,
) -> ExitCode {
    let outcome = match A::try_parse_from(arguments) {
        Ok(args) => body(args),
        Err(asked) if !asked.use_stderr() => {
            // Help and version. A reader that went away has had what it wanted.
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(tool, &format!("{}: see '{tool} --help'", usage_line(&error)));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(done) => done.report(),
        Err(error) => {
            say(tool, &format!("{error:#}"));
            ExitCode::from(exit_of(&error) as u8)
        }
    }
}

/// Says something to the person, whether or not stderr is a terminal: a warning that must be seen.
pub fn say(tool: &str, text: &str) {
    // One write a line, so that the lines of parallel tools do not mix.
    let line = format!("{tool}: {}\n", visible(text));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Tells how far a tool has come; only to a terminal, because scripts read stderr for errors.
pub fn progress(tool: &str, text: &str) {
    if std::io::stderr().is_terminal() {
        say(tool, text);
    }
}

/// clap's message as one line, with its suggestion: `unexpected argument '--dryrun' found: did you
/// mean '--dry-run'`.
fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut line = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    if let Some(rest) = line.strip_prefix("error: ") {
        line = rest.to_owned();
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "an argument is missing".clone_into(&mut line);
    }
    for kind in
        [ContextKind::SuggestedArg, ContextKind::SuggestedValue, ContextKind::SuggestedSubcommand]
    {
        match error.get(kind) {
            Some(ContextValue::String(name)) => line = format!("{line}: did you mean '{name}'"),
            Some(ContextValue::Strings(names)) if !names.is_empty() => {
                line = format!("{line}: did you mean '{}'", names[0]);
            }
            _ => {}
        }
    }
    line
}
