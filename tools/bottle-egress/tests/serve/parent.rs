//! The proxy behind egress: all that leaves goes by it, and what it refuses is told.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::origin::head;
use crate::support::{Bottle, PLAIN, RULES, TLS, until};

const PARENT: u16 = 8888;

/// A proxy that writes down what it is asked, refuses `refused.test`, and resolves nothing: all
/// names are at its own address.
struct Parent(Arc<Mutex<Vec<String>>>);

impl Parent {
    fn start(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, PARENT)).unwrap();
        let parent = Self(Arc::default());
        let asked = parent.0.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, asked) = (stream.unwrap(), asked.clone());
                std::thread::spawn(move || serve(stream, address, &asked));
            }
        });
        parent
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, address: Ipv4Addr, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(seen) = head(&mut reader) else { return };
    asked.lock().unwrap().push(seen.line.clone());
    let mut client = stream;
    if seen.line.contains("refused.test") {
        let words = "blocked: \u{1b}[31mno such\nhost for you";
        let _ = write!(
            client,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{words}",
            words.len()
        );
        return;
    }
    if seen.line.contains("gone.test") {
        let words = "tunnel dial failed";
        let _ = write!(
            client,
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: {}\r\n\r\n{words}",
            words.len()
        );
        return;
    }
    if !seen.line.starts_with("CONNECT ") {
        let _ = write!(client, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nby parent");
        return;
    }
    let server = TcpStream::connect((address, TLS)).unwrap();
    client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").unwrap();
    let (mut to, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut { server }, &mut client);
}

/// A bottle whose routes name a parent.
fn bottle() -> Bottle {
    let bottle = Bottle::with_rules(&format!(
        "{RULES}- {{host: refused.test, kind: name, ports: [8443], addresses: [127.0.0.0/8]}}\n"
    ));
    bottle.names.set("refused.test", &[bottle.address.into()]);
    let old = std::fs::read_to_string(bottle.folder.join("conf/routes.yaml")).unwrap();
    let parent = SocketAddr::from((bottle.address, PARENT));
    let new = old.replace("generation: 1\n", &format!("generation: 2\nparent: \"{parent}\"\n"));
    bottle.replace("routes.yaml", &new);
    until("the parent is in force", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    bottle
}

#[test]
fn all_that_leaves_goes_by_the_parent() {
    let bottle = bottle();
    let parent = Parent::start(bottle.address);
    let inner = bottle.tls_origin(|e| e.answer("tls"));
    let plain = bottle.plain_origin(|e| e.answer("not by parent"));
    let mut client = bottle.tunnel("origin.test:8443");
    for _ in 0..2 {
        let answer = client.get("/ok/a", "origin.test:8443");
        assert_eq!((answer.status, answer.body.as_str()), (200, "tls"));
    }
    let url = format!("http://origin.test:{PLAIN}/ok/./a?b");
    let answer = bottle.plain().get(&url, "origin.test:8080");
    assert_eq!((answer.status, answer.body.as_str()), (200, "by parent"));
    // The tunnel is kept and used again.
    assert_eq!(
        parent.asked(),
        ["CONNECT origin.test:8443 HTTP/1.1", "GET http://origin.test:8080/ok/a?b HTTP/1.1"]
    );
    assert_eq!((inner.seen().len(), plain.seen().len()), (2, 0));
}

#[test]
fn what_the_rules_refuse_never_gets_to_the_parent() {
    let bottle = bottle();
    let parent = Parent::start(bottle.address);
    let answer = bottle.tunnel("origin.test:8443").get("/secret", "origin.test:8443");
    assert_eq!(answer.denied(), Some("path"));
    // An address is checked before the parent is asked for its name.
    let answer = bottle.tunnel("closed.test:8443").get("/", "closed.test:8443");
    assert_eq!(answer.denied(), Some("address"));
    assert_eq!(parent.asked(), Vec::<String>::new());
}

#[test]
fn refusal_of_the_parent_is_a_denial_in_its_own_words() {
    let bottle = bottle();
    let _parent = Parent::start(bottle.address);
    let answer = bottle.tunnel("refused.test:8443").get("/a", "refused.test:8443");
    assert_eq!(answer.denied(), Some("parent"), "{answer:?}");
    let why = "the rules of the bottle allow it, and pipelock, which is behind them, refuses: blocked: \\u{1b}[31mno such\\nhost for you\n";
    assert!(answer.body.contains(why), "{}", answer.body);
    assert_eq!(bottle.told(1), ["http GET refused.test /a: Deny parent 403"]);
}

#[test]
fn parent_that_cannot_reach_the_server_says_so() {
    let bottle = bottle();
    let _parent = Parent::start(bottle.address);
    let answer = bottle.tunnel("gone.test:8444").get("/", "gone.test:8444");
    assert_eq!((answer.status, answer.header("x-bottle-error")), (502, Some("parent")));
    assert!(answer.body.contains("pipelock could not reach it (502): tunnel dial failed"));
}

#[test]
fn parent_that_is_away_is_a_502_that_says_so() {
    let bottle = bottle();
    for answer in [
        bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443"),
        bottle.plain().get("http://origin.test:8080/x", "origin.test:8080"),
    ] {
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(answer.header("x-bottle-error"), Some("parent"));
        let told = format!(
            "pipelock, by which all that leaves goes, does not answer at {}:{PARENT}: ",
            bottle.address
        );
        assert!(answer.body.contains(&told), "{}", answer.body);
    }
    // The control: nothing else was in the way.
    let _parent = Parent::start(bottle.address);
    let answer = bottle.plain().get("http://origin.test:8080/x", "origin.test:8080");
    assert_eq!(answer.status, 200);
}
