//! One recorded decision, as far as rules have a say in it.

use std::borrow::Cow;
use std::net::IpAddr;

use anyhow::Result;
use bottle::host::{self, Host};
use bottle::net;
use bottle::policy::{
    AGENT, Ask, Decision, Kind, Path, Policy, Reason, Request, Scheme, Verdict, normal_path,
};
use bottle::{Blame, caller};
use serde::Deserialize;

/// The part of a line of `decisions.jsonl` that is decided by. Further fields are of newer versions.
#[derive(Deserialize)]
pub(crate) struct Record<'a> {
    kind: Kind,
    client: IpAddr,
    #[serde(default)]
    scheme: Option<Scheme>,
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    decision: Verdict,
    /// The address that was dialled, or not.
    #[serde(default)]
    pub(crate) address: Option<IpAddr>,
    #[serde(default)]
    reason: Option<Reason>,
}

/// What is asked again.
pub(crate) struct Question<'a> {
    pub(crate) client: &'static str,
    pub(crate) host: Host<'a>,
    pub(crate) port: u16,
    /// Scheme and path of a request; of a tunnel there is none.
    pub(crate) request: Option<(Scheme, Path<'a>)>,
}

impl<'a> Record<'a> {
    /// Reads a line.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(line).caller("it is no line of decisions")
    }

    /// Whether it was let out.
    pub(crate) fn was_allowed(&self) -> bool {
        self.decision == Verdict::Allow
    }

    /// Whether it was refused because no rule allowed it.
    pub(crate) fn was_against_the_rules(&self) -> bool {
        use Reason::{Host, Method, Path, Port, Scheme};
        matches!(self.reason, Some(Host | Port | Scheme | Method | Path))
    }

    /// The question; `None` where rules have no answer to it: names, and what has no form in which it
    /// could be judged.
    pub(crate) fn question(&self) -> Result<Option<Question<'_>>> {
        if self.kind == Kind::Dns || !(self.was_allowed() || self.was_against_the_rules()) {
            return Ok(None);
        }
        let odd = |what: &str| caller(format!("it is no line of decisions: {what}"));
        // An IPv6 address is in brackets, as in an authority.
        let host = host::authority(&self.host).map_err(|_| odd("its host is none"))?.0;
        let port = self.port.ok_or_else(|| odd("it has no port"))?;
        let request = match (self.kind, self.scheme, &self.path) {
            (Kind::Http, Some(scheme), Some(path)) => {
                Some((scheme, normal_path(path).map_err(|_| odd("its path is none"))?))
            }
            (Kind::Connect, ..) => None,
            _ => return Err(odd("it has no scheme or path")),
        };
        Ok(Some(Question { client: client(self.client), host, port, request }))
    }
}

impl Question<'_> {
    /// Decides it by other rules. A tunnel that was opened held bytes that nobody looked at: what
    /// would be intercepted now is not the same.
    pub(crate) fn decide(&self, method: &str, policy: &Policy) -> bool {
        let request = self.request.as_ref();
        let request = request.map(|(scheme, path)| Request { scheme: *scheme, method, path });
        let is_tunnel = request.is_none();
        let ask = Ask { client: self.client, host: &self.host, port: self.port, request };
        match policy.decide(&ask) {
            Decision::Deny { .. } => false,
            Decision::Allow { rule } if is_tunnel => {
                policy.rule(rule).is_some_and(|rule| rule.passthrough || rule.raw)
            }
            Decision::Allow { .. } => true,
        }
    }

    /// The request, in the way of a URL.
    pub(crate) fn shown(&self, method: &str) -> String {
        let from =
            if self.client == AGENT { String::new() } else { format!(", from {}", self.client) };
        let Self { host, port, .. } = self;
        match &self.request {
            None => format!("CONNECT {host}:{port}{from}"),
            Some((scheme, path)) => {
                format!("{method} {}://{host}:{port}{}{from}", scheme.as_str(), path.as_str())
            }
        }
    }
}

/// Who it was, by the place in its network that every bottle gives the same.
fn client(address: IpAddr) -> &'static str {
    net::client_at(address).unwrap_or(AGENT)
}
