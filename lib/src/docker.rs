//! The engine, by its own clients.
//!
//! Children that change the engine run in a process group of their own, so that Ctrl-C at a
//! terminal ends the tool but not a half-made call; they inherit the bottle's lock (see
//! [`crate::state::Lock`]), so whoever takes the lock next knows that no such call is under way.
//! What they say goes into memory files, not pipes: a client that lost its reader would die of the
//! next line it prints, give up the lock, and leave the engine at work on its last request.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Blame, caller, visible, world};
use crate::spawn::{self, Group};

/// How long one call of the engine may take before it counts as hung; `$BOTTLE_PATIENCE`, in
/// seconds, where that is set.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The labels of everything that a bottle makes.
pub mod label {
    /// The slug.
    pub const SLUG: &str = "bottle.slug";
    /// The compose project, `bottle-<slug>-<8 hex>`.
    pub const PROJECT: &str = "bottle.project";
    /// The owner, in the text form of [`crate::owner::Owner`].
    pub const OWNER: &str = "bottle.owner";
    /// The digest of the plan.
    pub const PLAN: &str = "bottle.plan";
    /// On images only, because a container inherits the labels of its image.
    pub const IMAGE: &str = "bottle.image";
}

/// The image of one of our own sidecars, `egress`, `supervise` or `probe`, as `scripts/images` makes it. Its tag
/// is the version, or `$BOTTLE_IMAGE_TAG`, so that several builds live side by side on one engine.
#[must_use]
pub fn image(name: &str) -> String {
    match std::env::var("BOTTLE_IMAGE_TAG") {
        Ok(tag) if !tag.is_empty() => format!("bottle-{name}:{tag}"),
        _ => format!("bottle-{name}:{}", env!("CARGO_PKG_VERSION")),
    }
}

/// The docker client.
#[derive(Debug, Clone)]
pub struct Docker {
    program: PathBuf,
}

/// Which Compose there is. Both are driven alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compose {
    /// `docker compose`, by its plugin, which also runs alone: that saves a start of `docker`.
    V2(PathBuf),
    /// `docker-compose`, 1.29 or a standalone v2.
    V1(PathBuf),
}

/// A call that is under way.
#[derive(Debug)]
pub struct Call {
    child: Child,
    what: String,
    /// What it says, on stdout and on stderr.
    said: [File; 2],
}

/// What a call says while it runs. Reading fails where it says nothing for too long; the call ends
/// with this value.
#[derive(Debug)]
pub struct Stream {
    child: Child,
    pipe: PipeReader,
    patience: Duration,
}

impl Docker {
    /// Finds `docker` on PATH.
    pub fn find() -> Result<Self> {
        let program = which::which("docker").map_err(|_| {
            world("find 'docker': it is not on PATH: install the Docker client, or mend PATH")
        })?;
        Ok(Self { program })
    }

    /// Calls docker and gives what it printed, without the newline at the end.
    pub fn text<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String> {
        self.start(args)?.text(PATIENCE)
    }

    /// Starts a call, to be waited for later: two calls side by side take the time of one.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Call> {
        start(&self.program, args, &[])
    }

    /// Starts a call whose stdout and stderr come as one stream, to be read while it runs: its
    /// output may be larger than memory.
    pub fn stream<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Stream> {
        let patience = patience()?;
        let (pipe, writer) = std::io::pipe().world("make a pipe")?;
        let both = writer.try_clone().world("make a pipe")?;
        let (child, _) =
            spawn(&self.program, args, &[], [Stdio::null(), writer.into(), both.into()])?;
        Ok(Stream { child, pipe, patience })
    }

    /// Finds Compose: `$BOTTLE_COMPOSE` (a program), else the v2 plugin where docker looks for it,
    /// else `docker-compose` on PATH. Costs a few `stat` calls, where `docker compose version`
    /// would cost 60 ms.
    pub fn compose(&self) -> Result<Compose> {
        if let Some(program) = std::env::var_os("BOTTLE_COMPOSE").filter(|name| !name.is_empty()) {
            let found = which::which(&program).map_err(|_| {
                caller(format!("find '{}' of BOTTLE_COMPOSE: no such program", program.display()))
            })?;
            return Ok(Compose::V1(found));
        }
        let config = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
        // The folders of docker/cli, cli-plugins/manager/manager_unix.go.
        let system = [
            "/usr/local/lib/docker",
            "/usr/local/libexec/docker",
            "/usr/lib/docker",
            "/usr/libexec/docker",
        ];
        let plugin = config
            .into_iter()
            .chain(system.iter().map(PathBuf::from))
            .map(|folder| folder.join("cli-plugins/docker-compose"))
            .find(|path| which::which(path).is_ok());
        if let Some(plugin) = plugin {
            return Ok(Compose::V2(plugin));
        }
        which::which("docker-compose").map(Compose::V1).map_err(|_| {
            world("find Compose: neither the 'docker compose' plugin nor 'docker-compose' is there: install one of them")
        })
    }
}

impl Compose {
    /// The program to call.
    #[must_use]
    pub fn program(&self) -> &Path {
        let (Self::V2(program) | Self::V1(program)) = self;
        program
    }

    /// Starts Compose on one project and its file.
    pub fn start<S: AsRef<OsStr>>(
        &self,
        project: &str,
        file: &Path,
        args: &[S],
        env: &[(&str, &str)],
    ) -> Result<Call> {
        let mut all: Vec<&OsStr> =
            vec!["-p".as_ref(), project.as_ref(), "-f".as_ref(), file.as_os_str()];
        all.extend(args.iter().map(AsRef::as_ref));
        start(self.program(), &all, env)
    }
}

/// Calls a program that is no part of the engine (`bottle-egress ca`), found beside this tool or
/// on PATH, and gives its stdout.
pub fn sibling(name: &str, args: &[&str], stdin: &[u8]) -> Result<String> {
    let mut call = start_with(&sibling_path(name)?, args, &[], Stdio::piped())?;
    if let Some(mut pipe) = call.child.stdin.take() {
        // A program that does not read its stdin is none the worse for it.
        let _ = pipe.write_all(stdin);
    }
    call.text(PATIENCE)
}

/// Where another program of the suite lies: beside this one, else on PATH.
pub fn sibling_path(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(name)));
    match beside.filter(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => which::which(name).map_err(|_| {
            world(format!(
                "find '{name}': it is neither beside this tool nor on PATH: run 'make install'"
            ))
        }),
    }
}

fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], env: &[(&str, &str)]) -> Result<Call> {
    start_with(program, args, env, Stdio::null())
}

fn start_with<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    env: &[(&str, &str)],
    stdin: Stdio,
) -> Result<Call> {
    let (stdout, its_stdout) = spawn::memory().world("make a memory file")?;
    let (stderr, its_stderr) = spawn::memory().world("make a memory file")?;
    let (child, what) = spawn(program, args, env, [stdin, its_stdout, its_stderr])?;
    Ok(Call { child, what, said: [stdout, stderr] })
}

fn spawn<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    env: &[(&str, &str)],
    ends: [Stdio; 3],
) -> Result<(Child, String)> {
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let verb = args
        .iter()
        .map(|arg| arg.as_ref().to_string_lossy())
        .take_while(|arg| !arg.starts_with('-'))
        .take(2)
        .fold(name.into_owned(), |what, arg| what + " " + &arg);
    let child =
        spawn::start(program, args, env, ends, Group::Own).world(format!("run '{verb}'"))?;
    Ok((child, verb))
}

impl Call {
    /// Waits for the end of the call and gives all of its output, whatever its status.
    pub fn output(self, patience: Duration) -> Result<Output> {
        let patience = if patience == PATIENCE { self::patience()? } else { patience };
        let Self { child, what, said } = self;
        let ended = spawn::wait(child, Group::Own, patience).world(format!("wait for '{what}'"))?;
        if let Some(status) = ended {
            let read = |mut file: File| -> std::io::Result<Vec<u8>> {
                let mut bytes = Vec::new();
                file.rewind()?;
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            let [stdout, stderr] = said;
            let what = format!("wait for '{what}'");
            return Ok(Output {
                status,
                stdout: read(stdout).world(&what)?,
                stderr: read(stderr).world(&what)?,
            });
        }
        Err(world(format!(
            "run '{what}': no answer in {} s: is the engine hung: try 'docker version'",
            patience.as_secs()
        )))
    }

    /// Waits for the call and gives its stdout, without the newline at the end.
    pub fn text(self, patience: Duration) -> Result<String> {
        let what = self.what.clone();
        let output = self.output(patience)?;
        if output.status.success() {
            let text =
                String::from_utf8(output.stdout).world(format!("read what '{what}' printed"))?;
            return Ok(text.trim_end_matches('\n').to_owned());
        }
        Err(world(format!("run '{what}': {}", complaint(&String::from_utf8_lossy(&output.stderr)))))
    }
}

impl Stream {
    /// Waits for the end of the call, of which everything has been read; whether it ended well.
    pub fn succeeds(&mut self) -> Result<bool> {
        Ok(self.child.wait().world("wait for 'docker'")?.success())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let limit = Timespec { tv_sec: self.patience.as_secs().cast_signed(), tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
        if poll(&mut fds, Some(&limit))? == 0 {
            let text = format!("no answer in {} s: is the engine hung", self.patience.as_secs());
            return Err(std::io::Error::new(ErrorKind::TimedOut, text));
        }
        self.pipe.read(into)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nobody reads it any more; and one that lived on would keep the bottle's lock.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The patience of `$BOTTLE_PATIENCE`, else the usual one.
pub fn patience() -> Result<Duration> {
    let Some(text) = std::env::var_os("BOTTLE_PATIENCE").filter(|text| !text.is_empty()) else {
        return Ok(PATIENCE);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        caller(format!("read BOTTLE_PATIENCE: '{}' is no number of seconds", text.display()))
    })
}

/// What an engine complained of, in one line, with the way out where it is known.
#[must_use]
pub fn complaint(stderr: &str) -> String {
    if stderr.contains("permission denied while trying to connect") {
        return "permission denied on the engine's socket: join the group 'docker', or set DOCKER_HOST".to_owned();
    }
    if stderr.contains("Cannot connect to the Docker daemon")
        || stderr.contains("Couldn't connect to Docker daemon")
    {
        return "cannot connect to the Docker engine: is it running: start it, or set DOCKER_HOST"
            .to_owned();
    }
    if stderr.contains("could not find an available, non-overlapping IPv4 address pool")
        || stderr.contains("all predefined address pools have been fully subnetted")
    {
        return "the engine's own address pools are used up: remove networks that nobody needs with 'docker network prune', or widen 'default-address-pools' in daemon.json".to_owned();
    }
    let told = stderr
        .lines()
        .map(str::trim)
        .rfind(|line| {
            let is_noise =
                ["See 'docker", "Run 'docker", "exit status ", "Encountered errors while"]
                    .iter()
                    .any(|noise| line.starts_with(noise));
            !line.is_empty() && !is_noise
        })
        .unwrap_or("it said nothing");
    let told = told
        .trim_start_matches("Error response from daemon: ")
        .trim_start_matches("Error: ")
        .trim_start_matches("ERROR: ")
        .trim_end_matches('.');
    visible(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_that_is_away_is_said_in_our_words() {
        let told = complaint(
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n",
        );
        assert!(told.contains("start it, or set DOCKER_HOST"));
    }

    #[test]
    fn last_line_of_a_complaint_is_kept() {
        assert_eq!(
            complaint("a\nError response from daemon: no such network: x.\nexit status 1\n\n"),
            "no such network: x"
        );
        // docker-compose 1.29.
        let told = "ERROR: for agent  Cannot start service agent: no such device\nEncountered errors while bringing up the project.\n";
        assert_eq!(complaint(told), "for agent  Cannot start service agent: no such device");
    }
}
