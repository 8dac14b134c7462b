//! The single values of a manifest: each one checked, and brought to its normal form, while the
//! place it stands at is known. A message says what to write instead.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use crate::host;
use crate::policy::{Glob, HostKind};

/// What a text is refused with; [`crate::strict`] puts file, line and field before it.
type Refusal = String;

/// The version of a manifest, 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version;

impl FromStr for Version {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text.parse::<u32>() {
            Ok(1) => Ok(Self),
            Ok(newer) if newer > 1 => Err(format!(
                "version {newer} is newer than 1, the newest that this tool knows: upgrade bottle"
            )),
            _ => Err(format!("'{text}' is no version of a manifest: write 1")),
        }
    }
}

/// A count of something, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u32);

impl FromStr for Count {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match digits(text) {
            Some(count @ 1..) => Ok(Self(count)),
            _ => Err(format!("'{text}' is not a count: write a whole number from 1")),
        }
    }
}

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u16);

impl FromStr for Port {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match digits(text) {
            Some(port @ 1..) => Ok(Self(port)),
            _ => Err(format!("'{text}' is not a port: write a number from 1 to 65535")),
        }
    }
}

/// A number of digits alone: no sign, and no leading zero that some reader takes for octal.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// A length of time in seconds, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

/// The longest one: what lasts longer is for the manifest.
const LONGEST_SPAN: u64 = 365 * 24 * 60 * 60;

impl FromStr for Span {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let each = match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(60 * 60),
            "d" => Some(24 * 60 * 60),
            _ => None,
        };
        match each.and_then(|each| digits::<u64>(number)?.checked_mul(each)) {
            Some(seconds @ 1..=LONGEST_SPAN) => Ok(Self(seconds)),
            Some(0) | None => Err(format!(
                "'{text}' is no length of time: write a whole number from 1 and s, m, h or d, as in '30m'"
            )),
            Some(_) => Err(format!("'{text}' is longer than a year: leave it to the manifest")),
        }
    }
}

/// CPUs in units of 10⁻⁹, as the engine counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(u64);

impl FromStr for Cpus {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let nanos = || -> Option<u64> {
            let part_fits = part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
            let part = part_fits.then(|| format!("{part:0<9}").parse().ok()).flatten();
            digits::<u64>(whole)?.checked_mul(1_000_000_000)?.checked_add(part?)
        };
        match nanos() {
            Some(nanos @ 1..) if !part.is_empty() => Ok(Self(nanos)),
            _ => Err(format!("'{text}' is no number of CPUs: write a decimal number, as in '1.5'")),
        }
    }
}

/// The shortest decimal number.
impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{part:09}").trim_end_matches('0'))
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match bytes(text) {
            Some(bytes @ 1..) => Ok(Self(bytes)),
            _ => {
                Err(format!("'{text}' is no size: write a whole number and k, m or g, as in '64m'"))
            }
        }
    }
}

/// The bytes of a number with a unit.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let unit_at = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(unit_at);
    // The engine's units, which are binary whichever way they are spelt.
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    digits::<u64>(number)?.checked_mul(1 << shift)
}

/// An amount of memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

/// The least that the engine takes.
const LEAST_MEMORY: u64 = 6 << 20;

impl FromStr for Memory {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match bytes(text) {
            Some(bytes @ LEAST_MEMORY..) => Ok(Self(bytes)),
            Some(_) => {
                Err(format!("'{text}' of memory is less than the engine takes: write 6m or more"))
            }
            None => Err(format!(
                "'{text}' is no amount of memory: write a whole number and k, m or g, as in '4g'"
            )),
        }
    }
}

/// In the largest unit that leaves a whole number, as a manifest has it.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = [(40, "t"), (30, "g"), (20, "m"), (10, "k")]
            .into_iter()
            .find(|(shift, _)| self.0.trailing_zeros() >= *shift)
            .unwrap_or((0, "b"));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// `root`, or `uid[:gid]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(pub String);

impl FromStr for User {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut ids = text.splitn(2, ':');
        // 2³²-1 is "no change" to chown(2), and no user.
        let fits = ids.all(|id| digits::<u32>(id).is_some_and(|id| id != u32::MAX));
        if text != "root" && !fits {
            return Err(format!(
                "user '{text}' cannot be looked up in the image: write 'uid', 'uid:gid' or 'root'"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The value of a variable: text, and only text, because `yes`, `1.10` or `0x10` are other texts to
/// other readers of YAML. It may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env(pub String);

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl serde::de::Visitor<'_> for Value {
            type Value = Env;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Env, E> {
                Ok(Env(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Value)
    }
}

/// The host of a rule in normal form, and its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// See [`crate::policy::Rule::host`].
    pub host: String,
    /// What kind of thing it is.
    pub kind: HostKind,
}

impl FromStr for Host {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        host::normalise(text).map(|(host, kind)| Self { host, kind })
    }
}

/// A network in canonical form; a single address is the network of it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net(pub IpNet);

impl FromStr for Net {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| {
                format!(
                    "'{text}' is no network: write an address and its length, as in '10.1.0.0/16'"
                )
            })?;
        if net.addr() != net.network() {
            return Err(format!("network '{text}' has host bits set: write '{}'", net.trunc()));
        }
        if net.prefix_len() == 0 {
            return Err(format!("network '{text}' is everything: name what is meant"));
        }
        Ok(Self(net))
    }
}

/// An HTTP method, upper case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method(pub String);

impl FromStr for Method {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let upper = text.to_ascii_uppercase();
        if upper == "*" {
            return Err(
                "method '*' is no method: leave 'methods' out to allow every one".to_owned()
            );
        }
        if upper == "CONNECT" {
            return Err(
                "method 'CONNECT' is egress's own business: list what is sent inside".to_owned()
            );
        }
        if upper.is_empty() || !upper.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(format!("'{text}' is no method: write letters and hyphens, as in 'GET'"));
        }
        Ok(Self(upper))
    }
}

/// A glob of paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathGlob(pub String);

impl FromStr for PathGlob {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Glob::parse(text)?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err: fmt::Display> + fmt::Debug>(text: &str) -> String {
        match text.parse::<T>() {
            Ok(taken) => panic!("'{text}' was taken as {taken:?}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn memory_is_in_the_engines_units() {
        for (text, bytes) in
            [("4g", 4 << 30), ("512M", 512 << 20), ("8192kb", 8 << 20), ("16777216", 16 << 20)]
        {
            assert_eq!(text.parse(), Ok(Memory(bytes)), "{text}");
        }
        for text in ["", "4 g", "4gg", "-4g", "1.5g", "04g", "20000000t", "g"] {
            assert!(refusal::<Memory>(text).contains("no amount of memory"), "{text}");
        }
        assert!(refusal::<Memory>("5m").contains("6m or more"));
        assert_eq!(Memory(4 << 30).to_string(), "4g");
        assert_eq!(Memory((1 << 30) + (1 << 20)).to_string(), "1025m");
    }

    #[test]
    fn spans_have_a_unit_and_are_never_nothing() {
        for (text, seconds) in [("20s", 20), ("30m", 1800), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(Span(seconds)), "{text}");
        }
        for text in ["", "0", "0s", "30", "m", "-1m", "1.5h", "1w", "01m", "99999999999999999999d"]
        {
            assert!(refusal::<Span>(text).contains("no length of time"), "{text}");
        }
        assert!(refusal::<Span>("366d").contains("manifest"));
    }

    #[test]
    fn cpus_have_one_shortest_form() {
        for (text, normal) in [("2", "2"), ("1.50", "1.5"), ("0.25", "0.25"), ("2.000", "2")] {
            assert_eq!(text.parse::<Cpus>().map(|cpus| cpus.to_string()), Ok(normal.to_owned()));
        }
        for text in ["", "0", "0.0", "1.", ".5", "1e3", "-1", "1,5", "01", "1.0000000001", "two"] {
            assert!(refusal::<Cpus>(text).contains("no number of CPUs"), "{text}");
        }
    }

    #[test]
    fn users_are_numbers_or_root() {
        for text in ["root", "0", "1000", "1000:1000"] {
            assert!(text.parse::<User>().is_ok(), "{text}");
        }
        for text in ["", "node", "1000:", ":1000", "1000:users", "1:2:3", "4294967295", "-1"] {
            refusal::<User>(text);
        }
    }

    #[test]
    fn networks_are_canonical() {
        assert_eq!(
            "10.0.0.7".parse::<Net>().map(|net| net.0.to_string()),
            Ok("10.0.0.7/32".to_owned())
        );
        assert!(refusal::<Net>("10.0.0.7/8").contains("write '10.0.0.0/8'"));
        assert!(refusal::<Net>("10.0.0.0/33").contains("no network"));
        assert!(refusal::<Net>("0.0.0.0/0").contains("everything"));
    }

    #[test]
    fn methods_are_upper_case_and_never_all() {
        assert_eq!("get".parse(), Ok(Method("GET".to_owned())));
        for text in ["", "*", "GET POST", "G\u{c9}T"] {
            refusal::<Method>(text);
        }
    }
}
