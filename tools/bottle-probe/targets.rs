//! What to try beside what the caller names: the addresses behind which a host may be, as the
//! network of this process shows them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use anyhow::Result;
use bottle::caller;

/// Ports of a host that are tried. An open one is not needed: a refusal shows too that the host is
/// within reach. Several, because a firewall may drop what goes to one and refuse another.
const PORTS: [u16; 8] = [22, 53, 80, 111, 443, 2375, 3128, 8080];

/// An address of the host and all that is tried of it. A link-local address without a zone is
/// tried on every link.
pub(crate) fn host(text: &str) -> Result<Vec<SocketAddr>> {
    let bad = || {
        caller(format!("read address '{text}': it has to look like '10.0.0.1' or '10.0.0.1:22'"))
    };
    let (address, zone, ports) = match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(one)) => (IpAddr::V6(*one.ip()), one.scope_id(), vec![one.port()]),
        Ok(SocketAddr::V4(one)) => (IpAddr::V4(*one.ip()), 0, vec![one.port()]),
        Err(_) => {
            let (address, zone) = text.split_once('%').map_or((text, None), |(a, z)| (a, Some(z)));
            let zone = match zone {
                Some(name) => index(name).or_else(|| name.parse().ok()).ok_or_else(bad)?,
                None => 0,
            };
            (address.parse().map_err(|_| bad())?, zone, PORTS.to_vec())
        }
    };
    let zones = match address {
        IpAddr::V6(six) if six.is_unicast_link_local() && zone == 0 => links(),
        _ => vec![zone],
    };
    let on = |port| {
        zones.iter().map(move |zone| match address {
            IpAddr::V4(_) => SocketAddr::new(address, port),
            IpAddr::V6(six) => SocketAddrV6::new(six, port, 0, *zone).into(),
        })
    };
    Ok(ports.into_iter().flat_map(on).collect())
}

/// The addresses behind which the host may be: each gateway, and the first address of each
/// network, which engines keep for themselves.
pub(crate) fn gateways() -> Vec<Ipv4Addr> {
    parse_routes(&fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Reads `/proc/net/route`. Of a line, the second field is the destination, the third the gateway,
/// both hexadecimal numbers in the machine's byte order.
fn parse_routes(table: &str) -> Vec<Ipv4Addr> {
    let address =
        |hex: &str| u32::from_str_radix(hex, 16).ok().map(|n| Ipv4Addr::from(n.to_ne_bytes()));
    let mut found: Vec<Ipv4Addr> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (network, gateway) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
            let behind = if gateway.is_unspecified() {
                Ipv4Addr::from(u32::from(network) + 1)
            } else {
                gateway
            };
            (!behind.is_loopback()).then_some(behind)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The resolvers of this process.
pub(crate) fn resolvers() -> Vec<IpAddr> {
    fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .collect()
}

/// The numbers of the links, without loopback; 0 where there is none, so that one is tried.
fn links() -> Vec<u32> {
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut found: Vec<u32> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "lo")
        .filter_map(|name| index(&name))
        .collect();
    found.sort_unstable();
    if found.is_empty() {
        found.push(0);
    }
    found
}

fn index(link: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_and_first_address_of_each_network_are_found() {
        let (network, gateway, mask) = if cfg!(target_endian = "little") {
            ("0000D60A", "0100D60A", "F0FFFFFF")
        } else {
            ("0AD60000", "0AD60001", "FFFFFFF0")
        };
        let table = format!(
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
             eth0 00000000 {gateway} 0003 0 0 0 00000000 0 0 0\n\
             eth0 {network} 00000000 0001 0 0 0 {mask} 0 0 0\n"
        );
        assert_eq!(parse_routes(&table), ["10.214.0.1".parse::<Ipv4Addr>().unwrap()]);
        assert!(parse_routes("").is_empty());
    }

    #[test]
    fn address_with_a_port_is_tried_on_that_port_alone() {
        assert_eq!(host("10.0.0.1:7").unwrap(), ["10.0.0.1:7".parse().unwrap()]);
        assert_eq!(host("10.0.0.1").unwrap().len(), PORTS.len());
        assert_eq!(host("[fe80::1%3]:7").unwrap(), ["[fe80::1%3]:7".parse().unwrap()]);
        assert!(host("gateway").is_err());
    }
}
