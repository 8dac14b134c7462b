//! `bottle-egress judge`: decides for another proxy, so that there is one decision function and not
//! a second one to keep alike. Questions come as JSON lines on stdin, verdicts leave on stdout; the
//! configuration, the journal and the bottle's DNS are as in `serve`. The end of stdin ends it.
//!
//! The proxy says `ready` once it listens, `connect` and `request` before it does either, and `end`
//! when a request that was allowed is over. It dials the addresses of the verdict and no other.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use bottle::error::Blame;
use bottle::host::{self, Host, request_host};
use bottle::policy::{
    Ask, Decision, DecisionLine, Dlp, Kind, Reason, Request as Judged, Scheme, Verdict,
};
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::body::Answer;
use crate::conf::{Conf, Force};
use crate::dial::Failure;
use crate::dns;
use crate::grants::Grants;
use crate::headers;
use crate::inject::{self, Added};
use crate::journal::{self, Journal};
use crate::place::{self, Stray};
use crate::pool::Target;
use crate::proxy::{BUFFER, Egress};
use crate::reply::{self, Refusal};
use crate::resolve::Resolver;
use crate::tls::Interceptor;
use crate::watch::Watch;

/// The longest question: a head is no longer.
const LONGEST: u64 = 1 << 20;

/// The most addresses that a verdict names.
const NAMED: usize = 4;

/// The most requests that go on at once; more are recorded without their status.
const OPEN: usize = 4096;

/// The longest path or host of a request that cannot be judged, as it is written down.
const WRITTEN: usize = 1024;

/// Names and values, each byte as the character of that number.
type Lines = Vec<(String, String)>;

/// What the proxy asks or tells.
#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
enum Question {
    /// It listens now.
    Ready,
    /// May this tunnel be opened?
    Connect { id: u64, client: IpAddr, authority: String, headers: Lines },
    /// May this request leave?
    Request(Box<Asked>),
    /// What to answer to a request that programs read differently?
    Malformed { id: u64, client: IpAddr, tunnel: Option<Within>, why: String },
    /// A request that was allowed is over, or a tunnel of which no request came.
    End { of: u64, status: Option<u16>, sent: u64, received: u64 },
    /// A request came of a tunnel, and then is the line in the journal.
    Used { of: u64 },
}

/// One request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: u64,
    client: IpAddr,
    /// Set inside a CONNECT.
    tunnel: Option<Within>,
    method: String,
    /// That of the URL, or `:scheme`; empty where there is none.
    scheme: String,
    /// Host and port of the URL, or `:authority`; empty where there is none.
    authority: String,
    /// Path and query as they came.
    path: String,
    headers: Lines,
    /// Addresses to which this client has connections for that host.
    dialled: Vec<IpAddr>,
}

/// The tunnel that a request came by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    /// As the verdict on its CONNECT named it.
    host: String,
    port: u16,
    tls: bool,
    /// The TLS server name, where the client gave one.
    server_name: Option<String>,
}

/// The verdict on one question; to `ready`, which is question 0, none.
#[derive(Serialize)]
struct Answered {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Opened>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Allowed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refuse: Option<Refused>,
}

/// A tunnel that may be opened.
#[derive(Serialize)]
struct Opened {
    host: String,
    port: u16,
}

/// A request that may leave, and how.
#[derive(Serialize)]
struct Allowed {
    host: String,
    port: u16,
    path: String,
    remove: Vec<String>,
    set: Lines,
    addresses: Vec<IpAddr>,
}

/// The answer to give in place of the server's.
#[derive(Serialize)]
struct Refused {
    status: u16,
    headers: Lines,
    body: String,
}

impl From<Response<Answer>> for Refused {
    fn from(response: Response<Answer>) -> Self {
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), chars(value))).collect();
        let status = response.status().as_u16();
        let body = match response.into_body() {
            Answer::Own(Some(body)) => String::from_utf8_lossy(&body).into_owned(),
            _ => String::new(),
        };
        Self { status, headers, body }
    }
}

/// Judges until stdin ends.
pub(crate) fn judge(args: &args::Judge) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().world("start")?;
    let journal = Arc::new(Journal::open(&args.run)?);
    let outcome = runtime.block_on(judge_on(args, journal.clone()));
    journal.close();
    outcome
}

async fn judge_on(args: &args::Judge, journal: Arc<Journal>) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).world("take SIGTERM")?;
    let (conf, ca) = Conf::open(&args.conf, &args.secrets, Grants::open(&args.run)?)?;
    let conf = Arc::new(conf);
    let egress = Arc::new(Egress {
        conf: conf.clone(),
        journal,
        interceptor: Interceptor::new(ca)?,
        resolver: Resolver::new(args.resolver)?,
    });
    if let Some(address) = args.dns {
        let udp = UdpSocket::bind(address).await.world(format!("listen on {address} (UDP)"))?;
        let tcp = TcpListener::bind(address).await.world(format!("listen on {address} (TCP)"))?;
        tokio::spawn(dns::udp(egress.clone(), udp));
        tokio::spawn(dns::tcp(egress.clone(), tcp));
    }
    let judge = Arc::new(Judge { egress, open: Mutex::default() });
    let mut questions = questions()?;
    let mut watch = None;
    loop {
        let line = tokio::select! {
            line = questions.recv() => line,
            _ = term.recv() => None,
        };
        let Some(line) = line else { break };
        match serde_json::from_slice(&line).caller("read a question")? {
            Question::Ready => {
                if watch.is_none() {
                    let started =
                        Watch::start(conf.clone(), [&args.conf, &args.secrets], &args.run)?;
                    watch = Some(tokio::spawn(started.run()));
                }
                say(&Answered { id: 0, tunnel: None, allow: None, refuse: None });
            }
            Question::End { of, status, sent, received } => judge.end(of, status, sent, received),
            Question::Used { of } => drop(judge.open().remove(&of)),
            question => {
                let judge = judge.clone();
                tokio::spawn(async move { judge.answer(question).await });
            }
        }
    }
    judge.end_all();
    Ok(())
}

/// The lines of stdin; what is not read whole ends them.
fn questions() -> Result<tokio::sync::mpsc::Receiver<Vec<u8>>> {
    let (give, take) = tokio::sync::mpsc::channel(64);
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            let mut stdin = std::io::stdin().lock();
            loop {
                let mut line = Vec::new();
                let mut bounded = std::io::Read::take(&mut stdin, LONGEST);
                match bounded.read_until(b'\n', &mut line) {
                    Ok(1..) if line.ends_with(b"\n") && give.blocking_send(line).is_ok() => {}
                    _ => return,
                }
            }
        })
        .world("start")?;
    Ok(take)
}

/// Tells the proxy; one that went away needs no answer.
fn say(verdict: &Answered) {
    // Strings and numbers always serialise.
    if let Ok(mut text) = serde_json::to_vec(verdict) {
        text.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&text).and_then(|()| stdout.flush());
    }
}

/// What all questions share.
struct Judge {
    egress: Arc<Egress>,
    /// What goes on.
    open: Mutex<HashMap<u64, Open>>,
}

/// A request that was allowed and goes on, or a tunnel.
struct Open {
    line: DecisionLine<'static>,
    rule: usize,
    /// What was asked, for a refusal.
    words: String,
    added: Option<Added>,
    force: Arc<Force>,
    since: Instant,
}

impl Open {
    fn new(line: DecisionLine<'static>, rule: usize, force: &Arc<Force>) -> Self {
        let force = force.clone();
        let (words, since) = (String::new(), Instant::now());
        Self { line, rule, words, added: None, force, since }
    }
}

impl Judge {
    async fn answer(&self, question: Question) {
        let (id, answered) = match question {
            Question::Connect { id, client, authority, headers } => {
                (id, self.connect(id, client, &authority, &headers).map(Given::Tunnel))
            }
            Question::Malformed { id, client, tunnel, why } => {
                (id, Err(self.malformed(client, tunnel.as_ref(), &why)))
            }
            Question::Request(asked) => (asked.id, self.request(&asked).await.map(Given::Leave)),
            Question::Ready | Question::End { .. } | Question::Used { .. } => return,
        };
        let mut verdict = Answered { id, tunnel: None, allow: None, refuse: None };
        match answered {
            Ok(Given::Tunnel(opened)) => verdict.tunnel = Some(opened),
            Ok(Given::Leave(allowed)) => verdict.allow = Some(allowed),
            Err(response) => verdict.refuse = Some((*response).into()),
        }
        say(&verdict);
    }

    fn connect(
        &self,
        id: u64,
        client: IpAddr,
        authority: &str,
        lines: &Lines,
    ) -> Result<Opened, Box<Response<Answer>>> {
        let force = self.egress.conf.force();
        let headers = header_map(lines)?;
        let accept = headers.get(hyper::header::ACCEPT);
        let mut line = line(Kind::Connect, client, "CONNECT", authority, &force);
        line.status = Some(403);
        let refuse = |mut line: DecisionLine<'_>, reason, why| {
            line.reason = Some(reason);
            self.egress.journal.record(&line);
            let asked = format!("CONNECT {authority}");
            Box::new(reply::denied(&force.policy.refusal(reason, asked, why), accept))
        };
        let Some(name) = force.policy.client(client) else {
            return Err(refuse(line, Reason::Client, place::stranger(client)));
        };
        let (host, port) = match host::authority(authority) {
            Ok((host, Some(port))) => (host.into_owned(), port),
            Ok((_, None)) => return Err(Box::new(reply::bad("a CONNECT names a port"))),
            Err(odd) => {
                let why = format!("'{authority}' is no host: {odd}");
                return Err(refuse(line, Reason::BadHost, why));
            }
        };
        let target = Target { scheme: Scheme::Https, host, port };
        if let Err(why) = headers::host_agrees(&headers, &target) {
            return Err(refuse(line, Reason::HostMismatch, why));
        }
        let ask = Ask { client: name, host: &target.host, port, request: None };
        let decision = force.decide(&ask);
        if let Decision::Allow { rule } = decision
            && force.policy.rule(rule).is_some_and(|rule| rule.raw)
        {
            let why = "mitmproxy as the engine does not serve tunnels of bytes".to_owned();
            return Err(refuse(line, Reason::NotHttp, why));
        }
        line.host = target.host.to_string().into();
        line.port = Some(port);
        journal::decided(&mut line, decision);
        if let Decision::Deny { reason, nearest } = decision {
            self.egress.journal.record(&line);
            let explanation = force.policy.explain(&ask, reason, nearest);
            return Err(Box::new(reply::denied(&explanation, accept)));
        }
        line.status = None;
        self.begin(id, Open::new(line, 0, &force));
        Ok(Opened { host: target.host.to_string(), port })
    }

    async fn request(&self, asked: &Asked) -> Result<Allowed, Box<Response<Answer>>> {
        let force = self.egress.conf.force();
        let before = header_map(&asked.headers)?;
        let accept = before.get(hyper::header::ACCEPT);
        let Some(client) = force.policy.client(asked.client) else {
            let why = place::stranger(asked.client);
            return Err(self.stray(&force, asked, accept, Reason::Client, why));
        };
        let target = match destination(asked, &before) {
            Ok(target) => target,
            Err(Stray::Bad(why)) => return Err(Box::new(reply::bad(why))),
            Err(Stray::Refused(reason, why)) => {
                return Err(self.stray(&force, asked, accept, reason, why));
            }
        };
        let odd = |why: String| self.stray(&force, asked, accept, Reason::BadPath, why);
        let path = bytes(&asked.path).unwrap_or_default();
        let path = PathAndQuery::try_from(&*path).map_err(|error| odd(error.to_string()))?;
        let (path, uri) = place::normal(Some(&path)).map_err(|error| odd(error.to_string()))?;
        let judged = Judged { scheme: target.scheme, method: &asked.method, path: &path };
        let (host, port) = (&target.host, target.port);
        let ask = Ask { client, host, port, request: Some(judged) };
        let host = target.host.to_string();
        let mut line = line(Kind::Http, asked.client, &asked.method, &host, &force);
        (line.scheme, line.port) = (Some(target.scheme), Some(target.port));
        line.path = Some(Cow::Owned(path.as_str().to_owned()));
        let decision = force.decide(&ask);
        journal::decided(&mut line, decision);
        let rule = match decision {
            Decision::Allow { rule } => rule,
            Decision::Deny { reason, nearest } => {
                line.status = Some(403);
                self.egress.journal.record(&line);
                let explanation = force.policy.explain(&ask, reason, nearest);
                return Err(Box::new(reply::denied(&explanation, accept)));
            }
        };
        let mut open = Open::new(line, rule, &force);
        open.words = format!(
            "{} {}://{}{}",
            asked.method,
            target.scheme.as_str(),
            headers::authority(&target),
            path.as_str()
        );
        if let Some(refusal) = self.unserved(&force, rule) {
            return Err(self.refused(open, &refusal, accept));
        }
        let line = &mut open.line;
        let addresses = match self.addresses(&force, rule, &target, &asked.dialled).await {
            Ok(addresses) => addresses,
            Err(Failure::Closed(address, closed)) => {
                line.address = Some(address);
                line.decision = Verdict::Deny;
                (line.rule, line.reason, line.nearest) = (None, Some(Reason::Address), Some(rule));
                line.status = Some(403);
                self.egress.journal.record(line);
                let explanation = force.policy.explain_address(&ask, rule, address, closed);
                return Err(Box::new(reply::denied(&explanation, accept)));
            }
            Err(failure) => {
                let response = reply::failed(&failure, &target);
                line.status = Some(response.status().as_u16());
                self.egress.journal.record(line);
                return Err(Box::new(response));
            }
        };
        line.address = addresses.first().copied();
        let mut parts = parts(asked, &before, uri)?;
        match inject::add(&force, rule, &mut parts) {
            Ok(added) => open.added = added,
            Err(refusal) => return Err(self.refused(open, &refusal, accept)),
        }
        if let Err(refusal) = force.take(rule) {
            return Err(self.refused(open, &refusal, accept));
        }
        let path = parts.uri.to_string();
        let (remove, set) = changes(&before, &parts.headers, &target);
        self.begin(asked.id, open);
        let (host, port) = (target.host.to_string(), target.port);
        Ok(Allowed { host, port, path, remove, set, addresses })
    }

    /// What the routes ask for and this engine has not, which a plan is refused for before; or that
    /// nothing can be written down.
    fn unserved(&self, force: &Force, rule: usize) -> Option<Refusal> {
        let routes = force.policy.routes();
        if self.egress.journal.refuses(routes.audit) {
            return Some(journal::unwritten());
        }
        let rule = &routes.routes[rule];
        let (reason, what) = if routes.parent.is_some() {
            (Reason::Parent, "pipelock")
        } else if rule.passthrough {
            (Reason::ServerName, "passthrough")
        } else if rule.inject.as_ref().is_some_and(|inject| inject.mask) {
            (Reason::Secret, "inject.mask")
        } else if rule.dlp != Dlp::Off {
            (Reason::Dlp, "dlp")
        } else {
            return None;
        };
        Some(Refusal { reason, why: format!("mitmproxy as the engine does not serve '{what}'") })
    }

    /// Refuses what a rule allows, for what is in it or lacks.
    fn refused(
        &self,
        mut open: Open,
        refusal: &Refusal,
        accept: Option<&HeaderValue>,
    ) -> Box<Response<Answer>> {
        let line = &mut open.line;
        (line.decision, line.status) = (Verdict::Deny, Some(403));
        (line.rule, line.reason, line.nearest) = (None, Some(refusal.reason), Some(open.rule));
        self.egress.journal.record(line);
        let why = refusal.why.clone();
        Box::new(reply::denied(&open.force.policy.refusal(refusal.reason, open.words, why), accept))
    }

    /// Where a request may be sent: the addresses that its client already has connections to, all
    /// of which this rule has to allow, else those of the name that it allows.
    async fn addresses(
        &self,
        force: &Force,
        rule: usize,
        target: &Target,
        dialled: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Failure> {
        for address in dialled {
            let closed = force.policy.address(rule, *address);
            closed.map_err(|closed| Failure::Closed(*address, closed))?;
        }
        if !dialled.is_empty() {
            return Ok(dialled.to_owned());
        }
        let all: Arc<[IpAddr]> = match &target.host {
            Host::Address(address) => Arc::from([*address]),
            Host::Name(name) => {
                self.egress.resolver.resolve(name).await.map_err(Failure::Resolve)?
            }
        };
        let mut failure = None;
        let mut open = Vec::new();
        for address in all.iter().copied() {
            match force.policy.address(rule, address) {
                Ok(()) if open.len() < NAMED => open.push(address),
                Ok(()) => {}
                Err(closed) => {
                    failure.get_or_insert(Failure::Closed(address, closed));
                }
            }
        }
        match (open.is_empty(), failure) {
            (false, _) => Ok(open),
            (true, Some(failure)) => Err(failure),
            (true, None) => Err(Failure::Resolve("there is no address".into())),
        }
    }

    /// Refuses and records a request that cannot be judged.
    fn stray(
        &self,
        force: &Force,
        asked: &Asked,
        accept: Option<&HeaderValue>,
        reason: Reason,
        why: String,
    ) -> Box<Response<Answer>> {
        let path = asked.path.split('?').next().unwrap_or_default();
        let path = &path[..path.floor_char_boundary(WRITTEN)];
        let host = asked.tunnel.as_ref().map_or(&*asked.authority, |tunnel| &*tunnel.host);
        let host = &host[..host.floor_char_boundary(WRITTEN)];
        let mut line = line(Kind::Http, asked.client, &asked.method, host, force);
        line.scheme = Some(match &asked.tunnel {
            Some(tunnel) if tunnel.tls => Scheme::Https,
            _ => Scheme::Http,
        });
        line.port = asked.tunnel.as_ref().map(|tunnel| tunnel.port);
        line.path = Some(Cow::Owned(path.to_owned()));
        (line.reason, line.status) = (Some(reason), Some(403));
        self.egress.journal.record(&line);
        let request = format!("{} {host}{path}", asked.method);
        Box::new(reply::denied(&force.policy.refusal(reason, request, why), accept))
    }

    /// Refuses and records a request that is framed in a way that programs read differently.
    fn malformed(
        &self,
        client: IpAddr,
        tunnel: Option<&Within>,
        why: &str,
    ) -> Box<Response<Answer>> {
        let force = self.egress.conf.force();
        let host = tunnel.map_or("", |tunnel| &*tunnel.host);
        let mut line = line(Kind::Http, client, "", host, &force);
        line.scheme = Some(match tunnel {
            Some(tunnel) if tunnel.tls => Scheme::Https,
            _ => Scheme::Http,
        });
        line.port = tunnel.map(|tunnel| tunnel.port);
        Box::new(place::unclear(&self.egress, &force, line, why, None))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, id: u64, begun: Open) {
        let mut open = self.open();
        if open.len() >= OPEN {
            self.egress.journal.record(&begun.line);
        } else {
            open.insert(id, begun);
        }
    }

    fn end(&self, id: u64, status: Option<u16>, sent: u64, received: u64) {
        let Some(mut open) = self.open().remove(&id) else { return };
        let line = &mut open.line;
        (line.status, line.sent, line.received) = (status, sent, received);
        line.duration_us = u64::try_from(open.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let (Some(added), Some(status)) = (&open.added, status) {
            added.answered(status);
        }
        self.egress.journal.record(line);
    }

    fn end_all(&self) {
        for (_, open) in self.open().drain() {
            self.egress.journal.record(&open.line);
        }
    }
}

/// A line that may outlive the policy, a refusal until something else is set.
fn line(
    kind: Kind,
    client: IpAddr,
    method: &str,
    host: &str,
    force: &Force,
) -> DecisionLine<'static> {
    let line = journal::line(kind, client, method, host, force);
    DecisionLine {
        time: Cow::Owned(line.time.into_owned()),
        kind,
        client,
        scheme: None,
        method: Cow::Owned(method.to_owned()),
        host: Cow::Owned(host.to_owned()),
        port: None,
        path: None,
        decision: line.decision,
        rule: None,
        reason: None,
        nearest: None,
        address: None,
        status: None,
        sent: 0,
        received: 0,
        duration_us: 0,
        generation: line.generation,
        policy: Cow::Owned(line.policy.into_owned()),
        found: Vec::new(),
        dropped: None,
    }
}

/// What a question gets where it is not refused.
enum Given {
    Tunnel(Opened),
    Leave(Allowed),
}

/// Where a request goes: in a tunnel where that goes, else where its URL says.
fn destination(asked: &Asked, headers: &HeaderMap) -> Result<Target, Stray> {
    let mismatch = |why| Stray::Refused(Reason::HostMismatch, why);
    let of_url = match &*asked.authority {
        "" => None,
        authority => {
            let odd = |odd| format!("'{authority}' is no host: {odd}");
            let (host, port) = host::authority(authority)
                .map_err(|error| Stray::Refused(Reason::BadHost, odd(error)))?;
            Some((host.into_owned(), port))
        }
    };
    let target = match (&asked.tunnel, of_url) {
        (Some(tunnel), of_url) => {
            let scheme = if tunnel.tls { Scheme::Https } else { Scheme::Http };
            let (host, _) = host::authority(&tunnel.host)
                .map_err(|_| Stray::Bad("the tunnel goes to no host"))?;
            let target = Target { scheme, host: host.into_owned(), port: tunnel.port };
            if let Some(asked) = tunnel.server_name.as_deref().filter(|_| tunnel.tls)
                && request_host(asked).ok().as_ref() != Some(&target.host)
            {
                return Err(mismatch(format!(
                    "the TLS server name is '{asked}', but the CONNECT goes to '{}'",
                    target.host
                )));
            }
            let other = !asked.scheme.is_empty() && asked.scheme != scheme.as_str();
            if of_url.is_some_and(|(host, port)| {
                host != target.host || port.unwrap_or(scheme.port()) != target.port
            }) || other
            {
                return Err(mismatch(format!(
                    "the request is for '{}://{}', but the tunnel goes to '{}'",
                    asked.scheme,
                    asked.authority,
                    headers::authority(&target)
                )));
            }
            target
        }
        (None, Some((host, port))) if asked.scheme == "http" => {
            let scheme = Scheme::Http;
            Target { scheme, host, port: port.unwrap_or(scheme.port()) }
        }
        (None, Some(_)) => return Err(Stray::Bad("https goes through CONNECT")),
        (None, None) => return Err(Stray::Bad("this is a proxy, and the request names no host")),
    };
    headers::host_agrees(headers, &target).map_err(mismatch)?;
    Ok(target)
}

/// The request's head as it goes out, without its host.
fn parts(asked: &Asked, before: &HeaderMap, uri: Uri) -> Result<Parts, Box<Response<Answer>>> {
    let request = hyper::Request::builder().method(&*asked.method).uri(uri).body(());
    let (mut parts, ()) =
        request.map_err(|_| Box::new(reply::bad("its method is none")))?.into_parts();
    parts.headers.clone_from(before);
    headers::outward(&mut parts.headers);
    Ok(parts)
}

/// What to take from a request's headers, and what to put there. The proxy frames the body by
/// `Transfer-Encoding`, and answers `Expect` itself.
fn changes(before: &HeaderMap, after: &HeaderMap, target: &Target) -> (Vec<String>, Lines) {
    let websocket = headers::wants_websocket(before);
    let kept = |name: &HeaderName| {
        *name == TRANSFER_ENCODING
            || *name == EXPECT
            || (websocket && (*name == CONNECTION || *name == UPGRADE))
    };
    let mut remove: Vec<String> = before
        .keys()
        .filter(|name| !after.contains_key(*name) && !kept(name))
        .map(ToString::to_string)
        .collect();
    remove.push(HOST.to_string());
    let mut set = vec![(HOST.to_string(), headers::authority(target))];
    for name in after.keys().filter(|name| **name != HOST) {
        if !before.get_all(name).iter().eq(after.get_all(name)) {
            remove.push(name.to_string());
            set.extend(after.get_all(name).iter().map(|value| (name.to_string(), chars(value))));
        }
    }
    (remove, set)
}

/// Headers as hyper holds them; pseudo-headers are none.
fn header_map(lines: &Lines) -> Result<HeaderMap, Box<Response<Answer>>> {
    let bad = || Box::new(reply::bad("a header is none"));
    let size: usize = lines.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > BUFFER {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Box::new(reply::text(status, "the head of the request is too long\n")));
    }
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines.iter().filter(|(name, _)| !name.starts_with(':')) {
        let value = bytes(value);
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        let value = value.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()).ok_or_else(bad)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The bytes that such characters stand for.
fn bytes(chars: &str) -> Option<Vec<u8>> {
    chars.chars().map(|c| u8::try_from(c).ok()).collect()
}

fn chars(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}
