//! The decision: may this request leave? Pure, because egress, diff and replay ask the same
//! question.
//!
//! This module is what `routes.yaml` holds and what makes it valid. [`Policy`] is its compiled
//! form, which decides about an [`Ask`]; [`Loaded`] and [`DecisionLine`] are what egress tells.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod check;
mod contain;
mod decide;
mod explain;
mod gain;
mod glob;
mod path;
mod report;
mod scan;

pub use check::check_together;
pub use contain::Excess;
pub use decide::{Ask, Closed, Decision, Policy, Reason, Request, Scheme};
pub use explain::Explanation;
pub use gain::{Gain, gained};
pub use glob::Glob;
pub use path::{Path, normalise as normal_path};
pub use report::{DecisionLine, End, Kind, Loaded, Refused, Spent, Spents, Verdict};
pub use scan::{NAMES as SCAN_RULES, SECRET as SCAN_SECRET, check_exempt};

/// `routes.yaml`: all that egress is told, and reads again when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// 1.
    pub version: u32,
    /// Counts the policies that this bottle has had, from 1.
    pub generation: u64,
    /// Digest of the plan that this came from.
    pub plan: String,
    /// The slug of the bottle.
    pub bottle: String,
    /// Names of the bottle that its DNS answers: `agent`, `egress`, and the sidecars that run. Who
    /// asks from another address is refused.
    #[serde(deserialize_with = "crate::strict::unique")]
    pub names: BTreeMap<String, Ipv4Addr>,
    /// Networks that stay closed unless a rule's `addresses` names them: the host's own addresses,
    /// public ones too, and the pool that all bottles' subnets come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<IpNet>,
    /// The proxy behind egress, pipelock: all that leaves goes by its CONNECT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<SocketAddrV4>,
    /// What becomes of requests whose decision cannot be written down.
    #[serde(default, skip_serializing_if = "crate::strict::is_default")]
    pub audit: Audit,
    /// Whether the scan of what leaves looks for private data too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private_data: bool,
    /// The rules; a request that none of them allows is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Rule>,
}

/// One rule of egress, normalised: what it allows, and nothing else is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Host in normal form: lower case, A-labels, no trailing dot: a name, `*.` and a name (its
    /// subdomains, not itself), an address without brackets, or a network in canonical form.
    pub host: String,
    /// What kind of thing `host` is; redundant, for those who read a plan.
    pub kind: HostKind,
    /// Who may use it, by its name in `names`; not set: the agent. Whoever it is, nobody else may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Ports, sorted; 443 is for TLS only, 80 for plain HTTP only. Never empty: `bottle-plan` fills
    /// in 443.
    pub ports: Vec<u16>,
    /// Methods, sorted, upper case; empty: every method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Globs of paths: `*` within a segment, `**` across them; empty: every path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Networks that `host` may resolve into although they are private or link-local; what is in
    /// `closed` only where the entry is no wider than that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// The credential that egress adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inject: Option<Inject>,
    /// Whether TLS to this host is tunnelled and not intercepted; then it is open to TLS only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passthrough: bool,
    /// Whether a CONNECT to exactly this host and port is a tunnel of bytes, whatever they are. Made
    /// of `ssh` and `git` of a plan, and of nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// What becomes of a request in which the scan finds what must not leave.
    #[serde(default, skip_serializing_if = "crate::strict::is_default")]
    pub dlp: Dlp,
    /// Findings that are no leak on this route, by the name of the scan's rule, or `secret:NAME` for
    /// a secret of the plan; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dlp_exempt: Vec<String>,
    /// The grant that it comes from and how long that holds; of a rule of the plan it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Term>,
}

/// How long a rule holds that was granted while the bottle ran. Egress itself ends it, whatever
/// becomes of the host's tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The grant.
    pub id: String,
    /// When it ends, in seconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// How many requests it allows, all in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
}

/// The name of the agent among the names of a bottle: a rule that names nobody is for it.
pub const AGENT: &str = "agent";

/// What becomes of a request in which the scan of what leaves (DLP) finds something.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Dlp {
    /// It is refused.
    #[default]
    Block,
    /// It leaves, and the decision says what was found.
    Warn,
    /// It is not scanned.
    Off,
}

impl Dlp {
    /// As in the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }
}

/// What becomes of requests while decisions cannot be written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audit {
    /// They are refused.
    #[default]
    Deny,
    /// They are judged as ever.
    Allow,
}

/// What kind of thing a rule's host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKind {
    /// A name with a dot: `api.example.com`.
    Name,
    /// Subdomains of a name: `*.example.com`.
    Wildcard,
    /// A name without a dot, which only a local resolver knows.
    SingleLabel,
    /// A public address.
    Address,
    /// A private, link-local, loopback, shared or otherwise special address.
    PrivateAddress,
    /// A network of public addresses.
    Network,
    /// A network that holds special addresses.
    PrivateNetwork,
}

/// A credential that egress adds to a request; exactly one of the places is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Name of the secret in the plan.
    pub secret: String,
    /// As the value of this header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// As `Authorization: Bearer …`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bearer: bool,
    /// As the password of `Authorization: Basic …`, for this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<String>,
    /// As this query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Whether the value is masked in an answer that echoes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mask: bool,
}

#[cfg(test)]
pub(crate) mod tests;
