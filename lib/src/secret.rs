//! Where secrets come from, and the folder by which their values reach egress.
//!
//! Values are read at the last moment, by `bottle-up` and `bottle-apply`, and only those that some
//! route adds. They go into one file, 0600, in a folder that egress alone has mounted; nothing of
//! them is told, whatever goes wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;
use rustix::fs::{SealFlags, fcntl_add_seals};

use crate::credentials::{Credentials, Value};
use crate::docker;
use crate::error::{Blame, caller, visible, world};
use crate::plan::{Plan, Secret};
use crate::render::EGRESS;
use crate::spawn::{self, Group};
use crate::state;

/// The largest value in bytes, which leaves room for the rest of a head.
const MAX: usize = 16 << 10;

/// How much of what a command says on stderr is kept, and shown.
const KEPT: u64 = 64 << 10;
const SHOWN: usize = 200;

/// The file of values, in a folder of its own.
const FILE: &str = "secrets.json";

/// Checks that the source of every secret is there, without reading one.
pub fn check(plan: &Plan) -> Result<()> {
    plan.secrets.iter().try_for_each(|(name, secret)| source(name, secret))
}

fn source(name: &str, secret: &Secret) -> Result<()> {
    let what = format!("find secret '{name}'");
    match secret {
        Secret { from_env: Some(variable), .. } => match std::env::var_os(variable) {
            Some(value) if !value.is_empty() => Ok(()),
            Some(_) => Err(caller(format!("{what}: variable '{variable}' is empty: set it"))),
            None => Err(caller(format!("{what}: variable '{variable}' is not set: export it"))),
        },
        Secret { from_file: Some(path), .. } => readable(path).caller(what),
        Secret { from_command: Some(command), .. } => {
            let program = command.first().map_or("", String::as_str);
            which::which(program).map(drop).map_err(|_| {
                caller(format!(
                    "{what}: command '{program}' is not there: install it, or mend PATH"
                ))
            })
        }
        Secret { from_env: None, from_file: None, from_command: None } => Err(caller(format!(
            "{what}: it names no source: give from_env, from_file or from_command"
        ))),
    }
}

/// Whether a file can be read by this process. It is not opened, because a pipe would wait.
pub fn readable(path: &Path) -> Result<()> {
    let what = || format!("read '{}'", path.display());
    if std::fs::metadata(path).caller(what())?.is_dir() {
        return Err(caller(format!("{}: it is a folder", what())));
    }
    rustix::fs::access(path, rustix::fs::Access::READ_OK).caller(what())
}

/// Reads the values of secrets. `group` is [`Group::Ours`] where a command may ask the person at
/// the terminal something.
pub fn read<'a>(
    secrets: impl IntoIterator<Item = (&'a str, &'a Secret)>,
    group: Group,
) -> Result<BTreeMap<String, Value>> {
    let read = |(name, secret): (&str, &Secret)| {
        let what = || format!("read secret '{name}'");
        let bytes = bytes(secret, group).world(what())?;
        let value = value(bytes).map_err(|why| caller(format!("{}: {why}", what())))?;
        Ok((name.to_owned(), value))
    };
    secrets.into_iter().map(read).collect()
}

fn bytes(secret: &Secret, group: Group) -> Result<Vec<u8>> {
    // More than fits, so that what is too long is seen to be; whole pages, as sealing counts.
    let enough = MAX as u64 + (4 << 10);
    match secret {
        Secret { from_env: Some(variable), .. } => {
            use std::os::unix::ffi::OsStringExt;
            let set = std::env::var_os(variable).filter(|value| !value.is_empty());
            let set = set.ok_or_else(|| {
                caller(format!("variable '{variable}' is not set or empty: export it"))
            })?;
            Ok(set.into_vec())
        }
        Secret { from_file: Some(path), .. } => {
            readable(path)?;
            let what = || format!("read '{}'", path.display());
            if !std::fs::metadata(path).caller(what())?.is_file() {
                return Err(caller(format!("{}: it is not a regular file", what())));
            }
            let mut bytes = Vec::new();
            let file = File::open(path).caller(what())?;
            file.take(enough).read_to_end(&mut bytes).world(what())?;
            Ok(bytes)
        }
        Secret { from_command: Some(command), .. } => output(command, enough, group),
        Secret { .. } => {
            Err(caller("it names no source: give from_env, from_file or from_command"))
        }
    }
}

/// What a command prints. It is not run by a shell, reads nothing, and is given the time of a call
/// of the engine.
fn output(command: &[String], limit: u64, group: Group) -> Result<Vec<u8>> {
    let Some((word, args)) = command.split_first() else {
        return Err(caller("'from_command' is empty: name a program"));
    };
    let program = which::which(word)
        .map_err(|_| caller(format!("command '{word}' is not there: install it, or mend PATH")))?;
    let what = || format!("run '{word}'");
    let limited = |size| -> std::io::Result<_> {
        let (file, end) = spawn::memory()?;
        file.set_len(size)?;
        // Whoever prints more fails, in place of filling the memory.
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok((file, end))
    };
    let (mut stdout, its_stdout) = limited(limit).world("make a memory file")?;
    let (mut stderr, its_stderr) = limited(KEPT).world("make a memory file")?;
    let ends = [Stdio::null(), its_stdout, its_stderr];
    let patience = docker::patience()?;
    let child = spawn::start(&program, args, &[], ends, group).world(what())?;
    let ended = spawn::wait(child, group, patience).world(what())?;
    // They write where we read, and so say how much there is.
    let said = |file: &mut File| -> std::io::Result<Vec<u8>> {
        let length = file.stream_position()?;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let printed = said(&mut stdout).world(what())?;
    match ended {
        None => Err(world(format!("{}: it did not end in {} s", what(), patience.as_secs()))),
        // Of one that printed too much that is the reason, whatever it ended with.
        Some(status) if status.success() || printed.len() > MAX + 2 => Ok(printed),
        Some(status) => {
            let told = said(&mut stderr).world(what())?;
            Err(world(format!("{}: it ended with {status}: {}", what(), last(&told, &printed))))
        }
    }
}

/// The last line that a command said, unless it says what it printed.
fn last(told: &[u8], printed: &[u8]) -> String {
    let told = String::from_utf8_lossy(told);
    let Some(line) = told.lines().map(str::trim).rfind(|line| !line.is_empty()) else {
        return "it said nothing".to_owned();
    };
    let printed = String::from_utf8_lossy(printed);
    if printed.lines().map(str::trim).any(|it| !it.is_empty() && line.contains(it)) {
        return "what it said holds what it printed, and is not shown".to_owned();
    }
    visible(&line[..line.floor_char_boundary(SHOWN)])
}

/// The value in what was read: without one newline at its end, and fit for a header.
fn value(mut bytes: Vec<u8>) -> Result<Value, &'static str> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.len() > MAX {
        return Err("it is longer than 16 KiB");
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    if text.trim().is_empty() {
        return Err("it is empty");
    }
    if text.contains(['\n', '\r']) {
        return Err("it has more than one line, which fits into no header");
    }
    if text.contains(char::is_control) {
        return Err("it holds control characters, which fit into no header");
    }
    Ok(Value::new(text))
}

/// The folder, in that of a bottle, by which values reach egress.
#[must_use]
pub fn folder(bottle: &Path) -> PathBuf {
    bottle.join(EGRESS).join("secrets")
}

/// Writes the values for egress into the folder that `bottle-render` made, for its owner. The lock
/// of the bottle is held.
pub fn write(bottle: &Path, credentials: &Credentials) -> Result<()> {
    let folder = folder(bottle);
    let found =
        std::fs::symlink_metadata(&folder).world(format!("look at '{}'", folder.display()))?;
    // What a killed tool left of such a write.
    for name in state::names(&folder)?.iter().filter(|name| *name != FILE) {
        state::remove(&folder.join(name))?;
    }
    let mut text = serde_json::to_string(credentials).world("write 'secrets.json'")?;
    text.push('\n');
    let ids = Some((found.uid(), found.gid()));
    state::write_unsynced(&folder.join(FILE), text.as_bytes(), 0o600, ids)
}

/// The values that egress was given last; `None`: none.
pub fn written(bottle: &Path) -> Result<Option<Credentials>> {
    let path = folder(bottle).join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Credentials::parse(&bytes).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).world(format!("read '{}'", path.display())),
    }
}

/// Removes the values; the folder stays, because it is mounted.
pub fn forget(bottle: &Path) -> Result<()> {
    let folder = folder(bottle);
    state::names(&folder)?.iter().try_for_each(|name| state::remove(&folder.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret { from_env: None, from_file: None, from_command: None }
    }

    fn refusal(secret: &Secret) -> String {
        format!("{:#}", source("token", secret).unwrap_err())
    }

    #[test]
    fn missing_source_is_named() {
        let env = Secret { from_env: Some("BOTTLE_NOT_SET".to_owned()), ..secret() };
        assert_eq!(
            refusal(&env),
            "find secret 'token': variable 'BOTTLE_NOT_SET' is not set: export it"
        );
        let file = Secret { from_file: Some("/nonexistent/key".into()), ..secret() };
        assert!(
            refusal(&file).starts_with("find secret 'token': read '/nonexistent/key': No such")
        );
        let folder = Secret { from_file: Some("/".into()), ..secret() };
        assert_eq!(refusal(&folder), "find secret 'token': read '/': it is a folder");
        let command = Secret { from_command: Some(vec!["no-such-pass".to_owned()]), ..secret() };
        assert!(refusal(&command).contains("command 'no-such-pass' is not there"));
        assert!(refusal(&secret()).contains("names no source"));
    }

    #[test]
    fn source_that_is_there_is_enough() {
        let file = Secret { from_file: Some("/proc/self/stat".into()), ..secret() };
        assert!(source("token", &file).is_ok());
        let command = Secret { from_command: Some(vec!["sh".to_owned()]), ..secret() };
        assert!(source("token", &command).is_ok());
    }

    fn read_one(secret: &Secret) -> Result<String> {
        let read = read([("token", secret)], Group::Own)?;
        Ok(read["token"].expose().to_owned())
    }

    fn command(text: &str) -> Secret {
        let command = ["sh", "-c", text].map(str::to_owned).to_vec();
        Secret { from_command: Some(command), ..secret() }
    }

    #[test]
    fn one_newline_is_trimmed_and_no_more() {
        assert_eq!(read_one(&command("printf 'a b\\n'")).unwrap(), "a b");
        assert_eq!(read_one(&command("printf 'a b\\r\\n'")).unwrap(), "a b");
        assert_eq!(read_one(&command("printf ' a '")).unwrap(), " a ");
        let told = |text| format!("{:#}", read_one(&command(text)).unwrap_err());
        assert_eq!(
            told("printf 'a\\n\\n'"),
            "read secret 'token': it has more than one line, which fits into no header"
        );
        assert!(told("printf 'a\\rb'").contains("more than one line"));
        assert!(told("printf 'a\\000b'").contains("control characters"));
        assert!(told("printf '\\n'").ends_with("it is empty"));
        assert!(told("printf '\\377'").ends_with("it is not UTF-8"));
    }

    #[test]
    fn command_that_prints_without_end_fills_no_memory() {
        let told = format!("{:#}", read_one(&command("yes | tr -d '\\n'")).unwrap_err());
        assert_eq!(told, "read secret 'token': it is longer than 16 KiB");
        let whole = "head -c 16384 /dev/zero | tr '\\0' x; echo";
        assert_eq!(read_one(&command(whole)).unwrap().len(), MAX);
    }

    #[test]
    fn command_that_fails_tells_what_it_said_and_never_what_it_printed() {
        let told = |text| format!("{:#}", read_one(&command(text)).unwrap_err());
        assert_eq!(
            told("echo s3cr3t; echo vault is locked >&2; exit 3"),
            "read secret 'token': run 'sh': it ended with exit status: 3: vault is locked"
        );
        let told = told("echo s3cr3t; echo got s3cr3t >&2; exit 3");
        assert!(!told.contains("s3cr3t") && told.ends_with("is not shown"), "{told}");
    }

    #[test]
    fn command_is_run_by_no_shell_and_reads_nothing() {
        let plain = Secret {
            from_command: Some(["echo", "$HOME", ";", "id"].map(str::to_owned).to_vec()),
            ..secret()
        };
        assert_eq!(read_one(&plain).unwrap(), "$HOME ; id");
        assert_eq!(read_one(&command("cat; echo end")).unwrap(), "end");
    }

    #[test]
    fn what_a_command_leaves_running_is_not_waited_for() {
        let begun = std::time::Instant::now();
        assert_eq!(read_one(&command("sleep 60 & echo x")).unwrap(), "x");
        assert!(begun.elapsed() < std::time::Duration::from_secs(30));
    }

    #[test]
    fn file_is_read_up_to_the_limit_and_has_to_be_one() {
        let file = Secret { from_file: Some("/proc/sys/kernel/ostype".into()), ..secret() };
        assert_eq!(read_one(&file).unwrap(), "Linux");
        let device = Secret { from_file: Some("/dev/zero".into()), ..secret() };
        assert_eq!(
            format!("{:#}", read_one(&device).unwrap_err()),
            "read secret 'token': read '/dev/zero': it is not a regular file"
        );
    }
}
