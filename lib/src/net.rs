//! The networks of one bottle: the section `net`, and the pure choice of its subnets.
//!
//! The choice is a function of the pool and of what is used; who asks for it says what is used.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::Result;
pub use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::error::caller;
use crate::render::{AGENT, EGRESS, GIT_GATE, SUPERVISE};

/// The prefix length of a leased subnet: 16 addresses.
pub const PREFIX: u8 = 28;

/// Who has which address of an internal network, counted from its first: the same in every bottle.
pub const PLACES: [(&str, u32); 4] = [(EGRESS, 2), (AGENT, 3), (GIT_GATE, 4), (SUPERVISE, 5)];

/// Whose an address of some bottle's internal network is.
#[must_use]
pub fn client_at(address: IpAddr) -> Option<&'static str> {
    let IpAddr::V4(address) = address else { return None };
    let place = address.to_bits() % (1 << (32 - PREFIX));
    PLACES.iter().find(|(_, at)| *at == place).map(|(name, _)| *name)
}

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
    /// Loopback, link-local ones and those within `pool` go without saying.
    pub host_addresses: Vec<IpAddr>,
    /// What the engine is like; not there where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineFacts>,
}

/// What later tools have to know of the engine, found while the networks were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineFacts {
    /// Its version, as it says it.
    pub version: String,
    /// It runs without root: the container's root is the caller.
    pub rootless: bool,
    /// It confines containers by `SELinux`: mounts need `:Z`.
    pub selinux: bool,
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

impl Net {
    /// The networks of `project` on two subnets, with the fixed addresses on them.
    #[must_use]
    pub fn new(project: &str, internal: Ipv4Net, bridge: Ipv4Net, pool: &Pool) -> Self {
        let [(_, egress), (_, agent), (_, git_gate), (_, supervise)] = PLACES;
        Self {
            dry_run: false,
            project: project.to_owned(),
            internal: Internal {
                name: format!("{project}-internal"),
                subnet: internal,
                egress: address(internal, egress),
                agent: address(internal, agent),
                git_gate: address(internal, git_gate),
                supervise: address(internal, supervise),
            },
            bridge: Bridge {
                name: format!("{project}-bridge"),
                subnet: bridge,
                gateway: address(bridge, 1),
                egress: address(bridge, 2),
                pipelock: address(bridge, 3),
            },
            pool: pool.0.clone(),
            host_addresses: Vec::new(),
            engine: None,
        }
    }
}

/// The `n`th address of a subnet.
fn address(subnet: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits() + n)
}

/// The networks that subnets are leased from: disjoint, canonical, usable in containers, and room
/// for one bottle at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool(Vec<Ipv4Net>);

/// What of IPv4 no container can have: this network, loopback, link-local, multicast and above.
const UNUSABLE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

impl Pool {
    /// The networks, as they were given.
    #[must_use]
    pub fn networks(&self) -> &[Ipv4Net] {
        &self.0
    }

    /// Whether an address is within the pool.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// What of the pool is free where `used` is not. A route as wide as a half of all addresses is
    /// a default route by another name (a VPN's), and uses nothing.
    #[must_use]
    pub fn free(&self, used: &[Ipv4Net]) -> Free {
        let mut used: Vec<(u32, u32)> =
            used.iter().filter(|n| n.prefix_len() > 1).map(|n| blocks(*n)).collect();
        used.sort_unstable();
        let mut gaps = Vec::new();
        for &network in &self.0 {
            let (mut next, last) = blocks(network);
            for &(first_used, last_used) in &used {
                if last_used < next || first_used > last {
                    continue;
                }
                if first_used > next {
                    gaps.push((next, first_used - 1));
                }
                next = last_used + 1;
            }
            if next <= last {
                gaps.push((next, last));
            }
        }
        Free { gaps, total: self.0.iter().map(|n| count(blocks(*n))).sum() }
    }
}

/// The subnets of a pool that nothing uses, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// Runs of blocks, first and last.
    gaps: Vec<(u32, u32)>,
    total: u32,
}

impl Free {
    /// How many there are.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.gaps.iter().copied().map(count).sum()
    }

    /// How many the pool holds, used ones too.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The subnets, lowest first of the network that was given first.
    pub fn subnets(&self) -> impl Iterator<Item = Ipv4Net> {
        self.gaps.iter().flat_map(|&(first, last)| first..=last).map(|block| {
            // A block number has four bits less than an address, and PREFIX is a prefix length.
            Ipv4Net::new_assert(Ipv4Addr::from_bits(block << (32 - PREFIX)), PREFIX)
        })
    }
}

/// The first and the last block, a subnet of [`PREFIX`], that a network touches.
fn blocks(network: Ipv4Net) -> (u32, u32) {
    let shift = 32 - PREFIX;
    (network.network().to_bits() >> shift, network.broadcast().to_bits() >> shift)
}

fn count((first, last): (u32, u32)) -> u32 {
    last - first + 1
}

impl FromStr for Pool {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |what: String| caller(format!("read BOTTLE_SUBNETS: {what}"));
        let mut pool: Vec<Ipv4Net> = Vec::new();
        for item in text.split(',').map(str::trim) {
            let network = match item.parse::<IpNet>() {
                Ok(IpNet::V4(network)) => network,
                Ok(IpNet::V6(_)) => {
                    return Err(refuse(format!(
                        "'{item}' is IPv6: bottles take IPv4 subnets only"
                    )));
                }
                Err(_) => {
                    return Err(refuse(format!(
                        "'{item}' is not a network: write networks as in '{DEFAULT_POOL}', with commas between"
                    )));
                }
            };
            if network != network.trunc() {
                return Err(refuse(format!(
                    "'{item}' has host bits set: did you mean '{}'",
                    network.trunc()
                )));
            }
            if network.prefix_len() > PREFIX {
                return Err(refuse(format!(
                    "'{item}' is smaller than a /{PREFIX}: a bottle takes two of those"
                )));
            }
            let unusable = UNUSABLE
                .iter()
                .map(|(address, prefix)| Ipv4Net::new_assert(*address, *prefix))
                .find(|unusable| overlap(*unusable, network));
            if let Some(unusable) = unusable {
                return Err(refuse(format!(
                    "'{item}' overlaps '{unusable}', which no container can have: choose a private network"
                )));
            }
            if let Some(other) = pool.iter().find(|other| overlap(**other, network)) {
                return Err(refuse(format!("'{item}' overlaps '{other}': name each network once")));
            }
            pool.push(network);
        }
        if pool.iter().map(|n| count(blocks(*n))).sum::<u32>() < 2 {
            return Err(refuse(format!(
                "'{text}' holds one /{PREFIX} only: a bottle takes two: widen it"
            )));
        }
        Ok(Self(pool))
    }
}

/// Networks overlap only where one contains the other.
fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(text: &str) -> Pool {
        text.parse().unwrap()
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", text.parse::<Pool>().unwrap_err())
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn networks_that_cannot_be_leased_from_are_refused() {
        for (text, what) in [
            ("", "'' is not a network: write networks as in '10.201.0.0/16', with commas between"),
            ("10.1.0.0/16,", "'' is not a network"),
            ("10.1/16", "'10.1/16' is not a network"),
            ("10.1.0.0/33", "'10.1.0.0/33' is not a network"),
            ("10.1.0.0", "'10.1.0.0' is not a network"),
            ("fd00::/64", "'fd00::/64' is IPv6: bottles take IPv4 subnets only"),
            ("10.1.2.0/16", "'10.1.2.0/16' has host bits set: did you mean '10.1.0.0/16'"),
            ("10.1.0.0/29", "'10.1.0.0/29' is smaller than a /28"),
            ("10.1.0.0/28", "'10.1.0.0/28' holds one /28 only"),
            ("10.1.0.0/16,10.1.2.0/24", "'10.1.2.0/24' overlaps '10.1.0.0/16'"),
            ("10.1.2.0/24, 10.1.0.0/16", "'10.1.0.0/16' overlaps '10.1.2.0/24'"),
            ("127.1.0.0/16", "'127.1.0.0/16' overlaps '127.0.0.0/8', which no container can have"),
            ("0.0.0.0/0", "'0.0.0.0/0' overlaps '0.0.0.0/8'"),
            ("240.0.0.0/8", "overlaps '224.0.0.0/3'"),
        ] {
            let told = refusal(text);
            assert!(told.starts_with("read BOTTLE_SUBNETS: "), "{told}");
            assert!(told.contains(what), "{told}");
            assert!(!told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn subnets_are_counted_and_come_in_order() {
        let pool = pool("10.2.0.0/27, 10.1.0.0/28,10.128.0.0/9");
        let free = pool.free(&[net("10.2.0.5/32")]);
        assert_eq!((free.left(), free.total()), (2 + (1 << 19), 3 + (1 << 19)));
        let first: Vec<_> = free.subnets().take(3).collect();
        assert_eq!(first, [net("10.2.0.16/28"), net("10.1.0.0/28"), net("10.128.0.0/28")]);
    }

    #[test]
    fn whole_pool_can_be_used_up() {
        let pool = pool("10.1.0.0/24");
        for used in ["10.1.0.0/24", "10.0.0.0/8", "8.0.0.0/5"] {
            let free = pool.free(&[net(used)]);
            assert_eq!((free.left(), free.subnets().next()), (0, None), "{used}");
        }
    }

    #[test]
    fn default_route_in_two_halves_uses_nothing() {
        let free = pool("10.1.0.0/24").free(&[net("0.0.0.0/0"), net("0.0.0.0/1")]);
        assert_eq!(free.left(), 16);
    }

    #[test]
    fn last_addresses_do_not_overflow() {
        let pool = pool("223.255.255.224/27");
        let free = pool.free(&[net("255.255.255.255/32"), net("223.255.255.240/28")]);
        assert_eq!(free.subnets().collect::<Vec<_>>(), [net("223.255.255.224/28")]);
        assert_eq!(pool.free(&[net("128.0.0.0/2"), net("192.0.0.0/2")]).left(), 0);
    }

    #[test]
    fn fixed_addresses_lie_where_the_sidecars_expect_them() {
        let net =
            Net::new("bottle-x-0", net("10.1.0.16/28"), net("10.1.0.32/28"), &pool("10.1.0.0/24"));
        let addresses = [net.internal.egress, net.internal.agent, net.internal.git_gate];
        assert_eq!(addresses.map(|a| a.to_string()), ["10.1.0.18", "10.1.0.19", "10.1.0.20"]);
        assert_eq!(net.internal.supervise.to_string(), "10.1.0.21");
        let addresses = [net.bridge.gateway, net.bridge.egress, net.bridge.pipelock];
        assert_eq!(addresses.map(|a| a.to_string()), ["10.1.0.33", "10.1.0.34", "10.1.0.35"]);
    }

    /// xorshift64*, so that a failure comes again.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u32) -> u32 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let high = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
            high % sides
        }

        /// A network within or around 10.0.0.0/12.
        fn network(&mut self) -> Ipv4Net {
            let address = Ipv4Addr::from_bits(0x0a00_0000 | self.roll(1 << 20));
            let prefix = 8 + u8::try_from(self.roll(25)).unwrap();
            Ipv4Net::new_assert(address, prefix).trunc()
        }
    }

    #[test]
    fn free_subnets_never_overlap_what_is_used_and_none_comes_twice() {
        let mut dice = Dice(7);
        for _ in 0..500 {
            let mut text = String::from("10.0.0.0/22");
            for _ in 0..dice.roll(3) {
                let more = Ipv4Net::new_assert(
                    Ipv4Addr::from_bits(0x0a01_0000 + (dice.roll(256) << 8)),
                    24 + u8::try_from(dice.roll(5)).unwrap(),
                );
                text = format!("{more},{text}");
            }
            let Ok(pool) = text.parse::<Pool>() else { continue };
            let used: Vec<Ipv4Net> = (0..dice.roll(40)).map(|_| dice.network()).collect();
            let free = pool.free(&used);
            let subnets: Vec<Ipv4Net> = free.subnets().collect();
            assert_eq!(u32::try_from(subnets.len()).unwrap(), free.left());
            for (at, subnet) in subnets.iter().enumerate() {
                assert!(!used.iter().any(|used| overlap(*used, *subnet)), "{subnet} is used");
                assert!(pool.networks().iter().any(|network| network.contains(subnet)));
                assert!(!subnets[..at].contains(subnet), "{subnet} came twice");
            }
            // And nothing free is left out.
            let all = pool.free(&[]);
            let kept =
                all.subnets().filter(|s| !used.iter().any(|used| overlap(*used, *s))).count();
            assert_eq!(kept, subnets.len());
            assert_eq!(all.left(), free.total());
        }
    }
}
