//! Decisions as facts. The routes are written as a sidecar reads them, in YAML.

use super::*;
use crate::host::request_host;
use crate::strict;

/// A small generator (xorshift) for properties: the same cases in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

const HEAD: &str = "version: 1\ngeneration: 3\nplan: sha256:00\nbottle: demo\nnames: {agent: 10.201.0.3, egress: 10.201.0.2}\n\
                    closed: [10.201.0.0/16, 93.184.216.34/32]\nroutes:\n";

fn parse(rules: &str) -> Result<Policy, String> {
    strict::yaml::<Routes>(&format!("{HEAD}{rules}"), "routes.yaml")
        .and_then(Policy::new)
        .map_err(|e| format!("{e:#}"))
}

fn policy() -> Policy {
    parse(
        "- {host: api.example.com, kind: name, ports: [443], methods: [GET, POST], paths: [/v1/**]}\n\
         - {host: api.example.com, kind: name, ports: [443], methods: [GET], paths: [/health]}\n\
         - {host: '*.example.com', kind: wildcard, ports: [443], methods: [GET]}\n\
         - {host: '*.cdn.example.com', kind: wildcard, ports: [80, 8443]}\n\
         - {host: db.internal, kind: name, ports: [5000], addresses: [10.0.0.0/8, 10.201.0.17/32]}\n\
         - {host: 192.168.1.9, kind: private_address, ports: [443]}\n\
         - {host: 192.168.0.0/16, kind: private_network, ports: [80]}\n\
         - {host: registry.example, kind: name, ports: [443], paths: ['/@scope/*', '/@scope*', '/pub/*.json']}\n",
    )
    .unwrap()
}

/// `allow N`, or `deny REASON` and `near N`.
fn decide(policy: &Policy, method: &str, url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let (host, port) = crate::host::authority(authority).unwrap();
    let path = normal_path(path).unwrap();
    let request = Some(Request { scheme, method, path: &path });
    say(policy.decide(&Ask {
        client: AGENT,
        host: &host,
        port: port.unwrap_or(scheme.port()),
        request,
    }))
}

fn say(decision: Decision) -> String {
    match decision {
        Decision::Allow { rule } => format!("allow {rule}"),
        Decision::Deny { reason, nearest: None } => format!("deny {reason}"),
        Decision::Deny { reason, nearest: Some(at) } => format!("deny {reason} near {at}"),
    }
}

#[test]
fn tunnels_pass_by_the_most_specific_host_and_requests_never() {
    let policy = parse(
        "- {host: '*.example.com', kind: wildcard, ports: [443, 8443], passthrough: true}\n\
         - {host: a.example.com, kind: name, ports: [443], paths: [/x]}\n",
    )
    .unwrap();
    let connect = |host: &str, port| {
        let host = request_host(host).unwrap();
        say(policy.decide(&Ask { client: AGENT, host: &host, port, request: None }))
    };
    assert_eq!(connect("b.example.com", 443), "allow 0");
    assert_eq!(connect("a.example.com", 443), "allow 1");
    assert_eq!(connect("a.example.com", 8443), "allow 0");
    assert_eq!(connect("example.com", 443), "deny host");
    assert_eq!(decide(&policy, "GET", "https://a.example.com/x"), "allow 1");
    assert_eq!(decide(&policy, "GET", "https://a.example.com/y"), "deny path near 1");
    assert_eq!(decide(&policy, "GET", "https://b.example.com/x"), "deny scheme near 0");
    assert_eq!(decide(&policy, "GET", "http://b.example.com:8443/x"), "deny scheme near 0");
}

#[test]
fn rule_is_for_its_client_alone() {
    let policy = parse(
        "- {host: a.example, kind: name, ports: [443], paths: [/x]}\n\
         - {host: a.example, kind: name, from: egress, ports: [443], paths: [/y]}\n\
         - {host: '*.b.example', kind: wildcard, from: egress, ports: [443]}\n\
         - {host: a.example, kind: name, from: egress, ports: [22], raw: true}\n",
    )
    .unwrap();
    let host = request_host("a.example").unwrap();
    let say = |client, port, path: Option<&str>| {
        let path = path.map(|path| normal_path(path).unwrap());
        let request =
            path.as_ref().map(|path| Request { scheme: Scheme::Https, method: "GET", path });
        say(policy.decide(&Ask { client, host: &host, port, request }))
    };
    for (client, port, path, expected) in [
        (AGENT, 443, Some("/x"), "allow 0"),
        (AGENT, 443, Some("/y"), "deny path near 0"),
        (AGENT, 22, None, "deny port near 0"),
        ("egress", 443, Some("/y"), "allow 1"),
        ("egress", 443, Some("/x"), "deny path near 1"),
        ("egress", 22, None, "allow 3"),
        ("egress", 22, Some("/y"), "deny scheme near 3"),
        ("supervise", 443, Some("/x"), "deny host"),
        ("", 22, None, "deny host"),
    ] {
        assert_eq!(say(client, port, path), expected, "{client} {port} {path:?}");
    }
    assert_eq!(policy.client("10.201.0.3".parse().unwrap()), Some(AGENT));
    assert_eq!(policy.client("::ffff:10.201.0.2".parse().unwrap()), Some("egress"));
    assert_eq!(policy.client("10.201.0.4".parse().unwrap()), None);
}

#[test]
fn port_of_bytes_is_nothing_else_to_the_same_client() {
    let both = "- {host: a.example, kind: name, ports: [22, 443]}\n\
                - {host: a.example, kind: name, ports: [22], raw: true}\n";
    let error = parse(both).unwrap_err();
    assert!(error.contains("'a.example' on port 22 is a tunnel of bytes"), "{error}");
    parse(&both.replace("[22]", "[23]")).unwrap();
    parse(&both.replace("raw: true", "raw: true, from: egress")).unwrap();
}

#[test]
fn one_host_and_port_is_intercepted_or_passes_not_both() {
    let mixed = "- {host: a.example, kind: name, ports: [443, 8443]}\n\
                 - {host: a.example, kind: name, ports: [443], passthrough: true}\n";
    let error = parse(mixed).unwrap_err();
    assert!(
        error.contains("'a.example' on port 443 is intercepted by one of the rules 0 and 1"),
        "{error}"
    );
    parse(&mixed.replace("[443]", "[9443]")).unwrap();
    parse(&mixed.replace("ports: [443, 8443]", "ports: [443], passthrough: true")).unwrap();
}

#[test]
fn a_request_is_allowed_only_where_one_rule_allows_all_of_it() {
    let policy = policy();
    for (method, url, expected) in [
        ("GET", "https://api.example.com/v1/x", "allow 0"),
        ("GET", "https://API.example.com.:443/v1/x", "allow 0"),
        ("POST", "https://api.example.com/v1/x", "allow 0"),
        // By the wildcard, after both rules of the name itself.
        ("GET", "https://api.example.com/v2", "allow 2"),
        ("POST", "https://api.example.com/health", "deny path near 0"),
        ("PUT", "https://api.example.com/v1/x", "deny method near 0"),
        ("get", "https://api.example.com/v1/x", "deny method near 0"),
        ("GET", "https://api.example.com:8443/v1/x", "deny port near 0"),
        ("GET", "http://api.example.com:443/v1/x", "deny scheme near 0"),
        ("GET", "https://a.b.example.com/", "allow 2"),
        ("GET", "https://example.com/", "deny host"),
        ("GET", "https://xexample.com/", "deny host"),
        ("PUT", "http://a.cdn.example.com/", "allow 3"),
        ("PUT", "https://a.cdn.example.com:8443/", "allow 3"),
        ("PUT", "https://a.cdn.example.com:80/", "deny scheme near 3"),
        ("PUT", "https://a.cdn.example.com/", "deny method near 2"),
        ("GET", "http://db.internal:5000/", "allow 4"),
        ("GET", "https://192.168.1.9/", "allow 5"),
        ("GET", "http://192.168.1.9/", "allow 6"),
        ("GET", "http://[::ffff:192.168.1.9]/", "allow 6"),
        ("GET", "https://192.168.1.10/", "deny port near 6"),
        ("GET", "https://8.8.8.8/", "deny host"),
    ] {
        assert_eq!(decide(&policy, method, url), expected, "{method} {url}");
    }
}

#[test]
fn a_connect_is_allowed_where_some_request_could_be() {
    let policy = policy();
    let connect = |host, port| {
        let host = request_host(host).unwrap();
        say(policy.decide(&Ask { client: AGENT, host: &host, port, request: None }))
    };
    assert_eq!(connect("api.example.com", 443), "allow 0");
    assert_eq!(connect("api.example.com", 80), "deny port near 0");
    assert_eq!(connect("evil.example", 443), "deny host");
}

#[test]
fn path_has_to_be_allowed_however_a_server_reads_it() {
    let policy = policy();
    for (path, allowed) in [
        ("/@scope/name", true),
        ("/@scope%2fname", true),
        ("/@scope%2f..%2fother", false),
        ("/@other%2fname", false),
        ("/pub/a.json", true),
        ("/pub/secret;.json", false),
        ("/pub//a.json", false),
        ("/pub/../admin", false),
        ("/pub/..%252fadmin;.json", false),
    ] {
        let answer = decide(&policy, "GET", &format!("https://registry.example{path}"));
        assert_eq!(answer == "allow 7", allowed, "{path}: {answer}");
    }
    // What allows every path has nothing to hide.
    assert_eq!(decide(&policy, "GET", "https://x.example.com/a%2f..;/%252e"), "allow 2");
}

#[test]
fn special_and_closed_addresses_open_only_to_a_rule_that_names_them() {
    let policy = policy();
    let open = |rule, address: &str| policy.address(rule, address.parse().unwrap()).is_ok();
    assert!(open(0, "1.1.1.1"));
    assert!(open(0, "2606:4700::1111"));
    for address in [
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "10.1.1.1",
        "::ffff:10.1.1.1",
        "64:ff9b::a01:101",
        "fd00::1",
    ] {
        assert!(!open(0, address), "{address}");
    }
    // The host's own public address.
    assert!(!open(0, "93.184.216.34"));
    assert!(!open(0, "::ffff:93.184.216.34"));
    assert!(!open(0, "64:ff9b::93.184.216.34"));
    // `addresses` opens what it names, but of a closed network only by a name as narrow.
    assert!(open(4, "10.1.1.1"));
    assert!(open(4, "::ffff:10.1.1.1"));
    assert!(open(4, "10.201.0.17"));
    assert!(!open(4, "10.201.0.18"));
    assert!(!open(4, "172.16.0.1"));
    // A rule for an address or a network is its own name for it.
    assert!(open(5, "192.168.1.9"));
    assert!(!open(5, "192.168.1.10"));
    assert!(open(6, "192.168.1.10"));
    assert!(!open(99, "1.1.1.1"));
}

#[test]
fn invalid_routes_are_refused_with_their_place() {
    for (rule, expected) in [
        ("host: A.example, kind: name, ports: [443]", "host 'A.example': write it as 'a.example'"),
        ("host: a.example, kind: wildcard, ports: [443]", "its kind is Name"),
        ("host: '*', kind: wildcard, ports: [443]", "a bare '*'"),
        ("host: a.example, kind: name, ports: []", "ports: name one at least"),
        ("host: a.example, kind: name, ports: [443, 80]", "in order"),
        ("host: a.example, kind: name, ports: [0]", "none 0"),
        ("host: a.example, kind: name, ports: [443], methods: [get]", "upper case"),
        ("host: a.example, kind: name, ports: [443], methods: [GET, GET]", "each once"),
        ("host: a.example, kind: name, ports: [443], methods: [CONNECT]", "passthrough"),
        ("host: a.example, kind: name, ports: [443], paths: [v1]", "begins with '/'"),
        (
            "host: a.example, kind: name, ports: [443], paths: [/a%2Fb]",
            "some servers read it as '/a/b'",
        ),
        (
            "host: a.example, kind: name, ports: [443], addresses: [10.0.0.1/8]",
            "write '10.0.0.0/8'",
        ),
        (
            "host: a.example, kind: name, ports: [443], passthrough: true, paths: [/a]",
            "passthrough",
        ),
        ("host: 8.8.8.8, kind: address, ports: [443], passthrough: true", "names no server"),
        ("host: a.example, kind: name, ports: [443], inject: {secret: s}", "exactly one of"),
        (
            "host: a.example, kind: name, ports: [443], dlp_exempt: [jtw]",
            "dlp_exempt: 'jtw' is no rule of the scan: did you mean 'jwt'",
        ),
        ("host: a.example, kind: name, ports: [443], dlp_exempt: ['secret:']", "is no rule"),
        ("host: a.example, kind: name, ports: [443], from: agent", "leave it out"),
        ("host: a.example, kind: name, ports: [443], from: gate", "is none of the 'names'"),
        ("host: a.example, kind: name, ports: [22, 23], raw: true", "one host and one port"),
        ("host: '*.a.example', kind: wildcard, ports: [22], raw: true", "one host and one port"),
        (
            "host: 10.0.0.0/8, kind: private_network, ports: [22], raw: true",
            "one host and one port",
        ),
        ("host: a.example, kind: name, ports: [22], raw: true, methods: [GET]", "nothing to judge"),
        ("host: a.example, kind: name, ports: [22], raw: true, dlp: off", "nothing to judge"),
        ("host: a.example, kind: name, ports: [443], mehtods: [GET]", "did you mean 'methods'"),
    ] {
        let error = parse(&format!("- {{{rule}}}\n")).unwrap_err();
        assert!(error.contains("routes[0]") && error.contains(expected), "{rule}: {error}");
    }
    let twice = HEAD.replace("10.201.0.2", "10.201.0.3").replace("routes:\n", "");
    let error = strict::yaml::<Routes>(&twice, "f").and_then(Policy::new).unwrap_err();
    assert!(format!("{error:#}").contains("'agent' and 'egress' are both at 10.201.0.3"));
    let error = strict::yaml::<Routes>(
        &HEAD.replace("version: 1", "version: 2").replace("routes:\n", ""),
        "f",
    )
    .and_then(Policy::new)
    .unwrap_err();
    assert!(format!("{error:#}").contains("this egress knows 1"));
}

#[test]
fn rule_is_one_line() {
    let policy = policy();
    let lines: Vec<_> = policy.routes().routes.iter().map(Rule::to_line).collect();
    assert_eq!(
        lines,
        [
            "GET,POST https://api.example.com:443/v1/**",
            "GET https://api.example.com:443/health",
            "GET https://*.example.com:443/**",
            "* *://*.cdn.example.com:{80,8443}/**",
            "* *://db.internal:5000/** at 10.0.0.0/8,10.201.0.17/32",
            "* https://192.168.1.9:443/**",
            "* http://[192.168.0.0/16]:80/**",
            "* https://registry.example:443{/@scope/*,/@scope*,/pub/*.json}",
        ]
    );
}

#[test]
fn refusal_names_the_nearest_rule_and_what_to_add() {
    let policy = policy();
    let path = normal_path("/v2/x").unwrap();
    let host = request_host("api.example.com").unwrap();
    let request = Some(Request { scheme: Scheme::Https, method: "POST", path: &path });
    let ask = Ask { client: AGENT, host: &host, port: 443, request };
    let Decision::Deny { reason, nearest } = policy.decide(&ask) else { panic!("allowed") };
    assert_eq!(
        policy.explain(&ask, reason, nearest).to_text(),
        "bottle-egress denied this request (path): no rule covers the path '/v2/x'\n\
         request: POST https://api.example.com:443/v2/x\n\
         nearest rule: 0: GET,POST https://api.example.com:443/v1/**\n\
         to allow it, the owner of bottle 'demo' adds to 'egress.routes' of its manifest:\n\
         - host: api.example.com\n\x20 methods:\n\x20   - POST\n\x20 paths:\n\x20   - /v2/x\n"
    );
    let address = "10.0.0.1".parse().unwrap();
    let closed = policy.address(0, address).unwrap_err();
    let text = policy.explain_address(&ask, 0, address, closed).to_text();
    assert!(text.contains("'api.example.com' is at 10.0.0.1, which is private"), "{text}");
    assert!(text.contains("  addresses:\n    - \"10.0.0.1/32\"\n"), "{text}");
}

#[test]
fn unknown_host_is_told_apart_from_a_near_one() {
    let policy = policy();
    let why = |host| {
        let host = request_host(host).unwrap();
        let ask = Ask { client: AGENT, host: &host, port: 443, request: None };
        policy.explain(&ask, Reason::Host, None).why
    };
    assert!(why("api.exmaple.com").ends_with("the nearest one is 'api.example.com'"));
    assert!(why("example.com").ends_with("'*.example.com' covers its subdomains, not itself"));
    assert_eq!(why("zzz.invalid"), "no rule names host 'zzz.invalid'");
}

#[test]
fn what_is_suggested_would_allow_the_request() {
    let suggested = |method: &str, host: &str, path: &str| {
        let policy = policy();
        let (host, path) = (request_host(host).unwrap(), normal_path(path).unwrap());
        let request = Some(Request { scheme: Scheme::Https, method, path: &path });
        let ask = Ask { client: AGENT, host: &host, port: 443, request };
        let add = policy.explain(&ask, Reason::Host, None).add.unwrap();
        let rule = add.replacen("- host:", "- kind: name\n  ports: [443]\n  host:", 1);
        let taken = parse(&rule).unwrap_or_else(|e| panic!("{e}\n{rule}"));
        assert_eq!(taken.decide(&ask), Decision::Allow { rule: 0 }, "{rule}");
    };
    suggested("GET", "new.example", "/");
    suggested("GET", "new.example", "/a: b, [c] 'd' & {e} #%25".trim_end_matches("#%25"));
    suggested("GET", "new.example", "/x%2f..%2fy;z//%252e");
    suggested("POST", "no.example", "/*");
}

#[test]
fn decision_lines_are_read_back() {
    let line = DecisionLine {
        time: "2026-11-24T05:59:55.123Z".into(),
        kind: Kind::Http,
        client: "10.201.0.3".parse().unwrap(),
        scheme: Some(Scheme::Https),
        method: "GET".into(),
        host: "evil\u{1b}[2J\n".into(),
        port: Some(443),
        path: Some("/".into()),
        decision: Verdict::Deny,
        rule: None,
        reason: Some(Reason::BadHost),
        nearest: None,
        address: None,
        status: Some(403),
        found: Vec::new(),
        sent: 1,
        received: 2,
        duration_us: 3,
        generation: 3,
        policy: "00".into(),
        dropped: None,
    };
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(
        text,
        r#"{"time":"2026-11-24T05:59:55.123Z","kind":"http","client":"10.201.0.3","scheme":"https","method":"GET","host":"evil\u001b[2J\n","port":443,"path":"/","decision":"deny","reason":"bad-host","status":403,"sent":1,"received":2,"duration_us":3,"generation":3,"policy":"00"}"#
    );
    assert_eq!(serde_json::from_str::<DecisionLine<'_>>(&text).unwrap(), line);
}

#[test]
fn credential_is_for_tls_only() {
    let rule = |ports: &str, place: &str| {
        parse(&format!(
            "- {{host: a.example, kind: name, ports: {ports}, inject: {{secret: token, {place}}}}}\n"
        ))
    };
    let bearer = rule("[8443]", "bearer: true").unwrap();
    assert_eq!(
        bearer.rule(0).unwrap().to_line(),
        "* https://a.example:8443/** with secret 'token'"
    );
    assert_eq!(decide(&bearer, "GET", "https://a.example:8443/"), "allow 0");
    assert_eq!(decide(&bearer, "GET", "http://a.example:8443/"), "deny scheme near 0");
    for (ports, place, why) in [
        (
            "[80, 8443]",
            "bearer: true",
            "port 80 takes plain HTTP, which a credential is never added to",
        ),
        ("[443]", "header: Host", "says where a request goes"),
        ("[443]", "header: transfer-encoding", "says where a request goes"),
        ("[443]", "header: X Key", "is not the name of a header"),
        ("[443]", "basic: 'a:b'", "no user of Basic can"),
        ("[443]", "query: ''", "the name is empty"),
    ] {
        let error = rule(ports, place).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
