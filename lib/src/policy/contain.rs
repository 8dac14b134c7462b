//! Containment: whether all that one rule allows, another one allows too.
//!
//! `bottle-plan` asks it of an agent's routes, which may narrow its bottle's and never widen them.
//! The answer is sound, not complete: a rule that only two others together cover is not contained.
//! Networks are kept or left out whole, because a part of one may open what the whole does not:
//! see [`super::Policy::address`].

use super::{AGENT, Dlp, Glob, HostKind, Rule, Term};

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

impl Rule {
    /// Whether every request that `inner` allows is allowed by this rule.
    #[must_use]
    pub fn contains(&self, inner: &Self) -> bool {
        self.excess(inner).is_none()
    }

    /// The first thing in which `inner` goes beyond this rule.
    #[must_use]
    pub fn excess(&self, inner: &Self) -> Option<Excess> {
        let more = |field, asks: String, has: String| Some(Excess { field, asks, has });
        let client = |rule: &Self| rule.from.as_deref().unwrap_or(AGENT).to_owned();
        if self.from != inner.from {
            return more("from", client(inner), client(self));
        }
        if !self.covers_host(inner) {
            return more("host", inner.host.clone(), self.host.clone());
        }
        if !all_in(&inner.ports, &self.ports) {
            return more("ports", list(&inner.ports, "none"), list(&self.ports, "none"));
        }
        // An empty list of methods or paths is every one.
        let fewer = !inner.methods.is_empty() && all_in(&inner.methods, &self.methods);
        if !self.methods.is_empty() && !fewer {
            return more("methods", list(&inner.methods, "all"), list(&self.methods, "all"));
        }
        let fewer = !inner.paths.is_empty() && inner.paths.iter().all(|it| self.covers_path(it));
        if !self.paths.is_empty() && !fewer {
            return more("paths", list(&inner.paths, "all"), list(&self.paths, "all"));
        }
        if !all_in(&inner.addresses, &self.addresses) {
            return more(
                "addresses",
                list(&inner.addresses, "none"),
                list(&self.addresses, "none"),
            );
        }
        if inner.passthrough && !self.passthrough {
            return more("passthrough", "true".to_owned(), "false".to_owned());
        }
        // To a tunnel there are no requests, and in a request there are no bytes of another kind.
        if inner.raw != self.raw {
            return more("raw", inner.raw.to_string(), self.raw.to_string());
        }
        // Neither what passes through nor what carries a credential goes in the clear, which a rule
        // that only has its ports left says nothing of.
        let in_the_clear = !inner.passthrough && inner.inject.is_none() && inner.ports != [443];
        if in_the_clear && self.passthrough {
            return more("passthrough", "false".to_owned(), "true".to_owned());
        }
        if in_the_clear && self.inject.is_some() {
            return more("inject", inner.injected(), self.injected());
        }
        // Less of a scan lets out more.
        if inner.dlp > self.dlp {
            return more("dlp", inner.dlp.as_str().to_owned(), self.dlp.as_str().to_owned());
        }
        if self.dlp != Dlp::Off && !all_in(&inner.dlp_exempt, &self.dlp_exempt) {
            return more(
                "dlp_exempt",
                list(&inner.dlp_exempt, "none"),
                list(&self.dlp_exempt, "none"),
            );
        }
        if let Some(term) = &self.grant
            && inner.grant.as_ref() != Some(term)
        {
            let has = term.described();
            let asks = inner.grant.as_ref().map_or_else(|| "for ever".to_owned(), Term::described);
            return more("grant", asks, has);
        }
        if inner.inject.is_some() && inner.inject != self.inject {
            return more("inject", inner.injected(), self.injected());
        }
        None
    }

    pub(super) fn covers_host(&self, inner: &Self) -> bool {
        let below = matches!(
            (self.kind, inner.kind),
            (HostKind::Wildcard, HostKind::Name | HostKind::Wildcard)
        );
        // "*.example.com" without its star begins with the dot that keeps "badexample.com" out.
        self.host == inner.host || (below && inner.host.ends_with(&self.host[1..]))
    }

    fn covers_path(&self, path: &str) -> bool {
        let Ok(inner) = Glob::parse(path) else { return false };
        self.globs().is_ok_and(|globs| globs.iter().any(|glob| glob.covers(&inner)))
    }

    fn injected(&self) -> String {
        self.inject
            .as_ref()
            .map_or_else(|| "none".to_owned(), |inject| format!("secret '{}'", inject.secret))
    }
}

fn all_in<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    some.iter().all(|item| all.contains(item))
}

/// A list for a message.
fn list<T: ToString>(items: &[T], empty: &str) -> String {
    if items.is_empty() {
        return empty.to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use super::*;
    use crate::host::{classify, request_host};
    use crate::policy::{
        AGENT, Ask, Audit, Decision, Policy, Request, Routes, Scheme, normal_path,
    };

    /// Numbers that are the same in every run: xorshift64.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % sides as u64).unwrap()
        }

        fn some<T: Clone + Ord>(&mut self, of: &[T], least: usize) -> Vec<T> {
            let mut picked: Vec<T> = Vec::new();
            for item in of {
                if self.throw(3) == 0 {
                    picked.push(item.clone());
                }
            }
            while picked.len() < least {
                picked.push(of[self.throw(of.len())].clone());
            }
            picked.sort();
            picked.dedup();
            picked
        }

        fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
            of[self.throw(of.len())]
        }
    }

    const HOSTS: [&str; 8] = [
        "a.example",
        "b.a.example",
        "*.a.example",
        "*.b.a.example",
        "ba.example",
        "10.0.0.7",
        "10.0.0.0/24",
        "10.0.0.0/8",
    ];
    const ASKED: [&str; 7] = [
        "a.example",
        "b.a.example",
        "c.b.a.example",
        "ba.example",
        "10.0.0.7",
        "10.0.0.9",
        "10.9.0.1",
    ];
    const NETS: [&str; 4] = ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.7/32", "169.254.0.0/16"];
    const PARTS: [&str; 7] = ["/", "a", "b", "*", "**", "/**/", "/a"];

    fn pattern(dice: &mut Dice) -> Option<String> {
        let parts = dice.throw(5);
        let text = (0..parts).fold("/".to_owned(), |text, _| text + dice.one(&PARTS));
        Glob::parse(&text).is_ok().then_some(text)
    }

    fn rule(dice: &mut Dice) -> Option<Rule> {
        let host = dice.one(&HOSTS);
        let mut paths: Vec<String> = (0..dice.throw(3)).filter_map(|_| pattern(dice)).collect();
        paths.sort();
        paths.dedup();
        let rule = Rule {
            host: host.to_owned(),
            kind: classify(host).unwrap(),
            from: (dice.throw(4) == 0).then(|| "git-gate".to_owned()),
            ports: dice.some(&[80, 443, 8443], 1),
            methods: dice.some(&["GET", "POST"].map(str::to_owned), 0),
            paths,
            addresses: dice.some(&NETS.map(|net| net.parse().unwrap()), 0),
            inject: None,
            passthrough: false,
            raw: false,
            dlp: Dlp::Block,
            dlp_exempt: Vec::new(),
            grant: None,
        };
        let rule = match dice.throw(4) {
            0 => Rule {
                raw: true,
                ports: vec![rule.ports[0]],
                methods: Vec::new(),
                paths: Vec::new(),
                ..rule
            },
            _ => rule,
        };
        rule.check().is_ok().then_some(rule)
    }

    /// A rule with some of its fields from each of two: often one that is contained.
    fn between(one: &Rule, other: &Rule, dice: &mut Dice) -> Rule {
        let mut rule = one.clone();
        if dice.throw(3) == 0 {
            (rule.host, rule.kind) = (other.host.clone(), other.kind);
        }
        if dice.throw(8) == 0 {
            (rule.from, rule.raw) = (other.from.clone(), other.raw);
        }
        match dice.throw(5) {
            0 => rule.ports.clone_from(&other.ports),
            1 => rule.methods.clone_from(&other.methods),
            2 => rule.paths.clone_from(&other.paths),
            3 => rule.addresses.clone_from(&other.addresses),
            _ => {}
        }
        rule
    }

    fn policy(rule: &Rule, dice: &mut Dice) -> Policy {
        let closed = ["10.0.0.0/16", "10.0.0.0/28", "10.9.0.1/32"];
        Policy::new(Routes {
            version: 1,
            generation: 1,
            plan: "sha256:0".to_owned(),
            bottle: "x".to_owned(),
            names: BTreeMap::from([
                ("agent".to_owned(), [10, 201, 0, 3].into()),
                ("git-gate".to_owned(), [10, 201, 0, 4].into()),
            ]),
            closed: vec![dice.one(&closed).parse().unwrap()],
            parent: None,
            audit: Audit::Deny,
            private_data: false,
            routes: vec![rule.clone()],
        })
        .unwrap()
    }

    #[test]
    fn what_a_contained_rule_allows_its_container_allows() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let (mut contained, mut allowed) = (0, 0);
        while contained < 1_000 {
            let (Some(outer), Some(other)) = (rule(&mut dice), rule(&mut dice)) else { continue };
            let inner = between(&outer, &other, &mut dice);
            if inner.check().is_err() || !outer.contains(&inner) {
                continue;
            }
            contained += 1;
            // Both are asked with the same networks closed.
            let seed = dice.0;
            let (wide, narrow) = (policy(&outer, &mut Dice(seed)), policy(&inner, &mut Dice(seed)));
            for _ in 0..50 {
                let host = request_host(dice.one(&ASKED)).unwrap();
                let text = (0..dice.throw(4)).fold("/".to_owned(), |text, _| {
                    text + dice.one(&["a", "b", "/", "/a", "ab", "c"])
                });
                let Ok(path) = normal_path(&text) else { continue };
                let scheme = if dice.throw(2) == 0 { Scheme::Http } else { Scheme::Https };
                let method = dice.one(&["GET", "POST", "PUT"]);
                let port = [80, 443, 8443][dice.throw(3)];
                let request = Request { scheme, method, path: &path };
                let request = (dice.throw(3) > 0).then_some(request);
                let client = dice.one(&["agent", "git-gate"]);
                let ask = Ask { client, host: &host, port, request };
                if let Decision::Allow { .. } = narrow.decide(&ask) {
                    allowed += 1;
                    let told = wide.decide(&ask);
                    assert!(
                        matches!(told, Decision::Allow { .. }),
                        "{} allows {ask:?}, {} does not",
                        inner.to_line(),
                        outer.to_line()
                    );
                }
                for address in ["10.0.0.7", "10.0.0.200", "10.9.0.1", "169.254.169.254", "8.8.8.8"]
                {
                    let address: IpAddr = address.parse().unwrap();
                    assert!(
                        narrow.address(0, address).is_err() || wide.address(0, address).is_ok(),
                        "{} opens {address}, {} does not",
                        inner.to_line(),
                        outer.to_line()
                    );
                }
            }
        }
        assert!(allowed > 800, "the requests hardly touch the rules: {allowed}");
    }

    #[test]
    fn less_of_a_scan_is_more() {
        let mut dice = Dice(1);
        let rule =
            std::iter::repeat_with(|| rule(&mut dice)).flatten().find(|rule| !rule.raw).unwrap();
        let with = |dlp, exempt: &[&str]| {
            let dlp_exempt = exempt.iter().map(ToString::to_string).collect();
            Rule { dlp, dlp_exempt, ..rule.clone() }
        };
        let field = |outer: &Rule, inner: &Rule| outer.excess(inner).map(|excess| excess.field);
        let (block, warn, off) = (with(Dlp::Block, &[]), with(Dlp::Warn, &[]), with(Dlp::Off, &[]));
        assert_eq!(field(&block, &warn), Some("dlp"));
        assert_eq!(field(&warn, &off), Some("dlp"));
        assert!(off.contains(&warn) && warn.contains(&block));
        let (one, two) = (with(Dlp::Block, &["jwt"]), with(Dlp::Block, &["jwt", "secret:a"]));
        assert_eq!(field(&block, &one), Some("dlp_exempt"));
        assert_eq!(field(&one, &two), Some("dlp_exempt"));
        assert!(two.contains(&one) && one.contains(&block) && off.contains(&two));
    }

    #[test]
    fn plain_http_is_more_than_what_never_goes_in_the_clear() {
        let mut dice = Dice(1);
        let bare = std::iter::repeat_with(|| rule(&mut dice)).flatten().next().unwrap();
        let bare = Rule {
            host: "a.example".to_owned(),
            kind: HostKind::Name,
            from: None,
            methods: Vec::new(),
            paths: Vec::new(),
            addresses: Vec::new(),
            ..bare
        };
        let at = |port: u16| Rule { ports: vec![port], ..bare.clone() };
        let inject = crate::policy::Inject {
            secret: "t".to_owned(),
            header: None,
            bearer: true,
            basic: None,
            query: None,
            mask: false,
        };
        let (host, path) = (request_host("a.example").unwrap(), normal_path("/").unwrap());
        for (field, closed) in [
            ("passthrough", Rule { passthrough: true, ..at(8443) }),
            ("inject", Rule { inject: Some(inject), ..at(8443) }),
        ] {
            // The act itself: plain HTTP goes by the one and not by the other.
            let allows = |rule: &Rule| {
                let request = Some(Request { scheme: Scheme::Http, method: "GET", path: &path });
                let ask = Ask { client: AGENT, host: &host, port: 8443, request };
                matches!(policy(rule, &mut Dice(1)).decide(&ask), Decision::Allow { .. })
            };
            assert!(allows(&at(8443)) && !allows(&closed));
            assert_eq!(closed.excess(&at(8443)).map(|excess| excess.field), Some(field));
            // On 443 there is no plain HTTP, and less is less.
            let closed = Rule { ports: vec![443], ..closed };
            assert!(closed.contains(&at(443)), "{field}");
        }
    }

    #[test]
    fn part_of_a_network_is_not_contained_in_it() {
        let mut dice = Dice(1);
        let wide = std::iter::repeat_with(|| rule(&mut dice))
            .flatten()
            .find(|rule| rule.host == "10.0.0.0/8" && rule.methods.is_empty() && !rule.raw);
        let wide = Rule { paths: Vec::new(), addresses: Vec::new(), ..wide.unwrap() };
        let part =
            Rule { host: "10.0.0.7".to_owned(), kind: HostKind::PrivateAddress, ..wide.clone() };
        assert!(wide.contains(&wide) && !wide.contains(&part));
    }
}
