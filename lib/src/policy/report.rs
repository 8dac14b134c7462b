//! What egress tells in its `run/` folder. Its readers take it as a claim: they open it by
//! [`crate::state::open_report`] and parse it strictly.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Reason, Scheme};

/// `loaded.json`: the policy that is really in force, written once egress serves by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loaded {
    /// SHA-256 of the bytes of `routes.yaml` in force, 64 hex digits.
    pub sha256: String,
    /// Its `generation`.
    pub generation: u64,
    /// Its `plan`.
    pub plan: String,
    /// When it came into force, RFC 3339 in UTC.
    pub loaded_at: String,
    /// Set while a newer file is refused and the one above stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// A `routes.yaml` that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// SHA-256 of its bytes; empty where it could not be read.
    pub sha256: String,
    /// Why it was not taken.
    pub error: String,
}

/// One line of `decisions.jsonl`, written when what it tells of is over. Its schema for others is
/// `man/decisions.schema.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionLine<'a> {
    /// When it was decided, RFC 3339 in UTC.
    pub time: Cow<'a, str>,
    /// What was asked.
    pub kind: Kind,
    /// Who asked: an address on the internal network.
    pub client: IpAddr,
    /// How the request travels; not set for a CONNECT or DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The method; of DNS the type of the question.
    pub method: Cow<'a, str>,
    /// The host in normal form where it has one, else as it came.
    pub host: Cow<'a, str>,
    /// The port; not set for DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path in normal form, never the query; not set for a CONNECT or DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Cow<'a, str>>,
    /// What was decided.
    pub decision: Verdict,
    /// The rule that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The rule that came nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<usize>,
    /// The address that was, or was not, dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The status that the client was given; not set where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the scan of what leaves found, and where: `github-token in body`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// Bytes that the client sent after the head: the body of a request, or all of a tunnel.
    pub sent: u64,
    /// Bytes that the server sent after the head.
    pub received: u64,
    /// Microseconds from the decision to the end of the exchange.
    pub duration_us: u64,
    /// The generation of the policy in force.
    pub generation: u64,
    /// SHA-256 of its `routes.yaml`, 64 hex digits.
    pub policy: Cow<'a, str>,
    /// Lines lost just before this one, because they came faster than they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// `grants.json`: what became of grants that egress, or the git gate, was given. What it says of one
/// that has ended stays so for as long as the bottle lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spents {
    /// By the id of the grant.
    #[serde(default, deserialize_with = "crate::strict::unique")]
    pub grants: BTreeMap<String, Spent>,
}

/// What became of one grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Requests that it has allowed, where those are counted.
    #[serde(default, skip_serializing_if = "crate::strict::is_default")]
    pub used: u64,
    /// How it ended; not set while it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// When, in seconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Its time was over.
    Expired,
    /// It has allowed as many requests as it was for.
    UsedUp,
    /// Upstream has taken as many pushes as it was for.
    Pushed,
    /// The operator took it back.
    Revoked,
    /// Not every sidecar said that it serves by it.
    NotInForce,
}

/// What a decision was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A request, in the clear or inside intercepted TLS.
    Http,
    /// A tunnel.
    Connect,
    /// A question to the bottle's DNS.
    Dns,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may leave.
    Allow,
    /// It may not.
    Deny,
}
