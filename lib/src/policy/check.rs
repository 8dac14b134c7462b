//! What makes routes valid, and how a rule is written for a person.

use std::collections::HashMap;

use anyhow::Result;

use super::glob::Glob;
use super::{AGENT, Dlp, HostKind, Inject, Routes, Rule, Term, path};
use crate::error::{Blame, caller, visible};
use crate::record::time_of;
use crate::{host, strict};

/// The version of `routes.yaml`.
const VERSION: u32 = 1;

/// Headers that egress itself sets or strips.
const OF_THE_HOP: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How a whole `routes.yaml` ends. YAML cut off in the middle of a rule is often valid, and allows
/// more: the rule's `methods` or `paths` are what is missing.
const END: &str = "\n# end\n";

impl Routes {
    /// Reads a `routes.yaml`, which has to be whole.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).caller("routes.yaml: it is not UTF-8")?;
        if !text.ends_with(END) {
            return Err(caller("routes.yaml: the line '# end' is missing: it is not whole"));
        }
        strict::yaml(text, "routes.yaml")
    }

    /// Writes a `routes.yaml`.
    pub fn to_yaml(&self) -> Result<String> {
        Ok(strict::to_yaml(self)?.trim_end().to_owned() + END)
    }

    /// Whether they can be enforced as they stand.
    pub fn check(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(caller(format!(
                "version is {}: this egress knows {VERSION}: use the images of the tools' version",
                self.version
            )));
        }
        for name in self.names.keys() {
            match host::normalise(name) {
                Ok((normal, HostKind::SingleLabel)) if normal == *name => {}
                _ => {
                    return Err(caller(format!(
                        "names: '{name}' is not one lower-case label of a host name"
                    )));
                }
            }
        }
        let mut clients = HashMap::new();
        for (name, address) in &self.names {
            if let Some(other) = clients.insert(address, name) {
                return Err(caller(format!(
                    "names: '{other}' and '{name}' are both at {address}: who asks from there is not known"
                )));
            }
        }
        if let Some(net) = self.closed.iter().find(|net| net.addr() != net.network()) {
            return Err(caller(format!("closed: '{net}': write '{}'", net.trunc())));
        }
        for (at, rule) in self.routes.iter().enumerate() {
            rule.check().caller(format!("routes[{at}]"))?;
            if let Some(odd) = rule.from.as_ref().filter(|from| !self.names.contains_key(*from)) {
                return Err(caller(format!("routes[{at}]: from '{odd}' is none of the 'names'")));
            }
        }
        check_together(&self.routes).caller("routes")
    }
}

/// Whether rules can be enforced beside each other: what a CONNECT of one client to one host and port
/// leads to is decided before there is a request. TLS is either intercepted or passes through, or it
/// is a tunnel of bytes.
pub fn check_together(rules: &[Rule]) -> Result<()> {
    if !rules.iter().any(|rule| rule.passthrough || rule.raw) {
        return Ok(());
    }
    let mut seen = HashMap::new();
    for (at, rule) in rules.iter().enumerate() {
        for port in &rule.ports {
            let kind = (rule.passthrough, rule.raw);
            let (first, other) = *seen.entry((&rule.from, &*rule.host, port)).or_insert((at, kind));
            if other == kind {
                continue;
            }
            let host = &rule.host;
            return Err(caller(if other.1 || kind.1 {
                format!(
                    "'{host}' on port {port} is a tunnel of bytes, as ssh needs it, by one of the rules {first} and {at}, and is looked into by the other: a host and port does one of both: take the route out of 'egress.routes'"
                )
            } else {
                format!(
                    "passthrough: '{host}' on port {port} is intercepted by one of the rules {first} and {at}, and passes through by the other: TLS to one host and port does one of both"
                )
            }));
        }
    }
    Ok(())
}

impl Rule {
    /// Whether the rule is in normal form and means something.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(caller(why));
        let (normal, kind) = host::normalise(&self.host)?;
        if normal != self.host {
            return refuse(format!("host '{}': write it as '{normal}'", self.host));
        }
        if kind != self.kind {
            return refuse(format!(
                "host '{}': its kind is {kind:?}, not {:?}",
                self.host, self.kind
            ));
        }
        if self.ports.is_empty() || self.ports[0] == 0 || !ascending(&self.ports) {
            return refuse("ports: name one at least, none 0, each once, in order".into());
        }
        if !ascending(&self.methods) {
            return refuse("methods: name each once, in order".into());
        }
        for method in &self.methods {
            let token =
                |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
            if method.is_empty() || !method.bytes().all(token) {
                return refuse(format!("method '{method}': write it in upper case, as 'GET'"));
            }
            if method == "CONNECT" {
                return refuse("method 'CONNECT': a tunnel is allowed by 'passthrough'".into());
            }
        }
        let globs = self.globs()?;
        for pattern in &self.paths {
            let literal = path::normalise(pattern).map_err(caller)?;
            let covered = |text: &str| globs.iter().any(|glob| glob.matches(text));
            if let Some(text) = literal.readings().iter().find(|text| !covered(text)) {
                return refuse(format!(
                    "path '{pattern}': some servers read it as '{text}': allow that one too"
                ));
            }
        }
        if let Some(net) = self.addresses.iter().find(|net| net.addr() != net.network()) {
            return refuse(format!("addresses: '{net}': write '{}'", net.trunc()));
        }
        if self.passthrough && !(self.methods.is_empty() && self.paths.is_empty()) {
            return refuse(
                "passthrough: what is not intercepted has no methods and paths to judge: leave them out"
                    .into(),
            );
        }
        if self.passthrough
            && !matches!(self.kind, HostKind::Name | HostKind::Wildcard | HostKind::SingleLabel)
        {
            return refuse(
                "passthrough: TLS to an address names no server, by which it is let through: write a host name"
                    .into(),
            );
        }
        if self.from.as_deref() == Some(AGENT) {
            return refuse(
                "from: a rule is the agent's where it names nobody: leave it out".into(),
            );
        }
        if self.raw {
            return self.check_raw();
        }
        if !ascending(&self.dlp_exempt) {
            return refuse("dlp_exempt: name each once, in order".into());
        }
        self.dlp_exempt.iter().try_for_each(|exempt| super::check_exempt(exempt))?;
        if self.passthrough && !(self.dlp == Dlp::Block && self.dlp_exempt.is_empty()) {
            return refuse(
                "dlp: what is not intercepted is not scanned: leave 'dlp' and 'dlp_exempt' out"
                    .into(),
            );
        }
        if let Some(term) = &self.grant {
            term.check().caller("grant")?;
        }
        match &self.inject {
            Some(_) if self.passthrough => {
                refuse("inject: nothing can be added to what passes through".into())
            }
            Some(_) if self.ports.contains(&80) => refuse(
                "inject: port 80 takes plain HTTP, which a credential is never added to: leave 80 out of 'ports', or give it a rule of its own"
                    .into(),
            ),
            Some(inject) => inject.check(),
            None => Ok(()),
        }
    }

    /// A tunnel of bytes has one end, and nothing in it to judge.
    fn check_raw(&self) -> Result<()> {
        let is_one_host = matches!(
            self.kind,
            HostKind::Name | HostKind::SingleLabel | HostKind::Address | HostKind::PrivateAddress
        );
        if !is_one_host || self.ports.len() != 1 {
            return Err(caller("raw: a tunnel of bytes goes to one host and one port"));
        }
        let is_bare = self.methods.is_empty()
            && self.paths.is_empty()
            && self.inject.is_none()
            && !self.passthrough
            && self.dlp == Dlp::Block
            && self.dlp_exempt.is_empty();
        if is_bare {
            Ok(())
        } else {
            Err(caller("raw: in a tunnel of bytes there is nothing to judge"))
        }
    }

    /// Whether a client may use it at all.
    #[must_use]
    pub fn is_for(&self, client: &str) -> bool {
        self.from.as_deref().unwrap_or(AGENT) == client
    }

    /// The compiled `paths`.
    pub(super) fn globs(&self) -> Result<Vec<Glob>> {
        self.paths.iter().map(|pattern| Glob::parse(pattern)).collect()
    }

    /// The rule in one line: `GET,POST https://api.example.com:443/v1/**`. Braces hold
    /// alternatives; `*` stands for every method, or for both schemes.
    #[must_use]
    pub fn to_line(&self) -> String {
        let methods = if self.methods.is_empty() { "*".into() } else { self.methods.join(",") };
        let scheme = match *self.ports {
            [443] => "https",
            _ if self.inject.is_some() => "https",
            [80] => "http",
            _ => "*",
        };
        let host = if self.host.contains([':', '/']) {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let ports = braced(self.ports.iter().map(u16::to_string).collect());
        let paths =
            if self.paths.is_empty() { "/**".to_owned() } else { braced(self.paths.clone()) };
        let mut line = if self.raw {
            format!("CONNECT {host}:{ports}")
        } else {
            format!("{methods} {scheme}://{host}:{ports}{paths}")
        };
        if !self.addresses.is_empty() {
            let nets: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
            line = format!("{line} at {}", nets.join(","));
        }
        if let Some(inject) = &self.inject {
            line = format!("{line} with secret '{}'", inject.secret);
        }
        if self.passthrough {
            line.push_str(" not intercepted");
        }
        if self.raw {
            line.push_str(" as bytes");
        }
        if self.dlp != Dlp::Block && !self.passthrough {
            line = format!("{line}, dlp {}", self.dlp.as_str());
        }
        if !self.dlp_exempt.is_empty() {
            line = format!("{line}, may hold {}", self.dlp_exempt.join(","));
        }
        if let Some(from) = &self.from {
            line = format!("{line}, from {from} only");
        }
        if let Some(term) = &self.grant {
            line = format!("{line}, by {}", term.described());
        }
        line
    }
}

/// The longest id of a grant: that of a proposal, and a number.
const MAX_GRANT_ID: usize = 40;

impl Term {
    fn check(&self) -> Result<()> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.id.is_empty() || self.id.len() > MAX_GRANT_ID || !self.id.bytes().all(fits) {
            return Err(caller(format!("'{}' is no id of a grant", visible(&self.id))));
        }
        if self.uses == Some(0) {
            return Err(caller("uses: a grant is for one at least"));
        }
        Ok(())
    }

    /// The grant with its end, in words: `grant '1f00' until 2026-11-24T12:00:00Z`.
    #[must_use]
    pub fn described(&self) -> String {
        self.described_for("request", "requests")
    }

    /// The same of what else is counted, by its name for one and for several.
    #[must_use]
    pub fn described_for(&self, one: &str, several: &str) -> String {
        let mut text = format!("grant '{}'", self.id);
        match self.uses {
            Some(1) => text = format!("{text} for one {one}"),
            Some(uses) => text = format!("{text} for {uses} {several}"),
            None => {}
        }
        if let Some(expires) = self.expires {
            text = format!("{text} until {}", time_of(expires));
        }
        text
    }
}

impl Inject {
    fn check(&self) -> Result<()> {
        let places =
            [self.header.is_some(), self.bearer, self.basic.is_some(), self.query.is_some()];
        if places.iter().filter(|set| **set).count() != 1 {
            return Err(caller(
                "inject: set exactly one of 'header', 'bearer', 'basic' and 'query'",
            ));
        }
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if let Some(name) = &self.header {
            if name.is_empty() || !name.bytes().all(token) {
                return Err(caller(format!("inject.header: '{name}' is not the name of a header")));
            }
            if OF_THE_HOP.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
                return Err(caller(format!(
                    "inject.header: '{name}' says where a request goes or how it is framed: name another header"
                )));
            }
        }
        if let Some(user) = &self.basic
            && (user.contains(':') || user.contains(char::is_control))
        {
            return Err(caller(format!(
                "inject.basic: '{user}' holds a colon or a control character, which no user of Basic can"
            )));
        }
        match &self.query {
            Some(name) if name.is_empty() => Err(caller("inject.query: the name is empty")),
            _ => Ok(()),
        }
    }
}

fn ascending<T: PartialOrd>(list: &[T]) -> bool {
    list.windows(2).all(|pair| pair[0] < pair[1])
}

fn braced(items: Vec<String>) -> String {
    match <[String; 1]>::try_from(items) {
        Ok([one]) => one,
        Err(items) => format!("{{{}}}", items.join(",")),
    }
}
