//! Gains as facts, and against the decision function.

use std::collections::BTreeMap;

use super::*;
use crate::host::{classify, request_host};
use crate::policy::tests::Random;
use crate::policy::{
    AGENT, Ask, Audit, Decision, Dlp, Inject, Policy, Request, Routes, Scheme, normal_path,
};

/// A rule of one host on 443, as a line of the manifest would make it.
fn rule(host: &str) -> Rule {
    Rule {
        host: host.to_owned(),
        kind: classify(host).unwrap(),
        from: None,
        ports: vec![443],
        methods: Vec::new(),
        paths: Vec::new(),
        addresses: Vec::new(),
        inject: None,
        passthrough: false,
        raw: false,
        dlp: Dlp::Block,
        dlp_exempt: Vec::new(),
        grant: None,
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn bearer(name: &str) -> Inject {
    let (header, basic, query) = (None, None, None);
    Inject { secret: name.to_owned(), header, bearer: true, basic, query, mask: false }
}

/// Gains as lines.
fn lines(old: &[Rule], new: &[Rule]) -> Vec<String> {
    let line = |gain: Gain| match gain.was {
        None => gain.rule.to_line(),
        Some((field, was)) => format!("{} ({field} was {was})", gain.rule.to_line()),
    };
    gained(old, new).into_iter().map(line).collect()
}

#[test]
fn what_several_old_rules_cover_is_no_gain_and_the_rest_is_named_alone() {
    let with = |methods: &[&str], paths: &[&str]| Rule {
        methods: strings(methods),
        paths: strings(paths),
        ..rule("api.example.com")
    };
    let old = [with(&["GET", "HEAD"], &["/v1/**"]), with(&["POST"], &["/v1/jobs"])];
    assert_eq!(lines(&old, &[with(&["HEAD"], &["/v1/a"]), old[1].clone()]), [""; 0]);
    assert_eq!(
        lines(&old, &[with(&["GET", "HEAD", "POST"], &["/v1/jobs", "/v2"])]),
        ["GET,HEAD,POST https://api.example.com:443/v2"]
    );
    assert_eq!(lines(&old, &[with(&[], &["/v1/**"])]), ["* https://api.example.com:443/v1/**"]);
    let ports = Rule { ports: vec![443, 8443], ..old[1].clone() };
    assert_eq!(lines(&old, &[ports]), ["POST *://api.example.com:8443/v1/jobs"]);
}

#[test]
fn wildcard_covers_its_subdomains_and_not_the_other_way_round() {
    let (wide, narrow) = (rule("*.x.com"), rule("a.x.com"));
    assert_eq!(lines(std::slice::from_ref(&wide), std::slice::from_ref(&narrow)), [""; 0]);
    assert_eq!(lines(&[narrow], &[wide]), ["* https://*.x.com:443/**"]);
}

#[test]
fn freer_treatment_is_a_gain_and_says_what_there_was() {
    let old = [rule("a.x.com")];
    for (new, expected) in [
        (
            Rule { dlp: Dlp::Off, ..old[0].clone() },
            "* https://a.x.com:443/**, dlp off (dlp was block)",
        ),
        (
            Rule { passthrough: true, ..old[0].clone() },
            "* https://a.x.com:443/** not intercepted (passthrough was false)",
        ),
        (
            Rule { inject: Some(bearer("t")), ..old[0].clone() },
            "* https://a.x.com:443/** with secret 't' (inject was none)",
        ),
        (
            Rule { addresses: vec!["10.0.0.0/8".parse().unwrap()], ..old[0].clone() },
            "* https://a.x.com:443/** at 10.0.0.0/8 (addresses was none)",
        ),
    ] {
        assert_eq!(lines(&old, std::slice::from_ref(&new)), [expected]);
        assert_eq!(lines(&[new], &old), [""; 0], "{expected}");
    }
}

#[test]
fn rule_that_took_a_part_of_another_ones_requests_is_missed_when_it_goes() {
    let wide = Rule { passthrough: true, ..rule("*.x.com") };
    let old = [wide.clone(), Rule { methods: strings(&["GET"]), ..rule("a.x.com") }];
    assert_eq!(
        lines(&old, std::slice::from_ref(&wide)),
        ["* https://a.x.com:443/** not intercepted (passthrough was false)"]
    );
    assert_eq!(lines(&old, &old), [""; 0]);
    assert_eq!(lines(std::slice::from_ref(&wide), &old), [""; 0]);
    // The same by a scan, and by the order of two rules of one host.
    let (scanned, free) = (
        Rule { paths: strings(&["/up/**"]), ..rule("a.x.com") },
        Rule { dlp: Dlp::Off, ..rule("a.x.com") },
    );
    let freed = ["* https://a.x.com:443/up/**, dlp off (dlp was block)"];
    assert_eq!(lines(&[scanned.clone(), free.clone()], std::slice::from_ref(&free)), freed);
    assert_eq!(lines(&[scanned.clone(), free.clone()], &[free.clone(), scanned.clone()]), freed);
    assert_eq!(lines(&[free.clone(), scanned.clone()], &[scanned, free]), [""; 0]);
}

#[test]
fn rule_of_one_client_is_nothing_to_another() {
    let agent = rule("a.x.com");
    let gate = Rule { from: Some("git-gate".to_owned()), ..agent.clone() };
    let raw = Rule { raw: true, ports: vec![22], ..gate.clone() };
    let agents = lines(std::slice::from_ref(&gate), std::slice::from_ref(&agent));
    assert_eq!(agents, [agent.to_line()]);
    let gates = lines(std::slice::from_ref(&agent), &[gate.clone(), raw.clone()]);
    assert_eq!(gates, [gate.to_line(), raw.to_line()]);
    let open = Rule { raw: false, ..raw.clone() };
    let was = format!("{} (raw was false)", raw.to_line());
    assert_eq!(lines(&[open], &[raw]), [was]);
}

const HOSTS: [&str; 7] =
    ["a.x.com", "b.a.x.com", "*.a.x.com", "*.x.com", "x.com", "10.0.0.7", "10.0.0.0/24"];
const ASKED: [&str; 6] = ["a.x.com", "b.a.x.com", "c.x.com", "x.com", "10.0.0.7", "10.0.0.9"];
const PATHS: [&str; 6] = ["/a", "/a/**", "/a/*", "/**/b", "/b", "/a/b"];

fn some<T: Clone>(random: &mut Random, of: &[T]) -> Vec<T> {
    of.iter().filter(|_| random.below(3) == 0).cloned().collect()
}

fn one<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len())]
}

fn rules(random: &mut Random) -> Vec<Rule> {
    let many = random.below(5);
    (0..many)
        .map(|_| {
            let mut rule = rule(one(random, &HOSTS));
            let ports = some(random, &[80, 443, 8443]);
            rule.ports = if ports.is_empty() { vec![443] } else { ports };
            if random.below(4) == 0 {
                rule.passthrough = true;
                return rule;
            }
            rule.methods = some(random, &strings(&["GET", "POST"]));
            rule.paths = some(random, &strings(&PATHS));
            rule.dlp = [Dlp::Block, Dlp::Block, Dlp::Warn, Dlp::Off][random.below(4)];
            rule.dlp_exempt = some(random, &strings(&["jwt"]));
            let secret = one(random, &["t", "u"]);
            rule.inject = (random.below(4) == 0).then(|| bearer(secret));
            rule.addresses = some(random, &["10.0.0.0/8".parse().unwrap()]);
            rule
        })
        .filter(|rule| rule.check().is_ok())
        .collect()
}

fn policy(rules: &[Rule]) -> Option<Policy> {
    Policy::new(Routes {
        version: 1,
        generation: 1,
        plan: "sha256:0".to_owned(),
        bottle: "x".to_owned(),
        names: BTreeMap::new(),
        closed: Vec::new(),
        parent: None,
        audit: Audit::Deny,
        private_data: false,
        routes: rules.to_vec(),
    })
    .ok()
}

/// The rule that decides a request as egress would, which asks first whether its tunnel is
/// intercepted. What passes through is a tunnel for TLS.
fn effective<'a>(policy: &'a Policy, ask: &Ask<'_>) -> Option<&'a Rule> {
    let scheme = ask.request.as_ref().map(|request| request.scheme);
    if scheme == Some(Scheme::Https) {
        let Decision::Allow { rule } = policy.decide(&Ask { request: None, ..*ask }) else {
            return None;
        };
        if policy.rule(rule)?.passthrough {
            return policy.rule(rule);
        }
    }
    match policy.decide(ask) {
        Decision::Allow { rule } => policy.rule(rule),
        Decision::Deny { .. } => None,
    }
}

#[test]
fn whatever_is_not_named_the_decision_function_allowed_before() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut compared, mut new_ones, mut named) = (0, 0, 0);
    while compared < 3_000 {
        let (old, other) = (rules(&mut random), rules(&mut random));
        // Often most of the rules are the old ones: some are gone, changed or in another order.
        let mut new = if random.below(4) == 0 { other.clone() } else { old.clone() };
        if !new.is_empty() && random.below(2) == 0 {
            let at = random.below(new.len());
            new.remove(at);
        }
        new.extend(other.into_iter().take(random.below(2)));
        if !new.is_empty() {
            let at = random.below(new.len());
            new.rotate_left(at);
        }
        let (Some(before), Some(after)) = (policy(&old), policy(&new)) else { continue };
        compared += 1;
        let gains = gained(&old, &new);
        named += gains.len();
        for gain in &gains {
            gain.rule.check().unwrap_or_else(|error| panic!("{:?}: {error:#}", gain.rule));
        }
        let parts: Vec<Policy> =
            gains.iter().map(|gain| policy(std::slice::from_ref(&gain.rule)).unwrap()).collect();
        for _ in 0..60 {
            let host = request_host(one(&mut random, &ASKED)).unwrap();
            let path = normal_path(one(&mut random, &["/", "/a", "/a/b", "/a/c", "/b", "/c/b"]));
            let path = path.unwrap();
            let scheme = if random.below(2) == 0 { Scheme::Http } else { Scheme::Https };
            let method = one(&mut random, &["GET", "POST", "PUT"]);
            let port = [80, 443, 8443][random.below(3)];
            let request = Some(Request { scheme, method, path: &path });
            let ask = Ask { client: AGENT, host: &host, port, request };
            let Some(now) = effective(&after, &ask) else { continue };
            let is_gain = match effective(&before, &ask) {
                None => true,
                // Of the other ports another request tells.
                Some(then) => {
                    let now = Rule { ports: vec![port], ..now.clone() };
                    treats_more_freely(then, &now).is_some()
                }
            };
            if is_gain {
                new_ones += 1;
                assert!(
                    parts.iter().any(|part| effective(part, &ask).is_some()),
                    "{ask:?} is new, and not named\nold {:#?}\nnew {:#?}\nnamed {:#?}",
                    old.iter().map(Rule::to_line).collect::<Vec<_>>(),
                    new.iter().map(Rule::to_line).collect::<Vec<_>>(),
                    lines(&old, &new)
                );
            }
        }
        assert_eq!(gained(&old, &old), [], "{old:?}");
    }
    assert!(new_ones > 1_500 && named > 1_500, "hardly anything was gained: {new_ones}, {named}");
}
