//! Waiting for signals, as the first process of a container too: the kernel drops a signal that
//! process 1 has no handler for, so each that should end it gets one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bottle::Blame;
use rustix::process::WaitOptions;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// Sleeps for some seconds or for ever.
pub(crate) fn sleep(duration: &str) -> Result<ExitCode> {
    let duration = match duration {
        "infinity" => None,
        seconds => Some(
            seconds
                .parse()
                .map_err(anyhow::Error::from)
                .and_then(|seconds| Ok(Duration::try_from_secs_f64(seconds)?))
                .caller(format!("sleep for '{seconds}': give seconds or 'infinity'"))?,
        ),
    };
    until_signal(duration)
}

/// Waits until a signal asks for the end, and gives 128 and its number, as shells do; 0 if the
/// time is up first.
pub(crate) fn until_signal(limit: Option<Duration>) -> Result<ExitCode> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD]).world("wait for signals")?;
    if let Some(limit) = limit {
        let handle = signals.handle();
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            handle.close();
        });
    }
    for signal in signals.forever() {
        if signal == SIGCHLD {
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        } else {
            return Ok(code_of(signal));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a shell makes of a process that a signal ended.
pub(crate) fn code_of(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
