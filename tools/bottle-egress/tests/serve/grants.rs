//! Rules that were granted for a time or for some requests.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bottle::policy::{End, Spents};

use crate::support::{Bottle, RULES, read, until};

const HOST: &str = "origin.test:8443";
const SOCKET: &str = "GET /granted/socket HTTP/1.1\r\nhost: origin.test:8443\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// [`RULES`] and one that is granted.
fn granted(term: &str) -> String {
    format!(
        "{RULES}- {{host: origin.test, kind: name, ports: [8443], paths: [/granted/**], addresses: [127.0.0.0/8], grant: {{id: a1, {term}}}}}\n"
    )
}

fn spent(bottle: &Bottle) -> Spents {
    serde_json::from_str(&read(&bottle.folder, "run/grants.json")).unwrap()
}

#[test]
fn grant_ends_by_the_clock_and_takes_its_open_tunnels_along() {
    let bottle = Bottle::with_rules(&granted(&format!("expires: {}", now() + 3)));
    let _origin = bottle.tls_origin(|e| {
        if e.seen.line.contains("socket") {
            e.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi");
            while e.chunk().is_some() {}
        } else {
            e.answer("in");
        }
    });
    let mut socket = bottle.tunnel(HOST);
    assert!(socket.ask_head(SOCKET).line.contains("101"));
    assert_eq!(socket.read_exact(2), b"hi");
    let mut client = bottle.tunnel(HOST);
    assert_eq!(client.get("/granted/x", HOST).status, 200);
    let answer = until("it has ended", || {
        let answer = client.get("/granted/x", HOST);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(answer.denied(), Some("grant"));
    assert!(answer.body.contains("grant 'a1' until 20") && answer.body.contains("has ended"));
    assert!(socket.ended());
    // The rules of the plan are as they were.
    assert_eq!(client.get("/x", HOST).status, 200);
    until("it is told", || {
        (spent(&bottle).grants.get("a1")?.end == Some(End::Expired)).then_some(())
    });
}

#[test]
fn upload_that_goes_on_ends_with_its_grant() {
    let bottle = Bottle::with_rules(&granted(&format!("expires: {}", now() + 3)));
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let theirs = arrived.clone();
    let _origin = bottle.tls_origin(move |e| {
        if e.seen.line.starts_with("GET") {
            return e.answer("in");
        }
        while let Some(chunk) = e.chunk().filter(|chunk| !chunk.is_empty()) {
            theirs.lock().unwrap().extend(chunk);
        }
        e.answer("all");
    });
    let mut client = bottle.tunnel(HOST);
    client.send(format!("POST /granted/up HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n6\r\nbefore\r\n"));
    until("it is on its way", || (*arrived.lock().unwrap() == b"before").then_some(()));
    let mut other = bottle.tunnel(HOST);
    until("the grant has ended", || (other.get("/granted/x", HOST).status == 403).then_some(()));
    client.send("5\r\nafter\r\n0\r\n\r\n");
    assert_eq!(client.answer(false).unwrap().denied(), Some("grant"));
    assert_eq!(*arrived.lock().unwrap(), b"before");
}

#[test]
fn uses_are_counted_across_new_rules() {
    let bottle = Bottle::with_rules(&granted("uses: 3"));
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.tunnel(HOST);
    // What is refused for something else, or allowed by another rule, uses nothing up.
    assert_eq!(client.get("/else", HOST).denied(), Some("path"));
    assert_eq!(client.get("/x", HOST).status, 200);
    assert_eq!(client.get("/granted/1", HOST).status, 200);
    bottle.replace("routes.yaml", &bottle.rules(2, &granted("uses: 3")));
    until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    assert_eq!(client.get("/granted/2", HOST).status, 200);
    assert_eq!(spent(&bottle).grants["a1"].used, 2);
    assert_eq!(client.get("/granted/3", HOST).status, 200);
    assert_eq!(client.get("/granted/4", HOST).denied(), Some("grant"));
    // More of the same grant gives nothing back.
    bottle.replace("routes.yaml", &bottle.rules(3, &granted("uses: 30")));
    until("generation 3", || bottle.loaded().filter(|loaded| loaded.generation == 3));
    assert_eq!(client.get("/granted/5", HOST).denied(), Some("grant"));
    assert_eq!(spent(&bottle).grants["a1"].end, Some(End::UsedUp));
}
