//! The networks of one bottle: the section `net`, and the pure choice of its subnets.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The prefix length of a leased subnet: 16 addresses.
pub const PREFIX: u8 = 28;

/// What `$BOTTLE_SUBNETS` is where it is not set; a comma-separated list of networks.
pub const DEFAULT_POOL: &str = "10.201.0.0/16";

/// The section `net`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Set where subnets were only chosen and nothing was created; `bottle-up` refuses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The compose project, `bottle-<slug>-<8 hex>`.
    pub project: String,
    /// Where the agent lives: `--internal`, no gateway address.
    pub internal: Internal,
    /// Where egress goes out.
    pub bridge: Bridge,
    /// The pool that subnets are leased from: other bottles' networks, so closed to this one.
    pub pool: Vec<Ipv4Net>,
    /// Addresses of the host itself when the bottle was made; closed to it, public ones too.
    pub host_addresses: Vec<IpAddr>,
}

/// The internal network and the fixed addresses on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Internal {
    /// Name in the engine, `<project>-internal`.
    pub name: String,
    /// The leased subnet. Its first address stays unused: engines keep it for a gateway.
    pub subnet: Ipv4Net,
    /// Proxy and DNS of the agent.
    pub egress: Ipv4Addr,
    /// The agent.
    pub agent: Ipv4Addr,
    /// The git gate.
    pub git_gate: Ipv4Addr,
    /// The supervise sidecar.
    pub supervise: Ipv4Addr,
}

/// The bridge network and the fixed addresses on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Name in the engine, `<project>-bridge`.
    pub name: String,
    /// The leased subnet.
    pub subnet: Ipv4Net,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// The way out of egress.
    pub egress: Ipv4Addr,
    /// pipelock.
    pub pipelock: Ipv4Addr,
}
