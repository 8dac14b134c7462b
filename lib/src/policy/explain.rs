//! A refusal in words: what was refused, why, which rule came nearest and what the owner would add
//! to the manifest. Denials that look like network faults cost hours.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{AGENT, Ask, Closed, HostKind, Policy, Reason, Rule};
use crate::host::Host;
use crate::strict;

/// The most rules that are compared when no rule names the host, and the longest host that is: an
/// agent may ask for many.
const COMPARED: usize = 64;
const LONGEST: usize = 64;

/// The port at which a CONNECT is most likely ssh's.
const SSH: u16 = 22;

/// A refusal, for a person, an agent or a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who refuses.
    pub denied_by: &'static str,
    /// The bottle it was in.
    pub bottle: String,
    /// The reason code.
    pub reason: Reason,
    /// What was asked.
    pub request: String,
    /// The reason in words.
    pub why: String,
    /// The rule that came nearest, as [`super::Rule::to_line`] writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// What would allow it, as an item of `egress.routes` in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<String>,
}

/// The part of a manifest's rule that allows one request.
#[derive(Serialize)]
struct Item<'a> {
    host: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
}

impl Explanation {
    /// As text, with a newline at its end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} denied this request ({}): {}\nrequest: {}\n",
            self.denied_by, self.reason, self.why, self.request
        );
        // Writing to a string cannot fail.
        if let Some(nearest) = &self.nearest {
            let _ = writeln!(text, "nearest rule: {nearest}");
        }
        if let Some(add) = &self.add {
            let _ = write!(
                text,
                "to allow it, the owner of bottle '{}' adds to 'egress.routes' of its manifest:\n{add}",
                self.bottle
            );
        }
        text
    }
}

impl Policy {
    /// Explains why `ask` was refused, as [`Policy::decide`] said.
    #[must_use]
    pub fn explain(&self, ask: &Ask<'_>, reason: Reason, nearest: Option<usize>) -> Explanation {
        let host = ask.host;
        let rule = nearest.and_then(|at| self.rule(at));
        let why = match (reason, ask.request, rule) {
            (Reason::Port, _, Some(rule)) => {
                let ports: Vec<_> = rule.ports.iter().map(u16::to_string).collect();
                format!("'{host}' is allowed on port {}, not {}", ports.join(", "), ask.port)
            }
            (Reason::Scheme, _, Some(rule)) if rule.passthrough => {
                let why = format!("TLS to '{host}' passes through, and nothing else goes there");
                return self.explanation(ask, reason, why, nearest, None);
            }
            (Reason::Scheme, _, Some(rule)) if rule.raw => {
                let port = ask.port;
                let why =
                    format!("port {port} of '{host}' is a tunnel of bytes, and takes no request");
                return self.explanation(ask, reason, why, nearest, None);
            }
            (Reason::Scheme, ..) if ask.port == 443 => "port 443 takes TLS only: use https".into(),
            (Reason::Scheme, ..) if ask.port != 80 => {
                "a credential is added inside TLS only: use https".into()
            }
            (Reason::Scheme, ..) => "port 80 takes plain HTTP only: use http".into(),
            (Reason::Method, Some(request), _) => {
                format!("no rule allows method {} to '{host}'", request.method)
            }
            (Reason::Path, Some(request), _) => match request.path.readings() {
                readings if readings.len() > 1 => format!(
                    "no rule allows '{}' however a server reads it: as '{}'",
                    request.path.as_str(),
                    readings[1..].join("', '")
                ),
                _ => format!("no rule covers the path '{}'", request.path.as_str()),
            },
            (Reason::Grant, _, Some(Rule { grant: Some(term), .. })) => {
                let why = format!("{} has ended: propose it again", term.described());
                return self.explanation(ask, reason, why, nearest, None);
            }
            _ => self.unknown_host(ask),
        };
        // Routes are the agent's, and no tunnels of bytes.
        if ask.client != AGENT {
            return self.explanation(ask, reason, why, nearest, None);
        }
        if ask.request.is_none() && ask.port == SSH {
            let why = format!(
                "{why}: hosts for ssh are named in 'ssh' of the manifest, remotes of git in 'git'"
            );
            return self.explanation(ask, reason, why, nearest, None);
        }
        // A whole new item is always right; to merge it into a rule is the owner's choice.
        let item = Item {
            host: bare(host),
            ports: ports(ask.port),
            methods: ask.request.iter().map(|request| request.method).collect(),
            paths: ask.request.map(|request| request.path.readings()).unwrap_or_default(),
            addresses: Vec::new(),
        };
        self.explanation(ask, reason, why, nearest, strict::to_yaml(&[item]).ok())
    }

    /// Explains why an allowed host's address is not dialled.
    #[must_use]
    pub fn explain_address(
        &self,
        ask: &Ask<'_>,
        rule: usize,
        address: IpAddr,
        closed: Closed,
    ) -> Explanation {
        let mut why = format!("'{}' is at {address}, which is {closed}", ask.host);
        if self.rule(rule).is_some_and(|rule| rule.raw) {
            why.push_str(": the owner writes the address itself, in place of the name");
        }
        let rule_of_routes = self.rule(rule).filter(|it| it.from.is_none() && !it.raw);
        let add = rule_of_routes.and_then(|rule| {
            let item = Item {
                host: rule.host.clone(),
                ports: if rule.ports == [443] { Vec::new() } else { rule.ports.clone() },
                methods: rule.methods.iter().map(String::as_str).collect(),
                paths: rule.paths.clone(),
                addresses: rule.addresses.iter().copied().chain([address.into()]).collect(),
            };
            strict::to_yaml(&[item]).ok()
        });
        self.explanation(ask, Reason::Address, why, Some(rule), add)
    }

    /// A refusal of something that was no question for [`Policy::decide`].
    #[must_use]
    pub fn refusal(&self, reason: Reason, request: String, why: String) -> Explanation {
        let bottle = self.routes().bottle.clone();
        let denied_by = "bottle-egress";
        Explanation { denied_by, bottle, reason, request, why, nearest: None, add: None }
    }

    fn explanation(
        &self,
        ask: &Ask<'_>,
        reason: Reason,
        why: String,
        nearest: Option<usize>,
        add: Option<String>,
    ) -> Explanation {
        let rule = nearest.and_then(|at| self.rule(at).map(|rule| (at, rule)));
        let nearest = rule.map(|(at, rule)| format!("{at}: {}", rule.to_line()));
        Explanation { nearest, add, ..self.refusal(reason, describe(ask), why) }
    }

    fn unknown_host(&self, ask: &Ask<'_>) -> String {
        let host = ask.host;
        let no = format!("no rule names host '{host}'");
        let Host::Name(name) = host else { return no };
        let rules = || self.routes().routes.iter().filter(|rule| rule.is_for(ask.client));
        let wildcard = rules().find(|rule| rule.host.strip_prefix("*.") == Some(name));
        if let Some(rule) = wildcard {
            return format!("{no}: '{}' covers its subdomains, not itself", rule.host);
        }
        if name.len() > LONGEST {
            return no;
        }
        let known: Vec<&str> = rules()
            .filter(|rule| matches!(rule.kind, HostKind::Name | HostKind::SingleLabel))
            .map(|rule| &*rule.host)
            .take(COMPARED)
            .collect();
        match strict::nearest(name, &known) {
            Some(near) => format!("{no}: the nearest one is '{near}'"),
            None => no,
        }
    }
}

/// What was asked, in one line, without the query.
fn describe(ask: &Ask<'_>) -> String {
    let (host, port) = (ask.host, ask.port);
    match ask.request {
        None => format!("CONNECT {host}:{port}"),
        Some(request) => {
            let (method, scheme, path) =
                (request.method, request.scheme.as_str(), request.path.as_str());
            format!("{method} {scheme}://{host}:{port}{path}")
        }
    }
}

/// A host as a manifest has it: an IPv6 address without brackets.
fn bare(host: &Host<'_>) -> String {
    match host {
        Host::Name(name) => name.to_string(),
        Host::Address(address) => address.to_string(),
    }
}

/// Ports as a manifest needs them: none where 443 is meant.
fn ports(port: u16) -> Vec<u16> {
    if port == 443 { Vec::new() } else { vec![port] }
}
