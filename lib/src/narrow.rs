//! Containment of rules: whether all that one rule allows, another one allows too.
//!
//! `bottle-plan` asks it of an agent's routes, which may narrow its bottle's and never widen them.
//! The answer is sound, not complete: a rule that only two others together cover is not contained.

use std::collections::{BTreeSet, VecDeque};

use ipnet::IpNet;

use crate::policy::{HostKind, Rule};

/// In what a rule asks for more than another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The field.
    pub field: &'static str,
    /// What it asks for.
    pub asks: String,
    /// What there is.
    pub has: String,
}

/// Whether every request that `inner` allows is allowed by `outer`.
#[must_use]
pub fn contains(outer: &Rule, inner: &Rule) -> bool {
    excess(outer, inner).is_none()
}

/// The first thing in which `inner` goes beyond `outer`.
#[must_use]
pub fn excess(outer: &Rule, inner: &Rule) -> Option<Excess> {
    let more = |field, asks: String, has: String| Some(Excess { field, asks, has });
    if !covers_host(outer, inner) {
        return more("host", inner.host.clone(), outer.host.clone());
    }
    if !inner.ports.iter().all(|port| outer.ports.contains(port)) {
        return more("ports", list(&inner.ports, "none"), list(&outer.ports, "none"));
    }
    let methods = outer.methods.is_empty()
        || (!inner.methods.is_empty() && inner.methods.iter().all(|it| outer.methods.contains(it)));
    if !methods {
        return more(
            "methods",
            list(&inner.methods, "every one"),
            list(&outer.methods, "every one"),
        );
    }
    let covered = |path: &String| outer.paths.iter().any(|glob| covers_paths(glob, path));
    if !outer.paths.is_empty() && (inner.paths.is_empty() || !inner.paths.iter().all(covered)) {
        return more("paths", list(&inner.paths, "every one"), list(&outer.paths, "every one"));
    }
    let within = |net: &IpNet| outer.addresses.iter().any(|wide| wide.contains(net));
    if !inner.addresses.iter().all(within) {
        return more("addresses", list(&inner.addresses, "none"), list(&outer.addresses, "none"));
    }
    if inner.passthrough && !outer.passthrough {
        return more("passthrough", "true".to_owned(), "false".to_owned());
    }
    let told = |rule: &Rule| {
        rule.inject
            .as_ref()
            .map_or("none".to_owned(), |inject| format!("secret '{}'", inject.secret))
    };
    if inner.inject.is_some() && inner.inject != outer.inject {
        return more("inject", told(inner), told(outer));
    }
    None
}

/// A list for a message.
fn list<T: ToString>(items: &[T], empty: &str) -> String {
    if items.is_empty() {
        return empty.to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn covers_host(outer: &Rule, inner: &Rule) -> bool {
    if outer.host == inner.host {
        return true;
    }
    match (outer.kind, inner.kind) {
        (HostKind::Wildcard, HostKind::Name | HostKind::Wildcard) => {
            // "*.example.com" without its star begins with the dot that keeps "badexample.com" out.
            inner.host.ends_with(&outer.host[1..])
        }
        (HostKind::Network | HostKind::PrivateNetwork, _) => {
            let net = |host: &str| {
                host.parse::<IpNet>()
                    .or_else(|_| host.parse().map(|ip: std::net::IpAddr| ip.into()))
            };
            matches!((net(&outer.host), net(&inner.host)), (Ok(wide), Ok(narrow)) if wide.contains(&narrow))
        }
        _ => false,
    }
}

/// How many pairs of states are looked at before a pair of globs counts as not contained.
const EFFORT: usize = 4096;

/// Whether every path that the glob `inner` covers, `outer` covers too: both run side by side over
/// every text that keeps `inner` alive, as automata whose states are sets of positions.
#[must_use]
pub fn covers_paths(outer: &str, inner: &str) -> bool {
    let (outer, inner) = (Glob::new(outer), Glob::new(inner));
    let mut letters: BTreeSet<u8> = outer.letters().chain(inner.letters()).collect();
    letters.insert(b'/');
    // All letters that neither pattern names behave alike, so one stands for them.
    letters.extend((1..=u8::MAX).find(|byte| !letters.contains(byte)));

    let start = (inner.start(), outer.start());
    let mut seen = BTreeSet::from([start.clone()]);
    let mut queue = VecDeque::from([start]);
    while let Some((inside, outside)) = queue.pop_front() {
        if inner.accepts(&inside) && !outer.accepts(&outside) {
            return false;
        }
        for &letter in &letters {
            let inside = inner.step(&inside, letter);
            if inside.is_empty() {
                continue;
            }
            let next = (inside, outer.step(&outside, letter));
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
        if seen.len() > EFFORT {
            return false;
        }
    }
    true
}

/// A glob as an automaton.
struct Glob(Vec<Token>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `*`
    Segment,
    /// `**`
    Any,
    /// The `**` of `/**/`, which with the `/` after it may also be nothing.
    Folders,
}

/// The positions that what was read so far can have led to.
type Positions = BTreeSet<usize>;

impl Glob {
    fn new(pattern: &str) -> Self {
        let bytes = pattern.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let token = match bytes[at..] {
                [b'*', b'*', b'/', ..] if at > 0 && bytes[at - 1] == b'/' => Token::Folders,
                [b'*', b'*', ..] => Token::Any,
                [b'*', ..] => Token::Segment,
                _ => Token::Byte(bytes[at]),
            };
            at += if matches!(token, Token::Any | Token::Folders) { 2 } else { 1 };
            tokens.push(token);
        }
        Self(tokens)
    }

    fn letters(&self) -> impl Iterator<Item = u8> {
        self.0.iter().filter_map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        })
    }

    fn start(&self) -> Positions {
        self.with_skips([0].into())
    }

    fn accepts(&self, positions: &Positions) -> bool {
        positions.contains(&self.0.len())
    }

    fn step(&self, from: &Positions, letter: u8) -> Positions {
        let moved = from.iter().filter_map(|at| match self.0.get(*at)? {
            Token::Byte(byte) => (*byte == letter).then_some(at + 1),
            Token::Segment => (letter != b'/').then_some(*at),
            Token::Any | Token::Folders => Some(*at),
        });
        self.with_skips(moved.collect())
    }

    /// Wildcards may match nothing.
    fn with_skips(&self, mut positions: Positions) -> Positions {
        for (at, token) in self.0.iter().enumerate() {
            if positions.contains(&at) && !matches!(token, Token::Byte(_)) {
                positions.insert(at + 1);
                if *token == Token::Folders {
                    positions.insert(at + 2);
                }
            }
        }
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_contain_what_they_cover_and_nothing_else() {
        for (outer, inner) in [
            ("/**", "/v1/**"),
            ("/**", "/"),
            ("/v1/*", "/v1/a"),
            ("/v1/**", "/v1/*/x"),
            ("/**/x", "/x"),
            ("/**/x", "/a/b/x"),
            ("/*/x", "/a*/x"),
            ("/a**", "/a/b"),
            ("/**/*", "/*/**"),
        ] {
            assert!(covers_paths(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("/v1/**", "/**"),
            ("/v1/**", "/v1"),
            ("/v1/*", "/v1/**"),
            ("/v1/*", "/v1/a/b"),
            ("/a*/x", "/*/x"),
            ("/**/x", "/**"),
            ("/v1", "/v1/"),
            ("/a**/b", "/**/b"),
        ] {
            assert!(!covers_paths(outer, inner), "{outer} {inner}");
        }
    }
}
