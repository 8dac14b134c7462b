//! Who asks: a rule is for one client of the bottle, and who is none of them gets nothing.

use crate::client::Client;
use crate::support::{Bottle, PLAIN};

const RULES: &str = "
- {host: both.test, kind: name, ports: [8080], paths: [/agent], addresses: [127.0.0.0/8]}
- {host: both.test, kind: name, from: git-gate, ports: [8080], paths: [/gate], addresses: [127.0.0.0/8]}
- {host: gates.test, kind: name, from: git-gate, ports: [8080, 8443], addresses: [127.0.0.0/8]}
- {host: tunnel.test, kind: name, from: git-gate, ports: [8022], raw: true, addresses: [127.0.0.0/8]}
";

/// The address of the git gate in the tests' routes, and one of nobody.
const GATE: [u8; 4] = [127, 0, 0, 2];
const NOBODY: [u8; 4] = [127, 0, 0, 9];

fn start() -> Bottle {
    let bottle = Bottle::with_rules(RULES);
    for name in ["both.test", "gates.test", "tunnel.test"] {
        bottle.names.set(name, &[bottle.address.into()]);
    }
    bottle
}

fn connect(client: &mut Client, to: &str) -> crate::client::Answer {
    client.ask(&format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n"))
}

#[test]
fn rule_is_for_its_client_and_for_nobody_else() {
    let bottle = start();
    let origin = bottle.plain_origin(|e| e.answer("in"));
    let url = |host: &str, path: &str| format!("http://{host}:{PLAIN}{path}");
    let mut both = [bottle.plain(), Client::at(&bottle, GATE)];
    for (client, host, path, denied) in [
        (0, "both.test", "/agent", None),
        (0, "both.test", "/gate", Some("path")),
        (0, "gates.test", "/", Some("host")),
        (1, "both.test", "/gate", None),
        (1, "both.test", "/agent", Some("path")),
        (1, "gates.test", "/", None),
    ] {
        let answer = both[client].get(&url(host, path), &format!("{host}:{PLAIN}"));
        assert_eq!(answer.denied(), denied, "{host}{path}");
    }
    assert_eq!(origin.seen().len(), 3);
    let clients: Vec<_> = bottle.decisions(6).iter().map(|line| line.client.to_string()).collect();
    assert_eq!(clients[..3], ["127.0.0.1", "127.0.0.1", "127.0.0.1"]);
    assert_eq!(clients[3..], ["127.0.0.2", "127.0.0.2", "127.0.0.2"]);
}

#[test]
fn tunnel_is_for_its_client_and_for_nobody_else() {
    let bottle = start();
    let listener = std::net::TcpListener::bind((bottle.address, 8022)).unwrap();
    assert_eq!(connect(&mut bottle.plain(), "tunnel.test:8022").denied(), Some("host"));
    let _open = Client::at(&bottle, GATE).connected("tunnel.test:8022");
    listener.accept().unwrap();
}

#[test]
fn denial_tells_nothing_of_the_rules_of_others() {
    let bottle = start();
    for to in ["gates.test:8443", "gatez.test:8443", "tunnel.test:8022", "both.test:8443"] {
        let answer = connect(&mut bottle.plain(), to);
        assert!(answer.denied().is_some(), "{to}");
        for word in [
            "git-gate",
            "'gates.test' is allowed",
            "one is 'gates.test'",
            "one is 'tunnel.test'",
            "/gate",
            "8022, not",
        ] {
            assert!(!answer.body.contains(word), "{to}: {}", answer.body);
        }
    }
    // The control: to its own client the same is told.
    let answer = connect(&mut Client::at(&bottle, GATE), "gatez.test:8443");
    assert!(answer.body.contains("the nearest one is 'gates.test'"), "{}", answer.body);
    assert!(!answer.body.contains("egress.routes"), "{}", answer.body);
}

#[test]
fn address_of_nobody_gets_nothing() {
    let bottle = start();
    let origin = bottle.plain_origin(|e| e.answer("in"));
    let url = format!("http://both.test:{PLAIN}/agent");
    let answer = Client::at(&bottle, NOBODY).get(&url, "both.test:8080");
    assert_eq!(answer.denied(), Some("client"));
    assert!(answer.body.contains("127.0.0.9 is the address of nobody"), "{}", answer.body);
    let answer = connect(&mut Client::at(&bottle, NOBODY), "both.test:8080");
    assert_eq!(answer.denied(), Some("client"));
    assert_eq!(bottle.names.asked(), 0);
    assert_eq!(bottle.plain().get(&url, "both.test:8080").body, "in");
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(
        bottle.told(3)[..2],
        [
            "http GET both.test:8080 /agent: Deny client 403",
            "connect CONNECT both.test:8080: Deny client 403"
        ]
    );
}
