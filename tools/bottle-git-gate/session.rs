//! One connection: its first message is read here, and then git has the socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use bottle::error::{Blame, no, visible, world};
use bottle::gate::{Kind, Remote, Rule};
use bottle::run::say;
use bottle::spawn::{self, Group};
use bottle_git_gate::request::{self, Service};

use crate::conf::Force;
use crate::git::Git;
use crate::serve::Server;
use crate::{TOOL, grants, journal};

/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);
/// How long git may serve one fetch or one push, and a fetch without a byte.
const LIMIT: Duration = Duration::from_hours(1);
const IDLE: &str = "--timeout=300";
/// How long, and how much, a client may go on sending what nobody wants any more.
const DRAIN: Duration = Duration::from_secs(30);
const DRAINED: usize = 512 << 20;
/// The longest refusal.
const MESSAGE: usize = 900;

/// A connection.
pub(crate) struct Session<'a> {
    server: &'a Server,
    stream: &'a TcpStream,
    force: Arc<Force>,
}

/// Why a request is refused.
struct Refusal {
    kind: Kind,
    remote: String,
    rule: Rule,
    why: String,
}

impl<'a> Session<'a> {
    pub(crate) fn new(server: &'a Server, stream: &'a TcpStream) -> Self {
        Self { server, stream, force: server.conf.force() }
    }

    /// Serves it to its end.
    pub(crate) fn run(&self) {
        let Err(refusal) = self.serve() else { return drain(self.stream) };
        let Refusal { kind, remote, rule, why } = refusal;
        let mut line = journal::line(kind, &remote, &self.force);
        journal::refuse(&mut line, rule, std::slice::from_ref(&why));
        if let Err(error) = journal::record(&self.server.serve.run, &line) {
            say(TOOL, &format!("{error:#}"));
        }
        let text = format!("bottle: refused by rule '{}': {why}", rule.as_str());
        refuse(self.stream, &text);
    }

    fn serve(&self) -> Result<(), Refusal> {
        let refusal =
            |rule, why: String| Refusal { kind: Kind::Unknown, remote: String::new(), rule, why };
        let peer = self.stream.peer_addr().map(|peer| peer.ip());
        if !peer.is_ok_and(|peer| peer == self.force.gate.client) {
            return Err(refusal(Rule::Protocol, "only the agent is served here".to_owned()));
        }
        let first = self.first().map_err(|why| {
            refusal(Rule::Protocol, format!("the first message is none of git's: {why}"))
        })?;
        let request = request::parse(&first).map_err(|why| {
            refusal(Rule::Protocol, format!("the first message is none of git's: {why}"))
        })?;
        let kind = match request.service {
            Service::Fetch => Kind::Fetch,
            Service::Push => Kind::Push,
        };
        let refusal =
            |rule, why: String| Refusal { kind, remote: request.name.to_owned(), rule, why };
        let Some(remote) = self.force.gate.remote(request.name) else {
            let why = format!("'{}' is no remote of this bottle", request.name);
            return Err(refusal(Rule::Remote, why));
        };
        let outcome = match request.service {
            Service::Fetch => self.fetch(remote, request.version),
            Service::Push if remote.push.is_empty() => {
                let why = format!("remote '{}' can only be fetched from", remote.name);
                return Err(refusal(Rule::Push, why));
            }
            Service::Push => self.push(remote),
        };
        outcome.map_err(|(rule, error)| refusal(rule, format!("{error:#}")))
    }

    /// Reads the first message, within its time however its bytes come.
    fn first(&self) -> Result<Vec<u8>, &'static str> {
        let end = Instant::now() + FIRST;
        let mut head = [0; 4];
        self.read(&mut head, end)?;
        let mut rest = vec![0; request::length(head)?];
        self.read(&mut rest, end)?;
        // git waits without end, and is ended from here.
        self.stream.set_read_timeout(None).map_err(|_| "it cannot be read")?;
        Ok(rest)
    }

    fn read(&self, mut into: &mut [u8], end: Instant) -> Result<(), &'static str> {
        let mut stream = self.stream;
        while !into.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return Err("it does not come");
            }
            match stream.read(into) {
                Ok(0) => return Err("it is cut off"),
                Ok(n) => into = &mut into[n..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err("it does not come"),
            }
        }
        Ok(())
    }

    fn git(&self, remote: &Remote) -> Result<Git> {
        let secrets = &self.server.serve.secrets;
        if remote.ssh && !secrets.join(format!("{}.key", remote.name)).is_file() {
            return Err(world("its key is not there: start the bottle again"));
        }
        Git::of(&self.server.serve, &self.force, remote)
    }

    fn fetch(&self, remote: &Remote, version: Option<u8>) -> Result<(), (Rule, anyhow::Error)> {
        let mirror = self.server.mirrors.of(&self.server.serve.data, remote);
        let git = self.git(remote).map_err(gate)?;
        mirror.refresh(&git).map_err(upstream)?;
        let line = journal::line(Kind::Fetch, &remote.name, &self.force);
        journal::record(&self.server.serve.run, &line).map_err(gate)?;
        let git = match version {
            Some(version) => git.with("GIT_PROTOCOL", &format!("version={version}")),
            None => git,
        };
        let folder = mirror.folder().to_string_lossy().into_owned();
        self.hand_over(&git, &["upload-pack", "--strict", IDLE, &folder]).map_err(gate)
    }

    fn push(&self, remote: &Remote) -> Result<(), (Rule, anyhow::Error)> {
        let open = grants::open(&self.server.serve.run, remote).map_err(gate)?;
        if open.push.is_empty() {
            let error = no(format!("what allowed a push to '{}' has ended", remote.name));
            return Err((Rule::Push, error));
        }
        let mirror = self.server.mirrors.of(&self.server.serve.data, remote);
        let git = self.git(remote).map_err(gate)?;
        let _lock = mirror.lock().map_err(gate)?;
        mirror.update(&git).map_err(upstream)?;
        let folder = mirror.folder().to_string_lossy().into_owned();
        self.hand_over(&git, &["receive-pack", &folder]).map_err(gate)
    }

    /// Gives the socket to git, and waits for its end.
    fn hand_over(&self, git: &Git, args: &[&str]) -> Result<()> {
        let what = "hand over to git";
        let end =
            || -> Result<Stdio> { Ok(OwnedFd::from(self.stream.try_clone().world(what)?).into()) };
        let child = git.start("git", args, [end()?, end()?, Stdio::null()])?;
        spawn::wait(child, Group::Own, LIMIT).map(drop).world(what)
    }
}

fn gate(error: anyhow::Error) -> (Rule, anyhow::Error) {
    (Rule::Gate, error)
}

fn upstream(error: anyhow::Error) -> (Rule, anyhow::Error) {
    (Rule::Upstream, error)
}

/// Seconds since 1970.
pub(crate) fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(u64::MAX, |since| since.as_secs())
}

/// Says no in a pkt-line that git shows, and sees to it that it arrives.
pub(crate) fn refuse(mut stream: &TcpStream, text: &str) {
    let text = visible(text);
    let text = &text[..text.floor_char_boundary(MESSAGE)];
    let line = format!("{:04x}ERR {text}\n", text.len() + 9);
    let _ = stream.set_write_timeout(Some(FIRST));
    if stream.write_all(line.as_bytes()).is_ok() {
        drain(stream);
    }
}

/// Hangs up when the client has sent what it was sending: what is left unread would take back the
/// last words that were said to it.
fn drain(mut stream: &TcpStream) {
    let end = Instant::now() + DRAIN;
    let mut left = DRAINED;
    let mut buffer = vec![0; 256 << 10];
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    while left > 0 && Instant::now() < end {
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => left = left.saturating_sub(n),
            _ => return,
        }
    }
}
