//! git, told everything by its environment: of the machine, of a repository and of whoever pushed
//! into it no configuration, no hook and no helper counts.

use std::fmt::Write as _;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, world};
use bottle::gate::Remote;
use bottle::spawn::{self, Group};

use crate::args::Serve;
use crate::conf::Force;

/// The way out of ssh, beside this program.
pub(crate) const CONNECT: &str = "bottle-connect";

/// How much of what git says is kept.
const KEPT: u64 = 64 << 10;

/// The variables of the hook, by which it finds what its parent was told.
pub(crate) const CONF: &str = "BOTTLE_GATE_CONF";
/// See [`CONF`].
pub(crate) const RUN: &str = "BOTTLE_GATE_RUN";
/// See [`CONF`].
pub(crate) const DATA: &str = "BOTTLE_GATE_DATA";
/// See [`CONF`].
pub(crate) const REMOTE: &str = "BOTTLE_GATE_REMOTE";

/// What holds for every repository and both sides.
const FIXED: [(&str, &str); 36] = [
    // Nothing runs that is not in the image.
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("gpg.program", "false"),
    ("gpg.x509.program", "false"),
    ("gpg.ssh.program", "ssh-keygen"),
    ("safe.bareRepository", "explicit"),
    ("core.useReplaceRefs", "false"),
    ("protocol.allow", "never"),
    ("protocol.ssh.allow", "always"),
    ("protocol.https.allow", "always"),
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    // A bottle lives for hours: nothing works in the background.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("receive.autogc", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("push.recurseSubmodules", "no"),
    ("push.gpgSign", "false"),
    ("push.followTags", "false"),
    ("submodule.recurse", "false"),
    ("advice.pushFetchFirst", "false"),
    ("advice.pushNonFFCurrent", "false"),
    ("advice.pushNonFFMatching", "false"),
    ("advice.pushUpdateRejected", "false"),
    // What a client may not do, also where the hook would let it.
    ("receive.denyDeletes", "true"),
    ("receive.denyNonFastForwards", "true"),
    ("receive.fsckObjects", "true"),
    ("receive.shallowUpdate", "false"),
    ("receive.unpackLimit", "1"),
    ("receive.advertisePushOptions", "false"),
    ("transfer.advertiseSID", "false"),
    ("uploadpack.allowFilter", "true"),
    ("core.bigFileThreshold", "16m"),
];

/// Refs that neither are told nor can be pushed.
const HIDDEN: [&str; 4] = ["refs/replace", "refs/bottle", "refs/bundle", "refs/original"];

/// How git is called.
pub(crate) struct Git {
    /// All of its environment; `None`: this program's own, which is the hook, and git's child.
    env: Option<Vec<(String, String)>>,
}

/// What a call left.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Git {
    /// For a repository of a remote, by the server.
    pub(crate) fn of(serve: &Serve, force: &Force, remote: &Remote) -> Result<Self> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| world("find a folder: it is not UTF-8"))
        };
        let secrets = text(&serve.secrets)?;
        let mut config: Vec<(String, String)> =
            FIXED.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut set = |name: &str, value: String| config.push((name.to_owned(), value));
        for hidden in HIDDEN {
            set("transfer.hideRefs", hidden.to_owned());
        }
        set("core.hooksPath", text(&serve.hooks)?);
        set("receive.maxInputSize", remote.max_push.to_string());
        set("safe.directory", "*".to_owned());
        set("gpg.ssh.allowedSignersFile", format!("{secrets}/{}.allowed_signers", remote.name));
        set("http.sslCAInfo", format!("{}/bundle.pem", text(&serve.conf)?));
        if let Some(proxy) = force.gate.proxy {
            set("http.proxy", format!("http://{proxy}"));
        }
        let mut env = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
            ("HOME".to_owned(), "/nonexistent".to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
            ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
            ("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned()),
            ("GIT_ATTR_NOSYSTEM".to_owned(), "1".to_owned()),
            ("GIT_NO_REPLACE_OBJECTS".to_owned(), "1".to_owned()),
            ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
            ("GIT_SSH_VARIANT".to_owned(), "ssh".to_owned()),
            ("GIT_SSH_COMMAND".to_owned(), ssh(&secrets, force, remote)?),
            ("GIT_CONFIG_COUNT".to_owned(), config.len().to_string()),
            (CONF.to_owned(), text(&serve.conf)?),
            (RUN.to_owned(), text(&serve.run)?),
            (DATA.to_owned(), text(&serve.data)?),
            (REMOTE.to_owned(), remote.name.clone()),
        ];
        for (n, (name, value)) in config.into_iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{n}"), name));
            env.push((format!("GIT_CONFIG_VALUE_{n}"), value));
        }
        Ok(Self { env: Some(env) })
    }

    /// By the hook, which has the environment that the server gave git.
    pub(crate) fn of_hook() -> Self {
        Self { env: None }
    }

    /// Adds a variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.env.iter_mut().for_each(|env| env.push((name.to_owned(), value.to_owned())));
        self
    }

    /// Starts a program.
    pub(crate) fn start(&self, program: &str, args: &[&str], ends: [Stdio; 3]) -> Result<Child> {
        let path = Path::new(program);
        let started = match &self.env {
            Some(env) => spawn::start_alone(path, args, env, ends),
            // In the process group of git's, so that its server ends all of it.
            None => spawn::start(path, args, &[], ends, Group::Ours),
        };
        started.world(format!("start '{program}'"))
    }

    /// Runs git to its end with `input`, and gives what it said.
    pub(crate) fn run(&self, args: &[&str], input: &[u8], limit: Duration) -> Result<Said> {
        self.run_program("git", args, input, limit)
    }

    /// The same of another program.
    pub(crate) fn run_program(
        &self,
        program: &str,
        args: &[&str],
        input: &[u8],
        limit: Duration,
    ) -> Result<Said> {
        let what = || format!("run '{program} {}'", args.first().unwrap_or(&""));
        let (mut stdin, its_stdin) = spawn::memory().world(what())?;
        stdin.write_all(input).and_then(|()| stdin.rewind()).world(what())?;
        let (mut stdout, its_stdout) = spawn::memory().world(what())?;
        let (mut stderr, its_stderr) = spawn::memory().world(what())?;
        let child = self.start(program, args, [its_stdin, its_stdout, its_stderr])?;
        let group = if self.env.is_some() { Group::Own } else { Group::Ours };
        let Some(status) = spawn::wait(child, group, limit).world(what())? else {
            return Err(world(format!("{}: it did not end in {} s", what(), limit.as_secs())));
        };
        let mut said = Vec::new();
        stdout.rewind().and_then(|()| stdout.read_to_end(&mut said)).world(what())?;
        let mut told = Vec::new();
        stderr.rewind().world(what())?;
        stderr.take(KEPT).read_to_end(&mut told).world(what())?;
        Ok(Said { status, stdout: said, stderr: String::from_utf8_lossy(&told).into_owned() })
    }

    /// What git says, if it succeeds.
    pub(crate) fn ask(&self, args: &[&str], input: &[u8], limit: Duration) -> Result<String> {
        let said = self.run(args, input, limit)?;
        if !said.status.success() {
            let verb = args.iter().find(|arg| !arg.starts_with('-')).unwrap_or(&"git");
            return Err(world(format!("run 'git {verb}': {}", words(&said.stderr).join("; "))));
        }
        String::from_utf8(said.stdout).world("read what git says")
    }
}

/// What git or upstream said, line by line, without its own prefixes.
pub(crate) fn words(said: &str) -> Vec<String> {
    let strip = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("remote:").unwrap_or(line).trim();
        line.strip_prefix("fatal: ").or(line.strip_prefix("error: ")).unwrap_or(line).to_owned()
    };
    said.split(['\n', '\r']).map(strip).filter(|line| !line.is_empty()).collect()
}

/// The command line of ssh, which git gives to a shell: no path in it needs quoting.
fn ssh(secrets: &str, force: &Force, remote: &Remote) -> Result<String> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"/._-".contains(&c);
    let connect = std::env::current_exe().world("find this program")?.with_file_name(CONNECT);
    for path in [Path::new(secrets), &connect] {
        if !path.as_os_str().as_bytes().iter().all(|&c| plain(c)) {
            return Err(world(format!("tell ssh of '{}': its name is too odd", path.display())));
        }
    }
    let name = &remote.name;
    let mut command = format!(
        "ssh -F /dev/null -a -x -T -i {secrets}/{name}.key -o UserKnownHostsFile={secrets}/{name}.known_hosts"
    );
    for option in [
        "BatchMode=yes",
        "CheckHostIP=no",
        "ClearAllForwardings=yes",
        "ConnectTimeout=20",
        "ControlMaster=no",
        "ControlPath=none",
        "EnableEscapeCommandline=no",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "LogLevel=ERROR",
        "PasswordAuthentication=no",
        "PermitLocalCommand=no",
        "PreferredAuthentications=publickey",
        "ServerAliveInterval=30",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
    ] {
        command.push_str(" -o ");
        command.push_str(option);
    }
    if let Some(proxy) = force.gate.proxy {
        let connect = connect.display();
        // The host and port of the URL, which were checked to be nothing but that.
        let _ = write!(command, " -o 'ProxyCommand={connect} {proxy} %h %p'");
    }
    Ok(command)
}
