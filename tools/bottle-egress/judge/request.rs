//! What the judge says to one tunnel or request, before anything is dialled for it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bottle::host::{self, Host, request_host};
use bottle::policy::{
    Ask, Decision, DecisionLine, Kind, Reason, Request as Judged, Scheme, Verdict,
};
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Response, Uri};

use super::Judge;
use super::open::{Open, line};
use super::wire::{Allowed, Asked, Changes, Lines, Opened, Within, bytes, chars, header_map};
use crate::body::Answer;
use crate::conf::Force;
use crate::dial::Failure;
use crate::headers;
use crate::inject;
use crate::journal;
use crate::leaks;
use crate::place::{self, Stray};
use crate::pool::Target;
use crate::reply::{self, Refusal};

/// The longest path or host of a request that cannot be judged, as it is written down.
const WRITTEN: usize = 1024;

/// The most addresses that a verdict names.
const NAMED: usize = 4;

impl Judge {
    pub(super) fn connect(
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

    pub(super) async fn request(&self, asked: &Asked) -> Result<Allowed, Box<Response<Answer>>> {
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
        open.accept = accept.cloned();
        open.words = words(asked, &target, path.as_str());
        if let Some(refusal) = self.unserved(&force, rule) {
            return Err(self.refused(open, &refusal));
        }
        let mut parts = parts(asked, &before, uri)?;
        if let Some(lens) = leaks::lens(&force, rule, &target) {
            if headers::wants_websocket(&before) {
                return Err(self.refused(open, &unlooked()));
            }
            let looked = leaks::look(&lens, &target, path.as_str(), &parts);
            open.line.found = looked.found.iter().map(ToString::to_string).collect();
            if looked.withheld {
                open.line.path = Some(leaks::WITHHELD.into());
                open.words = words(asked, &target, leaks::WITHHELD);
            }
            if let Err(refusal) = looked.verdict() {
                return Err(self.refused(open, &refusal));
            }
            open.scan = Some(leaks::body(&lens, &parts, &open.upward));
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
        match inject::add(&force, rule, &mut parts) {
            Ok(added) => open.added = added,
            Err(refusal) => return Err(self.refused(open, &refusal)),
        }
        if let Err(refusal) = force.take(rule) {
            return Err(self.refused(open, &refusal));
        }
        let path = parts.uri.to_string();
        let changes = changes(&before, &parts.headers, &target);
        let scan = open.scan.is_some();
        let mask = open.added.as_ref().is_some_and(|added| added.mask.is_some());
        self.begin(asked.id, open);
        let (host, port) = (target.host.to_string(), target.port);
        Ok(Allowed { host, port, path, changes, addresses, scan, mask })
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
        } else {
            return None;
        };
        Some(Refusal { reason, why: format!("mitmproxy as the engine does not serve '{what}'") })
    }

    /// Refuses what a rule allows, for what is in it or lacks.
    fn refused(&self, mut open: Open, refusal: &Refusal) -> Box<Response<Answer>> {
        let response = open.refuse(refusal);
        self.egress.journal.record(&open.line);
        response
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
    pub(super) fn malformed(
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
    if headers::wants_websocket(before) {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(parts)
}

/// What to take from a request's headers, and what to put there. The proxy frames the body by
/// `Transfer-Encoding`, and answers `Expect` itself.
fn changes(before: &HeaderMap, after: &HeaderMap, target: &Target) -> Changes {
    let kept = |name: &HeaderName| *name == TRANSFER_ENCODING || *name == EXPECT;
    let mut changes = changed(before, after);
    changes.remove.retain(|name| !kept(name));
    changes.remove.push(HOST);
    changes.set.retain(|(name, _)| name != HOST.as_str());
    changes.set.insert(0, (HOST.to_string(), headers::authority(target)));
    changes
}

/// What makes headers of others.
pub(super) fn changed(before: &HeaderMap, after: &HeaderMap) -> Changes {
    let mut changes = Changes::default();
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changes.remove.extend(gone.cloned());
    for name in after.keys() {
        if !before.get_all(name).iter().eq(after.get_all(name)) {
            changes.remove.push(name.clone());
            let all = after.get_all(name).iter();
            changes.set.extend(all.map(|value| (name.to_string(), chars(value))));
        }
    }
    changes
}

/// The refusal of a WebSocket on a route whose bytes are looked at.
fn unlooked() -> Refusal {
    let why = "mitmproxy as the engine does not look into WebSockets, and the rule has what leaves scanned: the owner of the bottle adds a rule for this path with 'dlp: off', or takes the embedded engine";
    Refusal { reason: Reason::Upgrade, why: why.to_owned() }
}

/// A request in words, for a refusal.
fn words(asked: &Asked, target: &Target, path: &str) -> String {
    let (scheme, authority) = (target.scheme.as_str(), headers::authority(target));
    format!("{} {scheme}://{authority}{path}", asked.method)
}
