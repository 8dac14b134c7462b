//! The commands that the tests run in an agent's container, whose image has no shell.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use bottle::{Blame, caller};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::sleep::code_of;

/// Copies stdin to stdout.
pub(crate) fn cat() -> Result<ExitCode> {
    std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).world("copy stdin to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints each word on a line.
pub(crate) fn echo(words: &[String]) -> Result<ExitCode> {
    let text: String = words.iter().flat_map(|word| [word, "\n"]).collect();
    std::io::stdout().write_all(text.as_bytes()).world("print")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the size of the terminal, and again whenever it changes.
pub(crate) fn winsize() -> Result<ExitCode> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGWINCH]).world("wait for signals")?;
    print_size()?;
    for signal in signals.forever() {
        if signal != SIGWINCH {
            return Ok(code_of(signal));
        }
        print_size()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_size() -> Result<()> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin())
        .map_err(|_| caller("read the terminal's size: stdin is no terminal"))?;
    writeln!(std::io::stdout(), "{} rows {} columns", size.ws_row, size.ws_col).world("print")
}
