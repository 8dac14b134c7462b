//! Addresses that are not an ordinary part of the public Internet, after IANA's special-purpose
//! registries (RFC 6890 and what it has become), stricter where a sidecar gains nothing by a
//! finer answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// First match counts: a part of a network comes before the whole.
const V4: [(Ipv4Net, &str); 18] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared (carrier-grade NAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "cloud metadata"),
    (v4(169, 254, 169, 254, 32), "cloud metadata (link-local)"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// As [`V4`]. What is in none of these and not in [`GLOBAL`] is "not global unicast".
const V6: [(Ipv6Net, &str); 14] = [
    (v6(0, 0, 0, 0, 128), "unspecified"),
    (v6(0, 0, 0, 1, 128), "loopback"),
    (v6(0, 0, 0, 0, 96), "IPv4-compatible"),
    (v6(0x64, 0xff9b, 1, 0, 48), "local NAT64"),
    (v6(0x100, 0, 0, 0, 64), "discard-only"),
    (v6(0x2001, 0, 0, 0, 32), "Teredo"),
    (v6(0x2001, 0, 0, 0, 23), "protocol assignments"),
    (v6(0x2001, 0xdb8, 0, 0, 32), "documentation"),
    (v6(0x2002, 0, 0, 0, 16), "6to4"),
    (v6(0x3fff, 0, 0, 0, 20), "documentation"),
    (v6(0xfc00, 0, 0, 0, 7), "unique local"),
    (v6(0xfe80, 0, 0, 0, 10), "link-local"),
    (v6(0xfec0, 0, 0, 0, 10), "site-local"),
    (v6(0xff00, 0, 0, 0, 8), "multicast"),
];

/// All that IANA has given out for global unicast.
const GLOBAL: Ipv6Net = v6(0x2000, 0, 0, 0, 3);

/// An address here means the IPv4 address in its last 32 bits, by RFC 6052.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 0, 96);

/// An address here means the IPv4 address in its last 32 bits.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// The first three words and the last one.
const fn v6(a: u16, b: u16, c: u16, last: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last), length)
}

/// What special class an address is in; `None` for an ordinary public one. Spellings of IPv4 in
/// IPv6 (mapped, NAT64) are what their IPv4 address is; 6to4 and Teredo are always special.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    match meant(address) {
        IpAddr::V4(v4) => V4.iter().find(|(net, _)| net.contains(&v4)).map(|(_, class)| *class),
        IpAddr::V6(v6) => match V6.iter().find(|(net, _)| net.contains(&v6)) {
            Some((_, class)) => Some(class),
            None if GLOBAL.contains(&v6) => None,
            None => Some("not global unicast"),
        },
    }
}

/// A special class that some address of the network is in.
#[must_use]
pub fn special_net(net: IpNet) -> Option<&'static str> {
    match net {
        IpNet::V4(net) => V4
            .iter()
            .find(|(other, _)| overlap(net.into(), (*other).into()))
            .map(|(_, class)| *class),
        IpNet::V6(net) => {
            if let Some(embedded) = [NAT64, MAPPED].iter().find(|outer| outer.contains(&net)) {
                let length = net.prefix_len() - embedded.prefix_len();
                let inner = Ipv4Net::new(low32(net.addr()), length).ok()?;
                return special_net(inner.into());
            }
            match V6.iter().find(|(other, _)| overlap(net.into(), (*other).into())) {
                Some((_, class)) => Some(class),
                None if GLOBAL.contains(&net) => None,
                None => Some("not global unicast"),
            }
        }
    }
}

/// All special networks that have a name, for those who keep a list.
pub fn special_networks() -> impl Iterator<Item = IpNet> {
    let v4 = V4.iter().map(|(net, _)| IpNet::V4(*net));
    v4.chain(V6.iter().map(|(net, _)| IpNet::V6(*net)))
}

/// The address that a packet to this one ends at: IPv4 where it is mapped or translated.
#[must_use]
pub fn meant(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if NAT64.contains(&v6) => low32(v6).into(),
        other => other,
    }
}

fn low32(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// Of two networks either one holds the other or they are apart.
fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(address: &str) -> Option<&'static str> {
        special(address.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_special_in_every_spelling() {
        for (v4, expected) in [
            ("0.0.0.0", "this network"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "shared (carrier-grade NAT)"),
            ("127.0.0.53", "loopback"),
            ("168.63.129.16", "cloud metadata"),
            ("169.254.169.254", "cloud metadata (link-local)"),
            ("169.254.1.1", "link-local"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("198.19.0.1", "benchmarking"),
            ("224.0.0.1", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
        ] {
            assert_eq!(class(v4), Some(expected), "{v4}");
            assert_eq!(class(&format!("::ffff:{v4}")), Some(expected), "{v4} mapped");
            assert_eq!(class(&format!("64:ff9b::{v4}")), Some(expected), "{v4} by NAT64");
            assert!(class(&format!("::{v4}")).is_some(), "{v4} compatible");
        }
        for v6 in [
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2001:20::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "64:ff9b:1::1",
            "100::1",
            "4000::1",
            "5f00::1",
            "fd00:ec2::254",
            "64:ff9b:2::1",
        ] {
            assert!(class(v6).is_some(), "{v6}");
        }
    }

    #[test]
    fn neighbours_of_special_networks_are_ordinary() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(class(address), None, "{address}");
        }
    }

    #[test]
    fn network_is_special_where_any_address_of_it_is() {
        for (net, expected) in [
            ("8.0.0.0/7", false),
            ("8.0.0.0/6", true),
            ("10.1.0.0/16", true),
            ("1.0.0.0/8", false),
            ("128.0.0.0/1", true),
            ("2606:4700::/32", false),
            ("2000::/3", true),
            ("fd00::/8", true),
            ("4000::/3", true),
            ("64:ff9b::808:0/112", false),
            ("64:ff9b::a00:0/104", true),
        ] {
            assert_eq!(special_net(net.parse().unwrap()).is_some(), expected, "{net}");
        }
    }
}
