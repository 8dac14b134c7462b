//! What every test target shares: run a tool in a scratch folder of its own and look at all that
//! it said, a strict fake `docker`, manifests by a builder.

#![allow(dead_code, reason = "each test target includes this module and uses its part of it")]

pub(crate) mod manifest;
pub(crate) mod transcript;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The tools of the root package.
pub(crate) const TOOLS: [&str; 12] = [
    "bottle-apply",
    "bottle-approve",
    "bottle-connect",
    "bottle-diff",
    "bottle-net",
    "bottle-plan",
    "bottle-ps",
    "bottle-reap",
    "bottle-render",
    "bottle-replay",
    "bottle-trust",
    "bottle-up",
];

/// The programs that other packages of the workspace build; `cargo test` of the root package alone
/// does not, so a test that needs one asks [`sidecar`].
pub(crate) const SIDECARS: [&str; 5] =
    ["bottle-egress", "bottle-git-gate", "bottle-probe", "bottle-ssh-agent", "bottle-supervise"];

/// How long a tool may take before a test ends it: a hang is a failure that says where.
const PATIENCE: Duration = Duration::from_mins(3);

/// Where a program of the suite was built.
pub(crate) fn bin(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_bottle-plan")).with_file_name(name)
}

/// A sidecar's binary, where it was built; else the test is skipped aloud.
pub(crate) fn sidecar(name: &str) -> Option<PathBuf> {
    let path = bin(name);
    if path.is_file() {
        return Some(path);
    }
    skip(&format!("'{name}' is not built: run 'cargo build --workspace'"));
    None
}

/// Skips aloud, or fails where `BOTTLE_TEST_REQUIRE_ENGINE=1` forbids it.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var_os("BOTTLE_TEST_REQUIRE_ENGINE").is_none_or(|value| value != "1"),
        "may not be skipped: {why}"
    );
    aloud(&format!("skipped: {why}"));
}

/// Says something past the capture of the test harness, or nobody would see it.
pub(crate) fn aloud(text: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = File::options()
        .append(true)
        .open("/dev/stderr")
        .and_then(|mut stderr| writeln!(stderr, "{name}: {text}"));
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A temporary folder with what a tool needs of a world: state folder, home, PATH. By default
/// there is no engine: `docker` is the fake one, and it has been taught nothing.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bottle-test-").tempdir().unwrap();
        for name in ["home", "log", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The state folder, which does not exist yet.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Where tools run: manifests lie here.
    pub(crate) fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    /// Writes a file below [`Self::work`].
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Teaches the fake docker; `tests/fixtures/bin/docker` says how a teach-file is written.
    pub(crate) fn teach(&self, lessons: &str) {
        fs::write(self.path().join("teach"), lessons).unwrap();
    }

    /// What docker and Compose were called with, one call a line.
    pub(crate) fn calls(&self) -> Vec<String> {
        lines(&self.path().join("log/calls"))
    }

    /// Calls that the fake docker was not taught. A test that expects none has to ask.
    pub(crate) fn untaught(&self) -> Vec<String> {
        lines(&self.path().join("log/untaught"))
    }

    /// The environment of a tool: nothing of the caller's but what is named here.
    pub(crate) fn env(&self) -> Vec<(&'static str, OsString)> {
        let fixtures = root().join("tests/fixtures");
        let beside = bin(TOOLS[0]).parent().unwrap().to_owned();
        let path = std::env::join_paths([
            fixtures.join("bin"),
            beside,
            root().join("scripts"),
            "/usr/local/bin".into(),
            "/usr/bin".into(),
            "/bin".into(),
            "/usr/sbin".into(),
        ]);
        vec![
            ("PATH", path.unwrap()),
            ("HOME", self.path().join("home").into()),
            ("BOTTLE_BIN", bin(TOOLS[0]).parent().unwrap().into()),
            ("BOTTLE_STATE", self.state().into()),
            // A pool for benchmarks that no bottle uses, so that nothing depends on what runs here.
            ("BOTTLE_SUBNETS", "198.18.0.0/16".into()),
            ("BOTTLE_COMPOSE", OsString::new()),
            ("BOTTLE_PATIENCE", OsString::new()),
            ("DOCKER_CONFIG", fixtures.join("docker-config").into()),
            ("DOCKER_HOST", "unix:///nonexistent".into()),
            ("FAKE_DOCKER", self.path().join("teach").into()),
            ("FAKE_DOCKER_LOG", self.path().join("log").into()),
            ("LC_ALL", "C".into()),
        ]
    }

    /// A tool, ready to be run here.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        Tool::new(&bin(name)).bare().envs(self.env()).dir(&self.work())
    }

    /// A pipeline or other shell text, ready to be run here.
    pub(crate) fn sh(&self, text: &str) -> Tool {
        Tool::new(Path::new("/bin/sh")).bare().envs(self.env()).dir(&self.work()).args(["-c", text])
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A program with its surroundings, to be run once.
pub(crate) struct Tool {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Tool {
    /// A program, with the environment of the test.
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, stdin: None }
    }

    /// Empties the environment.
    #[must_use]
    pub(crate) fn bare(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets variables.
    #[must_use]
    pub(crate) fn envs<V: AsRef<OsStr>>(
        mut self,
        all: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Self {
        self.command.envs(all);
        self
    }

    /// Sets the folder it runs in.
    #[must_use]
    pub(crate) fn dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// What it reads; without this stdin is empty.
    #[must_use]
    pub(crate) fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.command.stdin(Stdio::piped());
        self.stdin = Some(text.as_ref().to_vec());
        self
    }

    /// An open file as its stdin: a terminal, a folder.
    #[must_use]
    pub(crate) fn stdin_from(mut self, file: impl Into<Stdio>) -> Self {
        self.command.stdin(file);
        self
    }

    /// An open file as its stdout: `/dev/full`, a pipe that nobody reads.
    #[must_use]
    pub(crate) fn stdout_to(mut self, file: impl Into<Stdio>) -> Self {
        self.command.stdout(file);
        self
    }

    /// Starts it and leaves it running, for a test that kills it.
    pub(crate) fn spawn(mut self) -> Child {
        let what = format!("{:?}", self.command);
        let mut child =
            self.command.spawn().unwrap_or_else(|e| panic!("could not start {what}: {e}"));
        if let (Some(text), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            std::thread::spawn(move || {
                // A tool that does not read to the end is judged by what it says, not by this.
                let _ = pipe.write_all(&text);
            });
        }
        child
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Run {
        // Debug of a command shows its environment too.
        let what = format!("{:?}", self.command);
        let mut child = self.spawn();
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = child.kill();
                panic!("{what}\nhung for {} s and was killed", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Run {
            what,
            status: status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(-1),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// All that a finished program said.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    what: String,
    /// Exit code, or 128 and the number of the signal that ended it.
    pub(crate) status: i32,
    /// Its stdout.
    pub(crate) stdout: String,
    /// Its stderr.
    pub(crate) stderr: String,
}

impl Run {
    /// Everything, for the message of a failed test.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("{}\nstatus: {}\n", self.what, self.status);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let _ = writeln!(text, "--- {name}\n{stream}");
        }
        text
    }

    /// It must have ended well; gives its stdout.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.report());
        self.stdout
    }

    /// It must have failed with this status and this one line on stderr, and said nothing on
    /// stdout. `[..]` in the line stands for any text.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, line: &str) -> Self {
        assert_eq!(self.status, status, "{}", self.report());
        assert_eq!(self.stdout, "", "stdout of a failure\n{}", self.report());
        assert!(
            matches(line, self.stderr.trim_end_matches('\n')),
            "expected\n{line}\n{}",
            self.report()
        );
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let report = self.report();
        serde_json::from_str(&self.ok()).unwrap_or_else(|e| panic!("{e}\n{report}"))
    }
}

/// Whether `text` is one line that `pattern` describes; `[..]` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    if text.contains('\n') {
        return false;
    }
    let mut parts = pattern.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    last.map_or(rest.is_empty(), |last| rest.is_empty() || last.is_empty() || text.ends_with(last))
}
