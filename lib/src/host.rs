//! Host names and addresses: one normal form for what a person writes and what arrives on the wire.
//!
//! Two spellings of one host must never be two hosts to a rule, and one spelling must never be two
//! hosts to two programs. So [`normalise`] takes what a manifest says, [`request_host`] what a
//! client sends, and both end in the same form; whatever some resolver somewhere reads in another
//! way (`0x7f.1`, `127.1`, `*foo.com`) is refused, and the message names the form to write.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use ipnet::IpNet;

use crate::error::caller;
use crate::policy::HostKind;

mod special;

pub use special::{meant, special, special_net, special_networks};

/// The longest name, without its trailing dot.
const MAX_NAME: usize = 253;

/// A host as it arrives on the wire, in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// A name: lower case, no trailing dot.
    Name(Cow<'a, str>),
    /// An address; an IPv4-mapped one is the IPv4 address that it means.
    Address(IpAddr),
}

impl Host<'_> {
    /// The same, owning its name.
    #[must_use]
    pub fn into_owned(self) -> Host<'static> {
        match self {
            Self::Name(name) => Host::Name(Cow::Owned(name.into_owned())),
            Self::Address(address) => Host::Address(address),
        }
    }
}

/// As it stands in an authority: an IPv6 address in brackets.
impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// The normal form of a rule's host as a manifest writes it, and its kind: a name (lower case,
/// A-labels, no trailing dot), `*.` and a name, an address without brackets, or a network.
pub fn normalise(text: &str) -> Result<(String, HostKind)> {
    let host = text.trim();
    let refuse = |why: &str| Err(caller(format!("host '{text}': {why}")));
    if host.is_empty() {
        return refuse("it is empty: write a name, '*.' and a name, an address or a network");
    }
    if let Some((_, rest)) = host.split_once("://") {
        let only = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return refuse(&format!(
            "it is a URL: write '{only}', and the rest in 'ports' and 'paths'"
        ));
    }
    if host.contains('@') {
        return refuse("a user has no place in it: write the name after '@'");
    }
    if let Some((address, length)) = host.split_once('/') {
        return network(text, address, length);
    }
    if let Some(inner) = host.strip_prefix('[') {
        return match inner.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(address)) => Ok(of_address(address.into())),
            _ => refuse("brackets hold an IPv6 address and nothing else; ports go in 'ports'"),
        };
    }
    if host.contains(':') {
        return match (host.parse::<Ipv6Addr>(), host.rsplit_once(':')) {
            (Ok(address), _) => Ok(of_address(address.into())),
            (Err(_), Some((name, port))) if port.parse::<u16>().is_ok() && !name.contains(':') => {
                refuse(&format!("it holds a port: write '{name}', and {port} in 'ports'"))
            }
            _ => refuse("it is not an IPv6 address (which has no zone here)"),
        };
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(of_address(address.into()));
    }
    if let Some(apex) = host.strip_prefix("*.") {
        let (name, kind) = name(text, apex)?;
        if kind == HostKind::SingleLabel {
            return refuse(
                "it covers a whole top-level domain: write '*.' and at least two labels",
            );
        }
        return Ok((format!("*.{name}"), HostKind::Wildcard));
    }
    name(text, host)
}

/// What kind a rule's host in normal form is; `None` where it is not in normal form.
#[must_use]
pub fn classify(host: &str) -> Option<HostKind> {
    normalise(host).ok().filter(|(normal, _)| normal == host).map(|(_, kind)| kind)
}

/// A name without wildcard; `text` is what the manifest says, for messages.
fn name(text: &str, name: &str) -> Result<(String, HostKind)> {
    let refuse = |why: &str| Err(caller(format!("host '{text}': {why}")));
    if name == "*" {
        return refuse("a bare '*' would allow every host: name the hosts");
    }
    if name.contains('*') {
        let rest = name.trim_start_matches(['*', '.']);
        return if rest.contains('*') || name.len() - rest.len() != 1 {
            refuse("a wildcard is '*.' once, at the beginning: write '*.example.com'")
        } else {
            refuse(&format!("a wildcard covers whole labels at the beginning: write '*.{rest}'"))
        };
    }
    let Ok(ascii) = Uts46::new().to_ascii(
        name.as_bytes(),
        AsciiDenyList::URL,
        Hyphens::CheckFirstLast,
        DnsLength::VerifyAllowRootDot,
    ) else {
        return refuse(
            "it is not a host name: labels of 1 to 63 letters, digits, hyphens within, at most 253 in all",
        );
    };
    match request_host(&ascii) {
        Ok(Host::Name(normal)) => {
            let kind = if normal.contains('.') { HostKind::Name } else { HostKind::SingleLabel };
            Ok((normal.into_owned(), kind))
        }
        // "１２７.0.0.1", whose digits IDNA maps to ASCII ones.
        Ok(Host::Address(address)) => refuse(&format!("write the address as '{address}'")),
        Err(odd) => refuse(odd.0),
    }
}

fn of_address(address: IpAddr) -> (String, HostKind) {
    let address = address.to_canonical();
    let kind = match special(address) {
        Some(_) => HostKind::PrivateAddress,
        None => HostKind::Address,
    };
    (address.to_string(), kind)
}

fn network(text: &str, address: &str, length: &str) -> Result<(String, HostKind)> {
    let refuse = |why: &str| Err(caller(format!("host '{text}': {why}")));
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let Ok(address) = address.parse::<IpAddr>() else {
        return refuse(
            "it is no network (an address and '/' and a length): write a path in 'paths'",
        );
    };
    // "08" and "+8" parse as numbers, and other programs read other numbers in them.
    let plain = length.bytes().all(|b| b.is_ascii_digit()) && !length.starts_with('0');
    let net = match length.parse::<u8>().map(|length| IpNet::new(address, length)) {
        Ok(Ok(net)) if plain || length == "0" => net,
        _ => return refuse("the length after '/' is a number from 1 to 32, or to 128 for IPv6"),
    };
    if net.prefix_len() == 0 {
        return refuse("it would allow every address: name the networks");
    }
    if address != address.to_canonical() {
        return refuse("it is IPv4 within IPv6: write the IPv4 network");
    }
    if net.addr() != net.network() {
        return refuse(&format!("bits of the host are set: write '{}'", net.trunc()));
    }
    if net.prefix_len() == net.max_prefix_len() {
        return Ok(of_address(address));
    }
    let kind = match special_net(net) {
        Some(_) => HostKind::PrivateNetwork,
        None => HostKind::Network,
    };
    Ok((net.to_string(), kind))
}

/// Why a host on the wire is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Odd(pub &'static str);

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Odd {}

/// The normal form of a host as it arrives on the wire: ASCII, an IPv6 address in brackets, no
/// port. Whatever two programs could read as two hosts is refused.
pub fn request_host(host: &str) -> Result<Host<'_>, Odd> {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
            .map(|address| Host::Address(IpAddr::from(address).to_canonical()))
            .ok_or(Odd("brackets hold an IPv6 address and nothing else"));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    if is_number(last) {
        // Resolvers read `127.1`, `0x7f000001` and `0177.0.0.1` as addresses, and not all alike.
        return host
            .parse::<Ipv4Addr>()
            .map(|address| Host::Address(address.into()))
            .map_err(|_| Odd("it ends in a number and is not four decimal numbers with dots"));
    }
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Odd("a name has 1 to 253 characters"));
    }
    let mut upper = false;
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(Odd("a label has 1 to 63 characters"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Odd("a label neither begins nor ends with a hyphen"));
        }
        for byte in label.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
                b'A'..=b'Z' => upper = true,
                _ => return Err(Odd("a name holds letters, digits, hyphens and underscores only")),
            }
        }
    }
    Ok(Host::Name(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }))
}

/// Host and port of an authority on the wire, `host`, `host:port` or `[v6]:port`.
pub fn authority(text: &str) -> Result<(Host<'_>, Option<u16>), Odd> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None => None,
        Some(digits) => Some(
            digits
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0 && digits.bytes().all(|b| b.is_ascii_digit()))
                .filter(|_| !digits.starts_with('0'))
                .ok_or(Odd("a port is a number from 1 to 65535"))?,
        ),
    };
    Ok((request_host(host)?, port))
}

/// Whether some resolver reads a name that ends in this label as an IPv4 address: digits, or `0x`
/// and hex digits, as WHATWG's "ends in a number" has it.
fn is_number(label: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    digits(label) || label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")).is_some_and(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> (String, HostKind) {
        normalise(text).unwrap_or_else(|e| panic!("'{text}': {e:#}"))
    }

    fn refusal(text: &str) -> String {
        match normalise(text) {
            Err(error) => {
                assert_eq!(crate::error::exit_of(&error), crate::Exit::Caller);
                format!("{error:#}")
            }
            Ok(taken) => panic!("'{text}' was taken as {taken:?}"),
        }
    }

    #[test]
    fn spellings_of_one_host_have_one_normal_form() {
        for (text, host, kind) in [
            ("Example.COM", "example.com", HostKind::Name),
            ("example.com.", "example.com", HostKind::Name),
            ("Bücher.example", "xn--bcher-kva.example", HostKind::Name),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", HostKind::Name),
            ("faß.de", "xn--fa-hia.de", HostKind::Name),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah", HostKind::Name),
            ("_dmarc.example.com", "_dmarc.example.com", HostKind::Name),
            ("r3---sn-x.example.com", "r3---sn-x.example.com", HostKind::Name),
            ("*.Example.com", "*.example.com", HostKind::Wildcard),
            ("*.bücher.example", "*.xn--bcher-kva.example", HostKind::Wildcard),
            ("LocalHost", "localhost", HostKind::SingleLabel),
            ("8.8.8.8", "8.8.8.8", HostKind::Address),
            ("10.0.0.1", "10.0.0.1", HostKind::PrivateAddress),
            ("169.254.169.254", "169.254.169.254", HostKind::PrivateAddress),
            ("[2606:4700:0:0::1111]", "2606:4700::1111", HostKind::Address),
            ("2606:4700::1111", "2606:4700::1111", HostKind::Address),
            ("::1", "::1", HostKind::PrivateAddress),
            ("::FFFF:8.8.8.8", "8.8.8.8", HostKind::Address),
            ("[::ffff:7f00:1]", "127.0.0.1", HostKind::PrivateAddress),
            ("10.0.0.0/8", "10.0.0.0/8", HostKind::PrivateNetwork),
            ("8.0.0.0/7", "8.0.0.0/7", HostKind::Network),
            ("2606:4700::/32", "2606:4700::/32", HostKind::Network),
            ("fd00::/8", "fd00::/8", HostKind::PrivateNetwork),
            ("10.1.2.3/32", "10.1.2.3", HostKind::PrivateAddress),
        ] {
            assert_eq!(normal(text), (host.to_owned(), kind), "{text}");
            assert_eq!(classify(host), Some(kind), "{host}");
        }
        assert_eq!(classify("Example.com"), None);
    }

    #[test]
    fn wildcards_are_whole_labels_at_the_beginning_of_a_real_domain() {
        assert!(refusal("*").contains("a bare '*' would allow every host"));
        assert!(refusal("*.*").contains("a bare '*'"));
        assert!(refusal("*foo.com").ends_with("write '*.foo.com'"));
        assert!(refusal("a.*.com").contains("once, at the beginning"));
        assert!(refusal("*.*.com").contains("once, at the beginning"));
        assert!(refusal("foo*.com").contains("at the beginning"));
        assert!(refusal("*.com").contains("whole top-level domain"));
        assert!(refusal("*.1").contains("ends in a number"));
        assert!(refusal("*.10.0.0.1").contains("write the address"));
    }

    #[test]
    fn odd_spellings_of_addresses_are_refused_and_never_names() {
        for text in [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "1.2.3.4.5",
            "256.0.0.1",
            "a.0x",
            "example.1",
            "１２７.0.0.1",
            "127。0。0。1",
        ] {
            refusal(text);
            if text.is_ascii() {
                assert!(request_host(text).is_err(), "{text} on the wire");
            }
        }
        assert!(normalise("1.example").is_ok());
        assert!(normalise("0x7f.example").is_ok());
    }

    #[test]
    fn networks_are_canonical() {
        assert!(refusal("10.1.2.3/8").ends_with("write '10.0.0.0/8'"));
        assert!(refusal("fd00::1/64").ends_with("write 'fd00::/64'"));
        assert!(refusal("0.0.0.0/0").contains("every address"));
        assert!(refusal("::/0").contains("every address"));
        assert!(refusal("10.0.0.0/33").contains("the length"));
        assert!(refusal("10.0.0.0/08").contains("the length"));
        assert!(refusal("10.0.0.0/+8").contains("the length"));
        assert!(refusal("10.0.0.0/255.0.0.0").contains("the length"));
        assert!(refusal("::ffff:10.0.0.0/104").contains("write the IPv4 network"));
        assert!(refusal("example.com/api").contains("in 'paths'"));
    }

    #[test]
    fn what_is_more_than_a_host_says_where_it_belongs() {
        assert!(refusal("https://example.com/x").contains("write 'example.com'"));
        assert!(refusal("example.com:8443").contains("write 'example.com', and 8443 in 'ports'"));
        assert!(refusal("[::1]:8443").contains("in 'ports'"));
        assert!(refusal("me@example.com").contains("a user"));
        assert!(refusal("fe80::1%eth0").contains("zone"));
        for text in ["", " ", "exa mple.com", "a..b", ".com", "-a.com", "a-.com", "a\0b", "a%2eb"] {
            refusal(text);
        }
        refusal(&format!("{}.com", "a".repeat(64)));
        refusal(&format!("{}com", "a.".repeat(126)));
    }

    #[test]
    fn wire_hosts_are_strict_ascii() {
        assert_eq!(request_host("Example.com."), Ok(Host::Name("example.com".into())));
        assert_eq!(
            request_host("[::ffff:127.0.0.1]"),
            Ok(Host::Address(IpAddr::from([127, 0, 0, 1])))
        );
        assert!(matches!(request_host("example.com"), Ok(Host::Name(Cow::Borrowed(_)))));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "bücher.example",
            "a b",
            "a\tb",
            "a:1",
            "::1",
            "[::1",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "a/b",
            "a@b",
            "a\\b",
            "a%2eb",
            "-a",
            "a-",
            "*.example.com",
            "a\0",
        ] {
            assert!(request_host(text).is_err(), "'{text}' was taken");
        }
    }

    #[test]
    fn authorities_have_plain_ports() {
        assert_eq!(authority("a:443"), Ok((Host::Name("a".into()), Some(443))));
        assert_eq!(authority("a"), Ok((Host::Name("a".into()), None)));
        let v6 = Host::Address("2606:4700::1".parse().unwrap());
        assert_eq!(authority("[2606:4700::1]:443"), Ok((v6.clone(), Some(443))));
        assert_eq!(authority("[2606:4700::1]"), Ok((v6, None)));
        for text in
            ["a:", "a:0", "a:+1", "a:65536", "a:0443", "a:1:2", "2606:4700::1", "a: 1", ":1"]
        {
            assert!(authority(text).is_err(), "'{text}' was taken");
        }
    }

    #[test]
    fn normal_forms_survive_the_wire() {
        for text in ["Example.com", "bücher.example", "10.0.0.1", "localhost", "a_b.example"] {
            let (host, _) = normal(text);
            assert_eq!(request_host(&host).unwrap().to_string(), host);
        }
    }

    #[test]
    fn normal_form_is_a_fixed_point_whatever_is_written() {
        let mut random = crate::policy::tests::Random(11);
        let parts = [
            "a", "A", "1", "0x", ".", "..", "-", "_", "*", "*.", "xn--", "ü", "ß", "\u{ad}", "。",
            "１", "::", "ffff:", "[", "]", "/", "24", "%", "@", ":", " ", "\0", "example", "com",
            "127", "8.8.8.8", "/32",
        ];
        let mut taken = 0;
        for _ in 0..50_000 {
            let text: String =
                (0..=random.below(6)).map(|_| parts[random.below(parts.len())]).collect();
            let _ = authority(&text);
            let Ok((normal, kind)) = normalise(&text) else { continue };
            taken += 1;
            assert_eq!(normalise(&normal).unwrap(), (normal.clone(), kind), "{text:?}");
            if matches!(kind, HostKind::Name | HostKind::SingleLabel) {
                assert_eq!(request_host(&normal), Ok(Host::Name((&*normal).into())), "{text:?}");
            }
        }
        assert!(taken > 1_000, "{taken} hosts: the generator tests nothing");
    }
}
