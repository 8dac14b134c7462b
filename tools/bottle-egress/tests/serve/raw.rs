//! Tunnels of bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::client::Client;
use crate::support::{Bottle, PATIENCE, PLAIN, TLS, until};

/// A port of bytes, and of the same host one that is looked into.
const RULES: &str = "
- {host: bytes.test, kind: name, ports: [8443], raw: true, addresses: [127.0.0.0/8]}
- {host: bytes.test, kind: name, ports: [8080], addresses: [127.0.0.0/8]}
- {host: $A, kind: private_address, ports: [8080], raw: true}
- {host: closed.test, kind: name, ports: [8443], raw: true}
- {host: gone.test, kind: name, ports: [8444], raw: true, addresses: [127.0.0.0/8]}
";

fn start() -> Bottle {
    let bottle = Bottle::with_rules(RULES);
    bottle.names.set("bytes.test", &[bottle.address.into()]);
    bottle
}

/// A server that speaks first, says what it hears backwards, and ends when it hears the end.
fn backwards(address: Ipv4Addr, port: u16) -> std::thread::JoinHandle<Vec<u8>> {
    let listener = TcpListener::bind((address, port)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(&heard.iter().rev().copied().collect::<Vec<_>>()).unwrap();
        heard
    })
}

fn asked(bottle: &Bottle, to: &str) -> crate::client::Answer {
    bottle.plain().ask(&format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n"))
}

/// A tunnel as a plain stream.
fn tunnel(bottle: &Bottle, to: &str, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(bottle.proxy()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("CONNECT {to} HTTP/1.1\r\n\r\n");
    stream.write_all(&[head.as_bytes(), first].concat()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[test]
fn bytes_of_any_kind_go_both_ways_until_each_side_ends() {
    // Neither TLS nor HTTP; TLS; HTTP that egress would refuse: none of it is looked at.
    for bytes in [&b"\0\xff\x01"[..], b"\x16\x03\x01\0\x05hello", b"GET / HTTP/9\nX\n\n"] {
        let bottle = start();
        let server = backwards(bottle.address, TLS);
        // Some of it comes before the answer.
        let mut stream = tunnel(&bottle, "bytes.test:8443", &bytes[..1]);
        let mut banner = [0; 11];
        stream.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"SSH-2.0-x\r\n");
        stream.write_all(&bytes[1..]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, bytes.iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(server.join().unwrap(), bytes);
        let line = &bottle.decisions(1)[0];
        assert_eq!(bottle.told(1), ["connect CONNECT bytes.test: Allow 200"]);
        assert_eq!((line.rule, line.port), (Some(0), Some(8443)));
        assert_eq!(line.address, Some(bottle.address.into()));
        assert_eq!((line.sent, line.received), (bytes.len() as u64, 11 + bytes.len() as u64));
    }
}

#[test]
fn much_goes_through_whole() {
    let bottle = start();
    let server = backwards(bottle.address, TLS);
    let mut stream = tunnel(&bottle, "bytes.test:8443", b"");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    stream.read_exact(&mut [0; 11]).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.iter().rev().eq(&bytes));
    assert!(server.join().unwrap() == bytes);
}

#[test]
fn other_ports_and_addresses_of_the_host_stay_closed() {
    let bottle = start();
    // The control: somebody listens there.
    let listener = TcpListener::bind((bottle.address, 8022)).unwrap();
    let to = |host: &str| format!("{host}:8022");
    for (host, reason) in [
        ("bytes.test", "port"),
        (&*bottle.address.to_string(), "port"),
        ("127.0.0.1", "host"),
        ("other.test", "host"),
    ] {
        let answer = asked(&bottle, &to(host));
        assert_eq!(answer.denied(), Some(reason), "{host}");
    }
    TcpStream::connect((bottle.address, 8022)).unwrap();
    listener.accept().unwrap();
    assert_eq!(bottle.decisions(4).len(), 4);
}

#[test]
fn requests_and_tls_that_is_looked_into_are_not_for_a_port_of_bytes() {
    let bottle = start();
    let answer = bottle.plain().get("http://bytes.test:8443/", "bytes.test:8443");
    assert_eq!(answer.denied(), Some("scheme"));
    assert!(answer.body.contains("is a tunnel of bytes, and takes no request"), "{}", answer.body);
    // The control, and a port of the same host that is looked into.
    let origin = bottle.plain_origin(|e| e.answer("looked into"));
    let answer = bottle.plain().get(&format!("http://bytes.test:{PLAIN}/"), "bytes.test:8080");
    assert_eq!(answer.body, "looked into");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn addresses_are_checked_and_what_hinders_is_told() {
    let bottle = start();
    let server = TcpListener::bind((bottle.address, TLS)).unwrap();
    server.set_nonblocking(true).unwrap();
    let answer = asked(&bottle, "closed.test:8443");
    assert_eq!(answer.denied(), Some("address"));
    assert!(
        answer.body.contains("which is loopback: the owner writes the address itself"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("egress.routes"), "{}", answer.body);
    assert!(server.accept().is_err(), "it was dialled");
    let answer = asked(&bottle, "gone.test:8444");
    assert_eq!((answer.status, answer.header("x-bottle-error")), (502, Some("connect")));
    // A name that comes to lead elsewhere is dialled there only where a rule opens that.
    bottle.names.set("bytes.test", &["10.201.0.7".parse().unwrap()]);
    assert_eq!(asked(&bottle, "bytes.test:8443").denied(), Some("address"));
    assert_eq!(
        bottle.told(3),
        [
            "connect CONNECT closed.test: Deny address 403",
            "connect CONNECT gone.test: Allow 502",
            "connect CONNECT bytes.test: Deny address 403",
        ]
    );
}

#[test]
fn address_that_the_rule_itself_is_is_open() {
    let bottle = start();
    let server = backwards(bottle.address, PLAIN);
    let mut stream = tunnel(&bottle, &format!("{}:8080", bottle.address), b"x");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"SSH-2.0-x\r\nx");
    server.join().unwrap();
}

#[test]
fn refused_tunnel_leaves_the_connection_to_http() {
    let bottle = start();
    let origin = bottle.plain_origin(|e| e.answer("after"));
    let mut client = bottle.plain();
    let answer = client.ask("CONNECT closed.test:8443 HTTP/1.1\r\n\r\n");
    assert_eq!(answer.denied(), Some("address"));
    let answer = client.get(&format!("http://bytes.test:{PLAIN}/"), "bytes.test:8080");
    assert_eq!(answer.body, "after");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn tunnel_ends_with_its_rule_and_not_before() {
    let bottle = start();
    let listener = TcpListener::bind((bottle.address, TLS)).unwrap();
    let mut client = Client::connect(&bottle, "bytes.test:8443");
    let (mut server, _) = listener.accept().unwrap();
    let first =
        "- {host: bytes.test, kind: name, ports: [8443], raw: true, addresses: [127.0.0.0/8]}";
    for (generation, rule, open) in [
        // Another place among the rules.
        (2, format!("- {{host: new.test, kind: name, ports: [443]}}\n{first}"), true),
        // Looked into from now on.
        (3, first.replace("raw: true, ", ""), false),
    ] {
        bottle.replace("routes.yaml", &bottle.rules(generation, &RULES.replace(first, &rule)));
        until("it is in force", || {
            bottle.loaded().filter(|loaded| loaded.generation == generation)
        });
        if open {
            server.write_all(b"more").unwrap();
            assert_eq!(client.read_exact(4), b"more");
        } else {
            assert!(client.ended());
        }
    }
    assert_eq!(bottle.told(1), ["connect CONNECT bytes.test: Allow 200"]);
}

#[test]
fn parent_carries_bytes_of_a_server_that_speaks_first() {
    let bottle = start();
    let parent = SocketAddr::from((bottle.address, 8888));
    let old = std::fs::read_to_string(bottle.folder.join("conf/routes.yaml")).unwrap();
    let new = old.replace("generation: 1\n", &format!("generation: 2\nparent: \"{parent}\"\n"));
    bottle.replace("routes.yaml", &new);
    until("the parent is in force", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    let listener = TcpListener::bind(parent).unwrap();
    let carried = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        // In one piece, so that what the server says comes with the parent's answer.
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (String::from_utf8(head).unwrap(), rest)
    });
    let mut stream = tunnel(&bottle, "bytes.test:8443", b"\x01");
    let mut banner = [0; 11];
    stream.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-2.0-x\r\n");
    stream.shutdown(Shutdown::Write).unwrap();
    let (head, rest) = carried.join().unwrap();
    assert!(head.starts_with("CONNECT bytes.test:8443 HTTP/1.1\r\n"), "{head}");
    assert_eq!(rest, b"\x01");
}
