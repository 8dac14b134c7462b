//! Gain: what one list of rules lets out that another one does not.
//!
//! Sound, not complete: what is not named is allowed by both, and treated no more freely by the new
//! list; what is named may be allowed by several old rules together. A rule is cut by port, method
//! and path, so that a rule which two old ones cover between them is no gain. That a rule is there
//! word for word is not enough: a rule for a more specific host, or before it, may have taken a part
//! of its requests, to scan them, to leave them without a credential or to intercept them, and where
//! that one is gone, this one gets them.

use std::collections::{BTreeMap, HashMap};

use super::{Glob, HostKind, Rule};

/// Something that new rules allow and old ones do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gain {
    /// What is allowed: a rule, or the part of one that is new.
    pub rule: Rule,
    /// Where the requests were allowed before but treated otherwise: the field in which the new rule
    /// goes further, and what there was.
    pub was: Option<(&'static str, String)>,
}

/// What `new` allows, or treats more freely, and `old` does not: by client, in the order
/// of `new`.
#[must_use]
pub fn gained(old: &[Rule], new: &[Rule]) -> Vec<Gain> {
    let mut clients: Vec<Option<&String>> = new.iter().map(|rule| rule.from.as_ref()).collect();
    clients.sort();
    clients.dedup();
    clients.into_iter().flat_map(|client| gained_by(client, old, new)).collect()
}

/// The same for one client: rules of others are none of its.
fn gained_by(client: Option<&String>, old: &[Rule], new: &[Rule]) -> Vec<Gain> {
    let of = |rules: &[Rule]| -> Vec<Rule> {
        rules.iter().filter(|rule| rule.from.as_ref() == client).cloned().collect()
    };
    let (old, new) = (of(old), of(new));
    let intercepting: Vec<Rule> =
        old.iter().filter(|rule| !rule.passthrough && !rule.raw).cloned().collect();
    let compare = Compare {
        old: Index::of(&old),
        intercepting: Index::of(&intercepting),
        new: Index::of(&new),
    };
    let rules = new.iter().enumerate();
    let mut gains: Vec<Gain> = rules.flat_map(|(at, rule)| compare.rule(at, rule)).collect();
    gains.dedup();
    gains
}

/// The two lists.
struct Compare<'a> {
    old: Index<'a>,
    /// Of the old ones those that intercept.
    intercepting: Index<'a>,
    new: Index<'a>,
}

impl Compare<'_> {
    /// What the rule at `at` of the new ones gains.
    fn rule(&self, at: usize, rule: &Rule) -> Vec<Gain> {
        self.part(&self.old, at, rule).unwrap_or_else(|| {
            let mut gains = Vec::new();
            let mut missing: BTreeMap<(u16, Item), Vec<Item>> = BTreeMap::new();
            let mut was = None;
            for &port in &rule.ports {
                for method in each(&rule.methods) {
                    for path in each(&rule.paths) {
                        let part = part(rule, port, method, path);
                        if let Some(found) = self.part(&self.old, at, &part) {
                            gains.extend(found);
                        } else {
                            was = was.or_else(|| self.old.treats_otherwise(&part));
                            missing.entry((port, method)).or_default().push(path);
                        }
                    }
                }
            }
            gains.extend(together(rule, missing, was.as_ref()));
            gains
        })
    }

    /// What a part of that rule gains where one of these old rules contains it; else `None`.
    fn part(&self, old: &Index, at: usize, part: &Rule) -> Option<Vec<Gain>> {
        let around = old.around(part);
        let holder =
            *old.alike(part).iter().chain(&around).find(|at| old.rules[**at].contains(part))?;
        let tunnelled = old.rules[holder].passthrough && !part.passthrough;
        // What was asked before the holder.
        let before = around.iter().take_while(|at| **at != holder);
        let before = before.chain(&old.inside(part)).copied().collect::<Vec<_>>();
        let mut gains = Vec::new();
        for by in before.iter().map(|at| &old.rules[*at]) {
            if tunnelled && !by.passthrough && !by.raw {
                // Its requests went by the rules that intercept, or not at all.
                if let Some(common) = common_hosts(by, part) {
                    let found = self.part(&self.intercepting, at, &common);
                    gains.extend(found.unwrap_or_else(|| vec![Gain { rule: common, was: None }]));
                }
            } else {
                gains.extend(self.taken_over(by, part, at));
            }
        }
        Some(gains)
    }

    /// What `rule`, a part of the one at `at` of the new ones, gets of the requests that `by` decided
    /// among the old ones, where it treats them more freely and nothing like `by` comes before it.
    fn taken_over(&self, by: &Rule, rule: &Rule, at: usize) -> Vec<Gain> {
        let common = if treated_alike(by, rule) { None } else { common(by, rule) };
        let Some(common) = common else { return Vec::new() };
        let Some(was) = treats_more_freely(by, &common) else { return Vec::new() };
        // Of one host the rules are asked in their order, and a more specific host is asked first.
        let first = |other| if by.host == rule.host { other < at } else { !by.covers_host(rule) };
        let kept = self
            .new
            .places(&by.host)
            .iter()
            .any(|&other| first(other) && takes(&self.new.rules[other], by, &common));
        if !kept {
            return vec![Gain { rule: common, was: Some(was) }];
        }
        if !by.passthrough {
            return Vec::new();
        }
        // A tunnel that is still there is not opened where a new rule intercepts it.
        let new = self.new.inside(by).into_iter().map(|at| &self.new.rules[at]);
        new.filter(|new| !new.passthrough && !new.raw)
            .filter_map(|new| {
                let old = self.intercepting.places(&new.host).iter();
                let old: Vec<&Rule> = old.map(|at| &self.intercepting.rules[*at]).collect();
                let mut rule = common_hosts(new, &common)?;
                rule.ports.retain(|port| !old.iter().any(|old| old.ports.contains(port)));
                (!rule.ports.is_empty()).then(|| Gain { rule, was: Some(was.clone()) })
            })
            .collect()
    }
}

/// The missing parts of a rule put together again: methods that lack the same paths, then ports that
/// lack the same of both.
fn together<'a>(
    rule: &'a Rule,
    missing: BTreeMap<(u16, Item<'a>), Vec<Item<'a>>>,
    was: Option<&(&'static str, String)>,
) -> Vec<Gain> {
    let mut of_port: BTreeMap<(u16, Vec<Item>), Vec<Item>> = BTreeMap::new();
    for ((port, method), paths) in missing {
        of_port.entry((port, paths)).or_default().push(method);
    }
    let mut whole: BTreeMap<_, Vec<u16>> = BTreeMap::new();
    for ((port, paths), methods) in of_port {
        whole.entry((methods, paths)).or_default().push(port);
    }
    let owned = |some: Vec<Item>| some.into_iter().flatten().cloned().collect();
    let gain = |((methods, paths), ports)| Gain {
        rule: Rule { ports, methods: owned(methods), paths: owned(paths), ..rule.clone() },
        was: was.cloned(),
    };
    whole.into_iter().map(gain).collect()
}

/// Whether a rule still takes what `by` took of these requests, and treats them no more freely.
fn takes(rule: &Rule, by: &Rule, common: &Rule) -> bool {
    if (rule.passthrough, rule.raw) != (by.passthrough, by.raw)
        || !covers(&rule.ports, &common.ports)
    {
        return false;
    }
    // Whether a tunnel is intercepted is decided before there is a method or a path.
    if common.passthrough || common.raw {
        return true;
    }
    let methods = rule.methods.is_empty()
        || (!common.methods.is_empty() && covers(&rule.methods, &common.methods));
    let paths = rule.paths.is_empty() || rule.paths == by.paths;
    methods && paths && treats_more_freely(by, rule).is_none()
}

/// The requests that both rules could decide, treated as by `rule`.
fn common(by: &Rule, rule: &Rule) -> Option<Rule> {
    let common = common_hosts(by, rule)?;
    let (methods, paths) = if rule.passthrough || rule.raw {
        (Vec::new(), Vec::new())
    } else {
        let paths = match (&by.paths[..], &rule.paths[..]) {
            ([], paths) | (paths, []) => paths.to_vec(),
            (by, paths) => overlapping(by, paths)?,
        };
        (both(&by.methods, &rule.methods)?, paths)
    };
    Some(Rule { methods, paths, ..common })
}

/// A rule cut down to the hosts and ports of another one, which is for its host, for a part of that
/// or for more.
fn common_hosts(by: &Rule, rule: &Rule) -> Option<Rule> {
    let narrow = if by.covers_host(rule) { rule } else { by };
    let ports: Vec<u16> = rule.ports.iter().filter(|it| by.ports.contains(it)).copied().collect();
    let (host, kind) = (narrow.host.clone(), narrow.kind);
    (!ports.is_empty()).then(|| Rule { host, kind, ports, ..rule.clone() })
}

/// The narrower ones of two lists in which an empty list is everything; `None`: nothing is in both.
fn both(one: &[String], other: &[String]) -> Option<Vec<String>> {
    match (one, other) {
        ([], some) | (some, []) => Some(some.to_vec()),
        _ => {
            let both: Vec<_> = one.iter().filter(|it| other.contains(it)).cloned().collect();
            (!both.is_empty()).then_some(both)
        }
    }
}

/// The patterns of `some` that a path of `by` may match too, or might.
fn overlapping(by: &[String], some: &[String]) -> Option<Vec<String>> {
    let literal = |pattern: &str| pattern.find('*').unwrap_or(pattern.len());
    let meets = |one: &str, other: &str| {
        let (a, b) = (literal(one), literal(other));
        let shorter = a.min(b);
        one[..shorter] == other[..shorter]
            // One of them has no wildcard: it is one path.
            && (a < one.len() || Glob::parse(other).is_ok_and(|glob| glob.matches(one)))
            && (b < other.len() || Glob::parse(one).is_ok_and(|glob| glob.matches(other)))
    };
    let some: Vec<_> =
        some.iter().filter(|one| by.iter().any(|other| meets(one, other))).cloned().collect();
    (!some.is_empty()).then_some(some)
}

/// Whether two rules do the same to the requests that they allow.
fn treated_alike(one: &Rule, other: &Rule) -> bool {
    one.addresses == other.addresses
        && one.inject == other.inject
        && one.passthrough == other.passthrough
        && one.raw == other.raw
        && one.dlp == other.dlp
        && one.dlp_exempt == other.dlp_exempt
}

/// Whether `rule` treats the same requests more freely than `old`, and in what.
fn treats_more_freely(old: &Rule, rule: &Rule) -> Option<(&'static str, String)> {
    // All that could be intercepted, and more, went through such a tunnel; but no credential did.
    let through = old.passthrough && !rule.passthrough && !rule.raw;
    if through && rule.inject.is_none() && rule.ports == [443] {
        let opened = rule.addresses.iter().find(|net| !old.addresses.contains(net))?;
        return Some(("addresses", format!("without {opened}")));
    }
    let same = Rule {
        host: rule.host.clone(),
        kind: rule.kind,
        ports: rule.ports.clone(),
        methods: rule.methods.clone(),
        paths: rule.paths.clone(),
        ..old.clone()
    };
    same.excess(rule).map(|excess| (excess.field, excess.has))
}

/// Whether `outer` lacks nothing of `part` but its treatment, and what of that.
fn more_freely(outer: &Rule, part: &Rule) -> Option<(&'static str, String)> {
    let excess = outer.excess(part)?;
    let treatment = !matches!(excess.field, "host" | "ports" | "methods" | "paths");
    treatment.then_some((excess.field, excess.has))
}

/// One port, method and path of a rule.
fn part(rule: &Rule, port: u16, method: Item, path: Item) -> Rule {
    let ports = vec![port];
    let methods = method.into_iter().cloned().collect();
    Rule { ports, methods, paths: path.into_iter().cloned().collect(), ..rule.clone() }
}

/// One method or path of a rule; `None` stands for every one.
type Item<'a> = Option<&'a String>;

/// Each item, or once none: an empty list is everything.
fn each(items: &[String]) -> Vec<Item<'_>> {
    if items.is_empty() { vec![None] } else { items.iter().map(Some).collect() }
}

fn covers<T: PartialEq>(all: &[T], some: &[T]) -> bool {
    some.iter().all(|item| all.contains(item))
}

/// What a rule allows: host, ports, methods and paths.
type What<'a> = (&'a str, &'a [u16], &'a [String], &'a [String]);

fn what(rule: &Rule) -> What<'_> {
    (&rule.host, &rule.ports, &rule.methods, &rule.paths)
}

/// Rules by their hosts, because most have nothing to do with each other.
struct Index<'a> {
    rules: &'a [Rule],
    /// By what they allow, because most are in both lists.
    alike: HashMap<What<'a>, Vec<usize>>,
    hosts: HashMap<&'a str, Vec<usize>>,
    /// By each name that a host lies below, and itself.
    below: HashMap<&'a str, Vec<usize>>,
    nets: Vec<usize>,
}

impl<'a> Index<'a> {
    fn of(rules: &'a [Rule]) -> Self {
        let mut index = Self {
            rules,
            alike: HashMap::new(),
            hosts: HashMap::new(),
            below: HashMap::new(),
            nets: Vec::new(),
        };
        for (at, rule) in rules.iter().enumerate() {
            index.alike.entry(what(rule)).or_default().push(at);
            index.hosts.entry(&rule.host).or_default().push(at);
            match rule.kind {
                HostKind::Name | HostKind::SingleLabel | HostKind::Wildcard => {
                    for name in parents(&rule.host) {
                        index.below.entry(name).or_default().push(at);
                    }
                }
                _ => index.nets.push(at),
            }
        }
        index
    }

    fn places(&self, host: &str) -> &[usize] {
        self.hosts.get(host).map_or(&[], Vec::as_slice)
    }

    /// In what the nearest rule for the same requests holds them back.
    fn treats_otherwise(&self, part: &Rule) -> Option<(&'static str, String)> {
        self.around(part).iter().find_map(|at| more_freely(&self.rules[*at], part))
    }

    /// Rules that allow the same, treated maybe otherwise.
    fn alike<'b>(&'b self, rule: &'b Rule) -> &'b [usize] {
        self.alike.get(&what(rule)).map_or(&[], Vec::as_slice)
    }

    /// Rules for the same host or for one that covers it, in the order in which they are asked.
    fn around(&self, rule: &Rule) -> Vec<usize> {
        let mut found = self.places(&rule.host).to_vec();
        if matches!(rule.kind, HostKind::Name | HostKind::Wildcard) {
            for name in parents(&rule.host) {
                found.extend(self.places(&format!("*.{name}")));
            }
        }
        found
    }

    /// Rules for a part of a rule's host.
    fn inside(&self, rule: &Rule) -> Vec<usize> {
        match rule.kind {
            HostKind::Wildcard => {
                let all = self.below.get(&rule.host[2..]).map_or(&[][..], Vec::as_slice);
                let other = |at: &&usize| self.rules[**at].host != rule.host;
                all.iter().filter(other).copied().collect()
            }
            HostKind::Network | HostKind::PrivateNetwork => {
                let Ok(outer) = rule.host.parse::<ipnet::IpNet>() else { return Vec::new() };
                let inside = |at: &usize| {
                    let host = &self.rules[*at].host;
                    let net = host
                        .parse()
                        .or_else(|_| host.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
                    *host != rule.host && net.is_ok_and(|net| outer.contains(&net))
                };
                self.nets.iter().copied().filter(inside).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The names that a host, or all hosts of a wildcard, lie below.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(host.split_once('.').map(|(_, rest)| rest), |name| {
        name.split_once('.').map(|(_, rest)| rest)
    })
}

#[cfg(test)]
mod tests;
