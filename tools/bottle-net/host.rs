//! What the kernel says of this host's network, from `/proc/net`: which subnets it routes, and
//! which addresses are its own.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use bottle::error::Blame;
use bottle::net::{Ipv4Net, Pool};

/// What is used outside of the engine and of bottles.
#[derive(Debug)]
pub(crate) struct Host {
    /// Destinations of the main routing table.
    pub(crate) routes: Vec<Ipv4Net>,
    /// The host's own addresses, sorted; not those that every policy refuses anyway (loopback,
    /// link-local, the pool).
    pub(crate) addresses: Vec<IpAddr>,
}

impl Host {
    /// Reads it.
    pub(crate) fn read(pool: &Pool) -> Result<Self> {
        let mut addresses: Vec<IpAddr> = local_v4(&read("/proc/net/fib_trie")?)
            .filter(|a| !a.is_loopback() && !a.is_link_local() && !pool.contains(*a))
            .map(IpAddr::V4)
            .chain(
                local_v6(&read("/proc/net/if_inet6")?)
                    .filter(|a| !a.is_loopback() && !a.is_unicast_link_local())
                    .map(IpAddr::V6),
            )
            .collect();
        // The trie lists an address once a table.
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Self { routes: routes(&read("/proc/net/route")?).collect(), addresses })
    }
}

/// A kernel without one of the two protocols does not have its files.
fn read(path: &str) -> Result<String> {
    // These files do not tell their size, and reading them in small bits costs a call each.
    let mut text = String::with_capacity(16 << 10);
    match File::open(path).and_then(|mut file| file.read_to_string(&mut text)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).world(format!("read '{path}'")),
        _ => Ok(text),
    }
}

/// `/proc/net/route`: addresses and masks are hexadecimal numbers in the host's byte order of what
/// is in network order.
fn routes(text: &str) -> impl Iterator<Item = Ipv4Net> {
    let address =
        |hex: &str| Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes()));
    text.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Ipv4Net::with_netmask(address(fields.get(1)?)?, address(fields.get(7)?)?).ok()
    })
}

/// `/proc/net/fib_trie`: a line `|-- ADDRESS`, and below it `/32 host LOCAL` where it is the host's.
fn local_v4(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        }
        line.starts_with("/32 host LOCAL").then_some(last).flatten()
    })
}

/// `/proc/net/if_inet6`: 32 hexadecimal digits begin each line.
fn local_v6(text: &str) -> impl Iterator<Item = Ipv6Addr> {
    text.lines().filter_map(|line| {
        u128::from_str_radix(line.split_whitespace().next()?, 16).ok().map(Ipv6Addr::from_bits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_are_read_from_the_kernels_table() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            wg0\t0164A8C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        let found: Vec<String> = routes(text).map(|net| net.to_string()).collect();
        assert_eq!(found, ["0.0.0.0/0", "172.17.0.0/16", "192.168.100.1/32"]);
    }

    #[test]
    fn own_addresses_are_told_from_networks_and_broadcasts() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
            \x20    +-- 192.0.2.0/30 2 0 2\n           |-- 192.0.2.0\n              /24 link UNICAST\n\
            \x20          |-- 192.0.2.2\n              /32 host LOCAL\n\
            \x20       |-- 192.0.2.255\n           /32 link BROADCAST\n";
        assert_eq!(local_v4(text).collect::<Vec<_>>(), [Ipv4Addr::new(192, 0, 2, 2)]);
        let text = "fd000000000000000000000000000002 04 40 00 82     eth0\n";
        assert_eq!(local_v6(text).map(|a| a.to_string()).collect::<Vec<_>>(), ["fd00::2"]);
    }

    #[test]
    fn this_hosts_own_tables_can_be_read() {
        let host = Host::read(&"10.201.0.0/16".parse().unwrap()).unwrap();
        assert!(!host.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(host.addresses.is_sorted());
    }
}
