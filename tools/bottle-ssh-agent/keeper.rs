//! The ssh-agent behind the filter, and its keys.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::error::visible;
use bottle::spawn::{self, Group};
use bottle::{Blame, caller, world};

/// How long the ssh-agent may take to serve, and a key to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The keys that there are to be, as `bottle-render` lists them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Digest of the plan that this came from.
    pub(crate) plan: String,
    pub(crate) keys: Vec<Key>,
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The name of its file.
    file: String,
    /// What it is for, as `ssh-add -h` has it: `user@host` or `host`.
    destinations: Vec<String>,
}

impl Listed {
    /// Reads `plan DIGEST`, and a line `FILE DESTINATION…` for each key.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).caller("keys: it is not UTF-8")?;
        let mut lines = text.lines();
        let plan = lines.next().and_then(|line| line.strip_prefix("plan "));
        let plan = plan.ok_or_else(|| caller("keys: the first line is not 'plan DIGEST'"))?;
        let keys = lines.map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let file = words.next().unwrap_or_default();
            let destinations: Vec<String> = words.collect();
            let is_plain = |word: &String| !word.is_empty() && !word.starts_with('-');
            let fits = file.bytes().all(|b| b.is_ascii_hexdigit())
                && is_plain(&file)
                && destinations.iter().all(is_plain)
                && !destinations.is_empty();
            // Without one it would be for every host.
            fits.then_some(Key { file, destinations })
                .ok_or_else(|| caller(format!("keys: '{}' is no key and its hosts", visible(line))))
        });
        Ok(Self { plan: plan.to_owned(), keys: keys.collect::<Result<_>>()? })
    }
}

/// A ssh-agent that runs, and ends with this.
pub(crate) struct Keeper {
    pub(crate) socket: PathBuf,
    child: Mutex<Child>,
}

impl Keeper {
    /// Starts one whose socket lies in a folder that nobody else reaches.
    pub(crate) fn start(private: &Path) -> Result<Self> {
        let socket = private.join("ssh-agent.sock");
        bottle::state::remove(&socket)?;
        let what = "start 'ssh-agent'";
        let args = ["-D".as_ref(), "-a".as_ref(), socket.as_os_str()];
        let ends = [Stdio::null(), Stdio::null(), Stdio::inherit()];
        let child = spawn::start(Path::new("ssh-agent"), &args, &[], ends, Group::Ours);
        let keeper = Self { socket, child: Mutex::new(child.world(what)?) };
        let begun = Instant::now();
        while UnixStream::connect(&keeper.socket).is_err() {
            if let Some(status) = keeper.child().try_wait().world(what)? {
                return Err(world(format!("{what}: it ended with {status}")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(world(format!("{what}: it does not serve")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(keeper)
    }

    /// Gives it a key that signs for its destinations only, whose host keys are in `known_hosts`.
    pub(crate) fn add(&self, key: &Key, keys: &Path, known_hosts: &Path) -> Result<()> {
        let what = || format!("take the key of '{}'", key.destinations.join("', '"));
        let file = keys.join(&key.file);
        let mut args = vec!["-q".as_ref(), "-H".as_ref(), known_hosts.as_os_str()];
        for destination in &key.destinations {
            args.extend::<[&OsStr; 2]>(["-h".as_ref(), destination.as_ref()]);
        }
        args.push(file.as_os_str());
        let socket = self.socket.to_string_lossy();
        let env = [("SSH_AUTH_SOCK", &*socket), ("SSH_ASKPASS_REQUIRE", "never")];
        let ends = [Stdio::null(), Stdio::null(), Stdio::inherit()];
        let child = spawn::start(Path::new("ssh-add"), &args, &env, ends, Group::Ours);
        match spawn::wait(child.world(what())?, Group::Ours, PATIENCE).world(what())? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(world(format!("{}: ssh-add ended with {status}", what()))),
            None => Err(world(format!("{}: ssh-add does not end", what()))),
        }
    }

    /// Waits for its end.
    pub(crate) fn ended(&self) -> Result<ExitStatus> {
        self.child().wait().world("wait for 'ssh-agent'")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_without_a_host_is_refused() {
        let parse = |text: &str| Listed::parse(text.as_bytes());
        let listed = parse("plan sha256:1\n0a git@one two\n0b three\n").unwrap();
        assert_eq!(listed.plan, "sha256:1");
        assert_eq!(listed.keys[0].destinations, ["git@one", "two"]);
        assert_eq!((listed.keys.len(), listed.keys[1].file.as_str()), (2, "0b"));
        for odd in [
            "",
            "0a one\n",
            "plan x\n0a\n",
            "plan x\n0a \n",
            "plan x\n0a one  two\n",
            "plan x\n../k one\n",
            "plan x\n0a -c\n",
            "plan x\n\n",
        ] {
            assert!(parse(odd).is_err(), "{odd:?}");
        }
    }
}
