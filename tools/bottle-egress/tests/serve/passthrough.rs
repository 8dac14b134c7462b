//! TLS that is not intercepted.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use crate::client::Client;
use crate::origin::{Origin, Pki};
use crate::support::{Bottle, PATIENCE, TLS, until};

/// `pinned.test` passes through, `origin.test` is intercepted, on the same server.
const RULES: &str = "
- {host: pinned.test, kind: name, ports: [8443], passthrough: true, addresses: [127.0.0.0/8]}
- {host: origin.test, kind: name, ports: [8080, 8443], addresses: [127.0.0.0/8]}
- {host: closed.test, kind: name, ports: [8443], passthrough: true}
- {host: '*.pinned.test', kind: wildcard, ports: [8443], passthrough: true, addresses: [127.0.0.0/8]}
- {host: seen.pinned.test, kind: name, ports: [8443], paths: [/x], addresses: [127.0.0.0/8]}
";

fn start() -> Bottle {
    let bottle = Bottle::with_rules(RULES);
    for name in ["pinned.test", "a.pinned.test", "seen.pinned.test"] {
        bottle.names.set(name, &[bottle.address.into()]);
    }
    bottle
}

fn roots(pki: &Pki) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.root_pem().as_bytes()).unwrap()).unwrap();
    roots
}

/// A client that trusts the world, not the bottle's CA.
fn world(bottle: &Bottle) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&bottle.pki))
        .with_no_client_auth()
}

fn session(config: ClientConfig, name: &str) -> ClientConnection {
    ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap()
}

fn hello(config: ClientConfig, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    session(config, name).write_tls(&mut bytes).unwrap();
    bytes
}

fn origin(bottle: &Bottle) -> Origin {
    let names = ["pinned.test", "a.pinned.test", "seen.pinned.test", "origin.test"];
    bottle.tls_origin_as(&names, |e| e.answer("in"))
}

/// A request inside TLS of the client's own.
fn ask(bottle: &Bottle, config: ClientConfig, to: &str, name: &str) -> std::io::Result<String> {
    let stream = Client::connect(bottle, to).into_inner();
    let mut stream = StreamOwned::new(session(config, name), stream);
    let request = format!("GET /x HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn client_and_server_prove_themselves_to_each_other() {
    let bottle = start();
    let clients = Pki::new("clients");
    let key = KeyPair::generate().unwrap();
    let cert = clients.sign(&CertificateParams::new(vec!["agent".to_owned()]).unwrap(), &key);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&clients)), provider.clone());
    let (chain, server_key) = bottle.pki.identity(&["pinned.test", "origin.test"]);
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, server_key)
        .unwrap();
    let address = SocketAddr::from((bottle.address, TLS));
    let origin = Origin::serve(address, Some(Arc::new(server)), |e| e.answer("in"));
    let own = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&bottle.pki))
        .with_client_auth_cert(vec![cert], key)
        .unwrap();
    assert_eq!(ask(&bottle, own, "pinned.test:8443", "pinned.test").unwrap(), "HTTP/1.1 200 OK");
    // Without the certificate the same server refuses, and where TLS is intercepted there is none.
    assert!(ask(&bottle, world(&bottle), "pinned.test:8443", "pinned.test").is_err());
    let answer = bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn passage_is_recorded_with_its_rule() {
    let bottle = start();
    let origin = origin(&bottle);
    let answer = ask(&bottle, world(&bottle), "pinned.test:8443", "pinned.test");
    assert_eq!(answer.unwrap(), "HTTP/1.1 200 OK");
    let line = &bottle.decisions(1)[0];
    assert_eq!(
        (line.rule, line.port, line.address),
        (Some(0), Some(8443), Some(bottle.address.into()))
    );
    assert_eq!(bottle.told(1), ["connect CONNECT pinned.test: Allow"]);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn most_specific_host_says_whether_tls_passes() {
    let bottle = start();
    let _origin = origin(&bottle);
    let answer = ask(&bottle, world(&bottle), "a.pinned.test:8443", "a.pinned.test");
    assert_eq!(answer.unwrap(), "HTTP/1.1 200 OK");
    // Intercepted, so the world's client does not trust it, and the wildcard does not widen it.
    assert!(ask(&bottle, world(&bottle), "seen.pinned.test:8443", "seen.pinned.test").is_err());
    let mut seen = bottle.tunnel("seen.pinned.test:8443");
    assert_eq!(seen.get("/x", "seen.pinned.test:8443").body, "in");
    assert_eq!(seen.get("/y", "seen.pinned.test:8443").denied(), Some("path"));
}

#[test]
fn name_that_is_absent_hidden_or_another_does_not_pass() {
    let bottle = start();
    let origin = origin(&bottle);
    let mut nameless = world(&bottle);
    nameless.enable_sni = false;
    let mut hidden = hello(world(&bottle), "pinned.test");
    hide(&mut hidden);
    for (bytes, told) in [
        (hello(nameless, "pinned.test"), "server-name"),
        (hidden, "server-name"),
        (hello(world(&bottle), "origin.test"), "host-mismatch"),
        (hello(world(&bottle), "a.pinned.test"), "host-mismatch"),
        (b"\x16\x03\x01\x00\x05hello".to_vec(), "not-http"),
        (b"SSH-2.0-x\r\n".map(|byte| byte | 0x80).to_vec(), "not-http"),
    ] {
        let mut client = Client::connect(&bottle, "pinned.test:8443");
        client.send(bytes);
        let mut alert = Vec::new();
        let _ = client.into_inner().read_to_end(&mut alert);
        // Access denied.
        assert_eq!(alert, [21, 3, 1, 0, 2, 2, 49], "{told}");
    }
    let told = bottle.told(6);
    let reasons: Vec<_> = told.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(
        reasons,
        ["server-name", "server-name", "host-mismatch", "host-mismatch", "not-http", "not-http"]
    );
    assert_eq!(origin.accepted(), 0);
    let answer = ask(&bottle, world(&bottle), "pinned.test:8443", "pinned.test");
    assert_eq!(answer.unwrap(), "HTTP/1.1 200 OK");
}

/// Makes an encrypted name of the last extension's type, as a client with ECH sends one.
fn hide(hello: &mut Vec<u8>) {
    let more = [0xfe, 0x0d, 0, 4, 0, 0, 1, 0];
    let mut at = 9 + 34;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    for place in [3, 7, at] {
        let length = u16::from_be_bytes([hello[place], hello[place + 1]]) + 8;
        hello[place..place + 2].copy_from_slice(&length.to_be_bytes());
    }
    hello.extend(more);
}

#[test]
fn ports_addresses_and_plain_http_are_judged_as_ever() {
    let bottle = start();
    let origin = origin(&bottle);
    let ask_for =
        |to: &str| bottle.plain().ask(&format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n"));
    assert_eq!(ask_for("pinned.test:8444").denied(), Some("port"));
    assert_eq!(ask_for("b.test:8443").denied(), Some("host"));
    assert!(ask(&bottle, world(&bottle), "closed.test:8443", "closed.test").is_err());
    let mut plain = Client::connect(&bottle, "pinned.test:8443");
    let answer = plain.get("/x", "pinned.test:8443");
    assert_eq!(answer.denied(), Some("scheme"));
    assert!(answer.body.contains("passes through, and nothing else"), "{}", answer.body);
    assert_eq!(
        bottle.plain().get("http://pinned.test:8443/x", "pinned.test:8443").denied(),
        Some("scheme")
    );
    assert_eq!(origin.accepted(), 0);
    let told = bottle.told(5);
    assert!(told.contains(&"connect CONNECT closed.test: Deny address".to_owned()), "{told:?}");
}

#[test]
fn each_direction_ends_for_itself() {
    let bottle = start();
    let listener = TcpListener::bind((bottle.address, TLS)).unwrap();
    let server = std::thread::spawn(move || {
        let mut ends = Vec::new();
        // First the client ends its side and still hears, then the server.
        for speaks_on in [true, false] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut all = Vec::new();
            if speaks_on {
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(b"heard").unwrap();
            } else {
                stream.shutdown(Shutdown::Write).unwrap();
                stream.read_to_end(&mut all).unwrap();
            }
            ends.push(all);
        }
        ends
    });
    let bytes = hello(world(&bottle), "pinned.test");
    let open = || {
        let mut stream = TcpStream::connect(bottle.proxy()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"CONNECT pinned.test:8443 HTTP/1.1\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(&bytes).unwrap();
        stream
    };
    let (mut first, mut all) = (open(), Vec::new());
    first.shutdown(Shutdown::Write).unwrap();
    first.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"heard");
    let mut second = open();
    assert_eq!(second.read(&mut [0; 8]).unwrap(), 0);
    second.write_all(b"more").unwrap();
    drop(second);
    assert_eq!(server.join().unwrap(), [bytes.clone(), [&bytes[..], b"more"].concat()]);
}

#[test]
fn passage_ends_with_its_rule_and_not_before() {
    let bottle = start();
    let listener = TcpListener::bind((bottle.address, TLS)).unwrap();
    let mut client = Client::connect(&bottle, "pinned.test:8443");
    client.send(hello(world(&bottle), "pinned.test"));
    let (mut server, _) = listener.accept().unwrap();
    for (generation, rules, open) in [
        // Another policy that allows it too.
        (2, RULES.replace("- {host: origin.test", "- {host: other.test"), true),
        (
            3,
            RULES.replace(
                "{host: pinned.test, kind: name, ports: [8443]",
                "{host: pinned.test, kind: name, ports: [8444]",
            ),
            false,
        ),
    ] {
        bottle.replace("routes.yaml", &bottle.rules(generation, &rules));
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
    assert_eq!(bottle.told(1), ["connect CONNECT pinned.test: Allow"]);
}
