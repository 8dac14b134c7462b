//! Children: the only module that starts a program. [`crate::docker`] starts the engine's clients by
//! it, and [`crate::secret`] the commands that secrets come from.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Which signals of a terminal reach a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Those that reach this tool: it is in the same process group.
    Ours,
    /// None: it has a process group of its own.
    Own,
}

/// Starts a program with stdin, stdout and stderr.
pub fn start<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    env: &[(&str, &str)],
    [stdin, stdout, stderr]: [Stdio; 3],
    group: Group,
) -> std::io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "the only spawner")]
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().copied()).stdin(stdin).stdout(stdout).stderr(stderr);
    if group == Group::Own {
        command.process_group(0);
    }
    command.spawn()
}

/// Starts a program that knows nothing of this one: of its environment only what is given, and in a
/// process group of its own, so that [`wait`] ends all of it.
pub fn start_alone<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    env: &[(String, String)],
    [stdin, stdout, stderr]: [Stdio; 3],
) -> std::io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "the only spawner")]
    let mut command = Command::new(program);
    command.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    command.args(args).stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    command.spawn()
}

/// A file in memory that a child writes into, and the end that it gets. Not a pipe: nobody has to
/// read while it runs, and whatever of its children lives on holds nobody up.
pub fn memory() -> std::io::Result<(File, Stdio)> {
    // Sealing has to be allowed when it is made.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("output", flags)?);
    let end = file.try_clone()?.into();
    Ok((file, end))
}

/// Waits for the end of a child and kills it where that takes too long: then `None`.
pub fn wait(
    mut child: Child,
    group: Group,
    patience: Duration,
) -> std::io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(&child);
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = done.send(child.wait());
    });
    if let Ok(status) = outcome.recv_timeout(patience) {
        return status.map(Some);
    }
    // Killed by number, because the waiting thread has the child; it has not been waited for yet,
    // so the number is still its own.
    let _ = match group {
        Group::Ours => kill_process(pid, Signal::KILL),
        Group::Own => kill_process_group(pid, Signal::KILL),
    };
    Ok(None)
}
