//! A gate for one test, on loopback: a real sshd with bare repositories is its upstream, a real git
//! is the agent's. Everything lies in one temporary folder, and ends with the test.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A gate with one remote, `origin`, of which `main` has one commit.
pub(crate) struct World {
    folder: TempDir,
    sshd: Option<Child>,
    gate: Option<Child>,
    pub(crate) ssh_port: u16,
    pub(crate) port: u16,
    remotes: Vec<Value>,
    generation: u32,
}

/// What a shell left.
pub(crate) struct Ran {
    pub(crate) ok: bool,
    /// Both streams.
    pub(crate) said: String,
}

impl Ran {
    /// What it said, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.ok, "{}", self.said);
        self.said
    }

    /// It failed, and said this.
    #[track_caller]
    pub(crate) fn fails(self, why: &str) -> String {
        assert!(!self.ok, "it succeeded: {}", self.said);
        assert!(self.said.contains(why), "it did not say '{why}': {}", self.said);
        self.said
    }
}

/// Whether all that a test of pushes needs is there; skips aloud where it is not.
pub(crate) fn tools() -> bool {
    let missing: Vec<&str> = ["git", "gitleaks", "/usr/sbin/sshd", "ssh"]
        .into_iter()
        .filter(|program| {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            !found.unwrap().status.success()
        })
        .collect();
    if !missing.is_empty() {
        assert!(
            std::env::var_os("BOTTLE_TEST_REQUIRE_ENGINE").is_none(),
            "missing: {}",
            missing.join(", ")
        );
        println!("SKIPPED: missing: {}", missing.join(", "));
    }
    missing.is_empty()
}

/// A token that gitleaks knows, another one each time.
pub(crate) fn token() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut state = u64::from(std::process::id()) << 20
        | u64::from(COUNT.fetch_add(1, Ordering::Relaxed)) << 4
        | 1;
    let mut text = String::from("ghp_");
    for _ in 0..36 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        text.push(char::from(letters[usize::try_from(state >> 33).unwrap() % letters.len()]));
    }
    text
}

impl World {
    /// A world in which the agent may push what `push` says.
    pub(crate) fn new(push: &[&str]) -> Option<Self> {
        if !tools() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("gate-").tempdir().unwrap();
        let mut world = Self {
            folder,
            sshd: None,
            gate: None,
            ssh_port: free(),
            port: free(),
            remotes: Vec::new(),
            generation: 0,
        };
        for name in ["conf", "secrets", "data", "run", "hooks", "home", "up"] {
            fs::create_dir(world.path(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_bottle-git-gate"), world.path("hooks/pre-receive")).unwrap();
        world.sshd();
        world.repository("repo");
        world.add(
            "origin",
            "repo",
            &json!({ "push": push.iter().map(|refs| json!({ "refs": refs })).collect::<Vec<_>>() }),
        );
        world.gate();
        world.git(&format!("git clone -q {} work", world.url("origin"))).ok();
        Some(world)
    }

    /// A path in the folder of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The agent's URL of a remote.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Runs a shell in the folder `home` as an agent would, of which no configuration of the machine
    /// is seen.
    pub(crate) fn git(&self, script: &str) -> Ran {
        let output = Command::new("timeout")
            .args(["120", "sh", "-euc", script])
            .current_dir(self.path("home"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("home"))
            .env("UP", self.path("up"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@example.test")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@example.test")
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "init.defaultBranch")
            .env("GIT_CONFIG_VALUE_0", "main")
            .env("GIT_CONFIG_KEY_1", "advice.detachedHead")
            .env("GIT_CONFIG_VALUE_1", "false")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        Ran { ok: output.status.success(), said: String::from_utf8_lossy(&said).into_owned() }
    }

    /// Runs a shell in the clone `work`.
    pub(crate) fn work(&self, script: &str) -> Ran {
        self.git(&format!("cd work\n{script}"))
    }

    /// What upstream has: its refs, a line each.
    pub(crate) fn refs(&self) -> String {
        let format = "--format='%(refname) %(objectname)'";
        self.git(&format!("git --git-dir=$UP/repo.git for-each-ref {format}")).ok()
    }

    /// What the gate's mirror of `origin` has.
    pub(crate) fn mirrored(&self) -> String {
        let format = "--format='%(refname) %(objectname)'";
        let data = self.path("data").display().to_string();
        self.git(&format!("git --git-dir=$(echo {data}/origin-*.git) for-each-ref {format}")).ok()
    }

    /// Makes a bare repository upstream, with one commit on `main`.
    pub(crate) fn repository(&self, name: &str) {
        self.git(&format!(
            "git init -q --bare $UP/{name}.git
             git init -q seed-{name} && cd seed-{name}
             echo one >README.md && git add . && git commit -q -m first
             git push -q $UP/{name}.git main"
        ))
        .ok();
    }

    /// The URL by which the gate reaches a repository.
    pub(crate) fn upstream(&self, repository: &str) -> String {
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        let path = self.path("up").join(format!("{repository}.git"));
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.ssh_port, path.display())
    }

    /// Adds a remote, with its key, and writes the configuration.
    pub(crate) fn add(&mut self, name: &str, repository: &str, more: &Value) {
        let mut remote = json!({
            "name": name,
            "url": self.upstream(repository), "ssh": true,
            "max_push": 8 << 20, "max_file": 1 << 20, "max_files": 100,
        });
        for (field, value) in more.as_object().unwrap() {
            remote[field] = value.clone();
        }
        for (file, from) in [("key", "client"), ("known_hosts", "known_hosts")] {
            let to = self.path(&format!("secrets/{name}.{file}"));
            fs::copy(self.path(from), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
        self.remotes.retain(|old| old["name"] != name);
        self.remotes.push(remote);
        self.configure();
    }

    /// Changes the one remote, and waits until the gate says that it has taken that.
    pub(crate) fn change(&mut self, more: &Value) {
        self.add("origin", "repo", more);
        let generation = self.generation;
        self.loaded(|loaded| loaded["generation"] == generation);
    }

    /// Waits until the gate tells what is asked of it.
    #[track_caller]
    pub(crate) fn loaded(&self, is: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let text = fs::read_to_string(self.path("run/loaded.json")).unwrap_or_default();
            let loaded: Value = serde_json::from_str(&text).unwrap_or_default();
            if is(&loaded) {
                return loaded;
            }
            assert!(Instant::now() < end, "the gate tells: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn configure(&mut self) {
        self.generation += 1;
        let gate = json!({
            "version": 1, "generation": self.generation, "plan": "sha256:0", "bottle": "test",
            "client": "127.0.0.1", "remotes": self.remotes,
        });
        self.write(&gate.to_string());
    }

    /// Writes a `gate.json` as `bottle-apply` does.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path("conf/.new"), text).unwrap();
        fs::rename(self.path("conf/.new"), self.path("conf/gate.json")).unwrap();
    }

    /// The lines of `decisions.jsonl`.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("run/decisions.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts the gate, and waits until it says that it serves.
    pub(crate) fn gate(&mut self) {
        self.gate_by(std::env::var_os("PATH").unwrap());
    }

    /// The same with programs of a folder before all others.
    pub(crate) fn gate_with(&mut self, folder: &Path) {
        let path = std::env::var_os("PATH").unwrap();
        let path = [folder.to_owned()].into_iter().chain(std::env::split_paths(&path));
        self.gate_by(std::env::join_paths(path).unwrap());
    }

    fn gate_by(&mut self, path: std::ffi::OsString) {
        let _ = fs::remove_file(self.path("run/loaded.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_bottle-git-gate"));
        command.args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)]);
        for name in ["conf", "secrets", "data", "run", "hooks"] {
            command.arg(format!("--{name}")).arg(self.path(name));
        }
        // What a container has of its own is not seen either.
        command.env_clear().env("PATH", path);
        self.gate = Some(command.stdin(Stdio::null()).spawn().unwrap());
        self.loaded(|loaded| loaded["generation"].is_u64());
    }

    /// Kills the gate as the engine would, with all that it started.
    pub(crate) fn kill(&mut self) {
        let Some(mut gate) = self.gate.take() else { return };
        let children = Command::new("pgrep").args(["-P", &gate.id().to_string()]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let _ = gate.kill();
        let _ = gate.wait();
        for child in children.lines() {
            // Each has a process group of its own.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{child}")]).status();
        }
    }

    fn sshd(&mut self) {
        for name in ["host", "client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(self.path(name))
                .status();
            assert!(made.unwrap().success());
        }
        let host = fs::read_to_string(self.path("host.pub")).unwrap();
        let known = format!("[127.0.0.1]:{} {host}", self.ssh_port);
        fs::write(self.path("known_hosts"), known).unwrap();
        self.restart_sshd();
    }

    /// Starts the upstream's sshd.
    pub(crate) fn restart_sshd(&mut self) {
        let at = |name: &str| self.path(name).display().to_string();
        let mut conf = String::new();
        let _ = write!(
            conf,
            "ListenAddress 127.0.0.1:{}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\nPermitUserEnvironment no\n",
            self.ssh_port,
            at("host"),
            at("client.pub")
        );
        fs::write(self.path("sshd_config"), conf).unwrap();
        let _ = fs::create_dir_all("/run/sshd");
        let sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &at("sshd_config")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("sshd.log")).unwrap())
            .spawn();
        self.sshd = Some(sshd.unwrap());
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.ssh_port)).is_err() {
            assert!(Instant::now() < end, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes upstream away.
    pub(crate) fn stop_sshd(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }

    /// Makes upstream refuse each push, in words of its own.
    pub(crate) fn upstream_refuses(&self, words: &str) {
        let hook = self.path("up/repo.git/hooks/pre-receive");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, format!("#!/bin/sh\necho '{words}' >&2\nexit 1\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What of a push is left in the mirror: half-received packs.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let data = self.path("data");
        let listed = Command::new("find")
            .arg(&data)
            .args(["-name", "tmp_*", "-o", "-name", "scan-*"])
            .output()
            .unwrap();
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
        self.stop_sshd();
    }
}

/// A port that is free now.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Makes a file executable.
pub(crate) fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
