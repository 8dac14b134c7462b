//! [`Policy`]: routes compiled for look-up, and the decision itself.
//!
//! A request is allowed when some rule for its client allows all of it; rules do not add up. The most specific
//! host is asked first (the name itself, then wildcards from the longest, an address before its
//! networks), rules of one host in the order of the plan. A CONNECT is decided by the first rule that
//! has its port, which says too whether TLS passes through or is intercepted; on one host and port all
//! rules say the same. Allowing allocates nothing, unless a path
//! has several readings.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::glob::Glob;
use super::path::Path;
use super::{HostKind, Routes, Rule, Term};
use crate::host::{self, Host};

/// Routes, checked and compiled.
#[derive(Debug)]
pub struct Policy {
    routes: Routes,
    globs: Vec<Vec<Glob>>,
    names: HashMap<String, Vec<usize>>,
    clients: HashMap<IpAddr, String>,
    /// By the name after `*.`.
    wildcards: HashMap<String, Vec<usize>>,
    addresses: HashMap<IpAddr, Vec<usize>>,
    /// The narrowest first.
    networks: Vec<(IpNet, usize)>,
}

/// The question: may this leave?
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who asks, as [`Policy::client`] names it.
    pub client: &'a str,
    /// Where to.
    pub host: &'a Host<'a>,
    /// On which port.
    pub port: u16,
    /// The request; `None` for a CONNECT, which is allowed where any request could be.
    pub request: Option<Request<'a>>,
}

/// A request, in the clear or inside intercepted TLS.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whether it is inside TLS.
    pub scheme: Scheme,
    /// The method, as it came: methods are case-sensitive.
    pub method: &'a str,
    /// The path, without its query.
    pub path: &'a Path<'a>,
}

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Inside TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This rule, by its place in the routes, allows it.
    Allow {
        /// Index of the rule.
        rule: usize,
    },
    /// No rule allows it.
    Deny {
        /// What the nearest rule lacks.
        reason: Reason,
        /// The rule for that host that allows most of it.
        nearest: Option<usize>,
    },
}

/// Why something was refused; also the value of the header `X-Bottle-Denied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Who asks is none of the bottle's.
    Client,
    /// No rule names the host.
    Host,
    /// No rule for the host has the port.
    Port,
    /// Plain HTTP to port 443, to a host that passes through or where a credential is added, TLS to
    /// port 80, or a request to what is a tunnel of bytes.
    Scheme,
    /// No rule for host and port has the method.
    Method,
    /// No rule for host, port and method covers the path.
    Path,
    /// The grant that allowed it has ended.
    Grant,
    /// The host resolves to an address that is closed to the bottle.
    Address,
    /// The host is not in a form that all programs read alike.
    BadHost,
    /// The path is not in a form that all programs read alike.
    BadPath,
    /// TLS server name, `Host` and target do not agree.
    HostMismatch,
    /// The request asks for another protocol.
    Upgrade,
    /// Bytes in a tunnel that are neither TLS nor HTTP.
    NotHttp,
    /// A DNS question for a name that is not the bottle's.
    Dns,
    /// TLS in a tunnel that is not intercepted names no server, or hides it.
    ServerName,
    /// The request is framed in a way that programs read differently.
    Framing,
    /// The request holds what must not leave.
    Dlp,
    /// The credential that the rule adds is missing or has expired.
    Secret,
    /// Decisions cannot be written down.
    Audit,
    /// The proxy behind egress refused it.
    Parent,
}

impl Reason {
    /// As in JSON and in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Host => "host",
            Self::Port => "port",
            Self::Scheme => "scheme",
            Self::Method => "method",
            Self::Path => "path",
            Self::Grant => "grant",
            Self::Address => "address",
            Self::BadHost => "bad-host",
            Self::BadPath => "bad-path",
            Self::HostMismatch => "host-mismatch",
            Self::Upgrade => "upgrade",
            Self::NotHttp => "not-http",
            Self::Dns => "dns",
            Self::ServerName => "server-name",
            Self::Framing => "framing",
            Self::Dlp => "dlp",
            Self::Secret => "secret",
            Self::Audit => "audit",
            Self::Parent => "parent",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an address that an allowed host resolves to is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It is of this special class.
    Special(&'static str),
    /// It is in this closed network: the host's own, or another bottle's.
    Network(IpNet),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special(class) => f.write_str(class),
            Self::Network(net) => {
                write!(f, "in {net}, which belongs to the host or to another bottle")
            }
        }
    }
}

impl Policy {
    /// Checks routes and compiles them.
    pub fn new(routes: Routes) -> Result<Self> {
        routes.check()?;
        let mut policy = Self {
            globs: Vec::with_capacity(routes.routes.len()),
            names: HashMap::new(),
            wildcards: HashMap::new(),
            addresses: HashMap::new(),
            networks: Vec::new(),
            clients: routes.names.iter().map(|(name, at)| ((*at).into(), name.clone())).collect(),
            routes,
        };
        for (at, rule) in policy.routes.routes.iter().enumerate() {
            policy.globs.push(rule.globs()?);
            match rule.kind {
                HostKind::Name | HostKind::SingleLabel => {
                    policy.names.entry(rule.host.clone()).or_default().push(at);
                }
                HostKind::Wildcard => {
                    let apex = rule.host.trim_start_matches("*.").to_owned();
                    policy.wildcards.entry(apex).or_default().push(at);
                }
                HostKind::Address | HostKind::PrivateAddress => {
                    if let Ok(address) = rule.host.parse() {
                        policy.addresses.entry(address).or_default().push(at);
                    }
                }
                HostKind::Network | HostKind::PrivateNetwork => {
                    policy.networks.extend(rule.host.parse().map(|net| (net, at)));
                }
            }
        }
        policy.networks.sort_by_key(|(net, at)| (u8::MAX - net.prefix_len(), *at));
        Ok(policy)
    }

    /// The routes that it was compiled from.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// A rule by its place.
    #[must_use]
    pub fn rule(&self, at: usize) -> Option<&Rule> {
        self.routes.routes.get(at)
    }

    /// The names that the bottle's DNS answers.
    #[must_use]
    pub fn names(&self) -> &BTreeMap<String, Ipv4Addr> {
        &self.routes.names
    }

    /// Who asks from an address of the internal network, where nobody can forge one; `None`: it is
    /// none of the bottle's, and has nothing to ask.
    #[must_use]
    pub fn client(&self, address: IpAddr) -> Option<&str> {
        self.clients.get(&address.to_canonical()).map(String::as_str)
    }

    /// Decides, as if no grant had ended.
    #[must_use]
    pub fn decide(&self, ask: &Ask<'_>) -> Decision {
        self.decide_unless(ask, |_| false)
    }

    /// Decides without the rules whose grant has ended.
    #[must_use]
    pub fn decide_unless(&self, ask: &Ask<'_>, ended: impl Fn(&Term) -> bool) -> Decision {
        let mut best = (Reason::Host, None);
        let verdict = self.each_candidate(ask.host, |at| {
            // What others may is nothing that this client is told of.
            if !self.routes.routes[at].is_for(ask.client) {
                return Some(());
            }
            let ended = || self.routes.routes[at].grant.as_ref().is_some_and(&ended);
            let reason = self.lacks(at, ask).or_else(|| ended().then_some(Reason::Grant))?;
            // Reasons come in the order in which a request is judged.
            if best.1.is_none() || reason > best.0 {
                best = (reason, Some(at));
            }
            Some(())
        });
        match verdict {
            Some(rule) => Decision::Allow { rule },
            None => Decision::Deny { reason: best.0, nearest: best.1 },
        }
    }

    /// Whether an allowed connection may go to `address`, which its host resolved to. A special or
    /// closed address is open only to a rule that names it, and of a closed network the name has to
    /// be no wider than the network: `addresses: [10.0.0.0/8]` does not open other bottles.
    pub fn address(&self, rule: usize, address: IpAddr) -> Result<(), Closed> {
        let meant = host::meant(address);
        let Some(rule) = self.rule(rule) else { return Err(Closed::Special("of no rule")) };
        let own = match rule.kind {
            HostKind::Address | HostKind::PrivateAddress => {
                rule.host.parse::<IpAddr>().ok().map(IpNet::from)
            }
            HostKind::Network | HostKind::PrivateNetwork => rule.host.parse().ok(),
            HostKind::Name | HostKind::Wildcard | HostKind::SingleLabel => None,
        };
        let named = || {
            let nets = rule.addresses.iter().copied().chain(own);
            nets.filter(|net| net.contains(&meant) || net.contains(&address))
        };
        for net in self.routes.closed.iter().filter(|net| net.contains(&meant)) {
            if !named().any(|name| net.contains(&name)) {
                return Err(Closed::Network(*net));
            }
        }
        match host::special(meant) {
            Some(class) if named().next().is_none() => Err(Closed::Special(class)),
            _ => Ok(()),
        }
    }

    /// Calls `lacking` with each rule for the host until one lacks nothing; that one's place.
    fn each_candidate(
        &self,
        host: &Host<'_>,
        mut lacking: impl FnMut(usize) -> Option<()>,
    ) -> Option<usize> {
        let mut first_of = |rules: Option<&Vec<usize>>| {
            rules.and_then(|rules| rules.iter().copied().find(|at| lacking(*at).is_none()))
        };
        match host {
            Host::Name(name) => {
                if let Some(found) = first_of(self.names.get(&**name)) {
                    return Some(found);
                }
                if self.wildcards.is_empty() {
                    return None;
                }
                let mut rest = &**name;
                while let Some((_, parent)) = rest.split_once('.') {
                    if let Some(found) = first_of(self.wildcards.get(parent)) {
                        return Some(found);
                    }
                    rest = parent;
                }
                None
            }
            Host::Address(address) => first_of(self.addresses.get(address)).or_else(|| {
                let mut nets = self.networks.iter().filter(|(net, _)| net.contains(address));
                nets.find(|(_, at)| lacking(*at).is_none()).map(|(_, at)| *at)
            }),
        }
    }

    /// What a rule for the host lacks to allow the request; `None`: it allows it.
    fn lacks(&self, at: usize, ask: &Ask<'_>) -> Option<Reason> {
        let rule = &self.routes.routes[at];
        if !rule.ports.contains(&ask.port) {
            return Some(Reason::Port);
        }
        let request = ask.request.as_ref()?;
        // Only a tunnel passes through: a request that has been seen was intercepted by a rule for a
        // more specific host, or never was TLS.
        if rule.passthrough || rule.raw {
            return Some(Reason::Scheme);
        }
        if matches!((ask.port, request.scheme), (443, Scheme::Http) | (80, Scheme::Https)) {
            return Some(Reason::Scheme);
        }
        // A credential is for the host whose certificate was verified, and for nobody on the way.
        if rule.inject.is_some() && request.scheme == Scheme::Http {
            return Some(Reason::Scheme);
        }
        if !rule.methods.is_empty() && !rule.methods.iter().any(|m| m == request.method) {
            return Some(Reason::Method);
        }
        let globs = &self.globs[at];
        let covered = |path: &str| globs.iter().any(|glob| glob.matches(path));
        (!globs.is_empty() && !request.path.all(covered)).then_some(Reason::Path)
    }
}
