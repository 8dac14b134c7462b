//! A routes file that is taken means one thing: it can be written, and read back as the same; and
//! its policy decides about anything.
#![no_main]

use bottle::host;
use bottle::policy::{AGENT, Ask, Policy, Request, Routes, Scheme, normal_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Without the mark at its end nothing is taken, which a fuzzer takes long to find.
    let text = [bytes, b"\n# end\n"].concat();
    let Ok(routes) = Routes::parse(&text) else { return };
    let written = routes.to_yaml().expect("what was read can be written");
    assert_eq!(Routes::parse(written.as_bytes()).expect("and read back"), routes);
    let Ok(policy) = Policy::new(routes) else { return };
    let path = normal_path("/v1/x").expect("a path");
    for rule in &policy.routes().routes {
        assert!(rule.contains(rule), "{rule:?}");
        let Ok(host) = host::request_host(&rule.host) else { continue };
        for scheme in [Scheme::Http, Scheme::Https] {
            let request = Request { scheme, method: "GET", path: &path };
            let client = rule.from.as_deref().unwrap_or(AGENT);
            let ask = Ask { client, host: &host, port: rule.ports[0], request: Some(request) };
            let _ = policy.decide(&ask);
        }
    }
});
