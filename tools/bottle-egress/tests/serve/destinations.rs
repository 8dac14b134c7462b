//! Where a request may go: host, server name and address, in all their spellings.

use std::net::IpAddr;

use crate::client::Client;
use crate::support::Bottle;

#[test]
fn rules_hold_inside_tls_and_in_the_clear_alike() {
    let bottle = Bottle::start();
    let origins =
        [bottle.tls_origin(|e| e.answer("tls")), bottle.plain_origin(|e| e.answer("plain"))];
    let mut inside = bottle.tunnel("origin.test:8443");
    let mut clear = bottle.plain();
    for (path, allowed) in [
        ("/ok/a", true),
        ("/x", true),
        ("/secret", false),
        ("/ok/../secret", false),
        ("/ok/..%2fsecret", false),
    ] {
        let answer = inside.get(path, "origin.test:8443");
        assert_eq!(answer.denied().is_none(), allowed, "{path} {answer:?}");
        let answer = clear.get(&format!("http://origin.test:8080{path}"), "origin.test:8080");
        assert_eq!(answer.denied().is_none(), allowed, "{path} {answer:?}");
    }
    let answer =
        inside.ask("PUT /ok/a HTTP/1.1\r\nhost: origin.test:8443\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(answer.denied(), Some("method"));
    for origin in origins {
        let lines: Vec<_> = origin.seen().into_iter().map(|seen| seen.line).collect();
        assert_eq!(lines, ["GET /ok/a HTTP/1.1", "GET /x HTTP/1.1"]);
    }
}

#[test]
fn path_is_sent_as_it_was_judged() {
    let bottle = Bottle::start();
    let origin = bottle.plain_origin(|e| e.answer(""));
    let mut client = bottle.plain();
    for path in ["/ok/%61/./b", "/secret/../ok/c?x=%61/../y", "//ok/", "/ok/ü"] {
        client.send(format!(
            "GET http://origin.test:8080{path} HTTP/1.1\r\nhost: origin.test:8080\r\n\r\n"
        ));
        client.answer(false).unwrap();
    }
    let lines: Vec<_> = origin.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(
        lines,
        ["GET /ok/a/b HTTP/1.1", "GET /ok/c?x=%61/../y HTTP/1.1", "GET /ok/%C3%BC HTTP/1.1"]
    );
}

#[test]
fn path_that_grows_out_of_bounds_is_refused_and_not_shortened() {
    let bottle = Bottle::start();
    let origin = bottle.plain_origin(|e| e.answer("in"));
    let mut client = bottle.plain();
    // In normal form each of these letters takes six bytes.
    for (letters, denied) in [(10, None), (8_000, Some("bad-path")), (9_000, Some("bad-path"))] {
        let (path, query) = ("ü".repeat(letters), "q".repeat(20_000));
        let answer =
            client.get(&format!("http://origin.test:8080/ok/{path}?{query}"), "origin.test:8080");
        assert_eq!(answer.denied(), denied, "{letters}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn host_header_cannot_name_another_host_than_the_tunnel() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    for (headers, allowed) in [
        ("host: origin.test:8443", true),
        ("host: Origin.Test", true),
        ("host: evil.test:8443", false),
        ("host: origin.test:443", false),
        ("host: origin.test@evil.test", false),
        ("host: origin.test\r\nhost: evil.test", false),
        ("host: origin.test\r\nhost: origin.test", false),
        ("host: ", false),
    ] {
        let mut client = bottle.tunnel("origin.test:8443");
        let answer = client.ask(&format!("GET /x HTTP/1.1\r\n{headers}\r\n\r\n"));
        assert_eq!(answer.status == 200, allowed, "{headers}: {answer:?}");
        assert_eq!(answer.denied().is_none(), allowed, "{headers}: {answer:?}");
    }
    let mut client = bottle.tunnel("origin.test:8443");
    let answer = client.get("https://evil.test:8443/x", "origin.test:8443");
    assert_eq!(answer.denied(), Some("host-mismatch"));
    let answer = client.get("https://origin.test:8443/x", "origin.test:8443");
    assert_eq!(answer.status, 200);
    // What the origin reads is the host that was judged.
    assert_eq!(origin.seen().len(), 3);
    assert!(origin.seen().iter().all(|seen| seen.header("host") == Some("origin.test:8443")));
}

#[test]
fn server_name_cannot_be_another_than_the_tunnels() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = Client::connect(&bottle, "origin.test:8443").tls(&bottle, "closed.test");
    for host in ["origin.test:8443", "closed.test:8443"] {
        let answer = client.get("/x", host);
        assert_eq!(answer.denied(), Some("host-mismatch"), "{answer:?}");
        assert!(answer.body.contains("the TLS server name is 'closed.test'"), "{}", answer.body);
    }
    assert_eq!(origin.accepted(), 0);
    let mut client = Client::connect(&bottle, "origin.test:8443").tls(&bottle, "Origin.TEST");
    assert_eq!(client.get("/x", "origin.test:8443").status, 200);
}

#[test]
fn address_needs_no_server_name() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let host = format!("{}:8443", bottle.address);
    assert_eq!(bottle.tunnel(&host).get("/any", &host).body, "in");
}

#[test]
fn url_and_host_header_of_a_plain_request_agree() {
    let bottle = Bottle::start();
    let origin = bottle.plain_origin(|e| e.answer("in"));
    let mut client = bottle.plain();
    for host in ["evil.test", "origin.test:80", "origin.test:8081", "closed.test:8080"] {
        let answer = client.get("http://origin.test:8080/x", host);
        assert_eq!(answer.denied(), Some("host-mismatch"), "{host} {answer:?}");
    }
    assert_eq!(origin.accepted(), 0);
    assert_eq!(client.get("http://origin.test:8080/x", "origin.test:8080").body, "in");
    assert_eq!(client.ask("GET http://ORIGIN.test.:8080/x HTTP/1.1\r\n\r\n").body, "in");
}

#[test]
fn odd_spellings_of_addresses_reach_nothing() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let [a, b, c, d] = bottle.address.octets();
    let number = u32::from(bottle.address);
    let mut client = bottle.plain();
    for (host, reason) in [
        (format!("{number}"), "bad-host"),
        (format!("{number:#x}"), "bad-host"),
        (format!("0{a:o}.{b}.{c}.{d}"), "bad-host"),
        (format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)), "bad-host"),
        (format!("{}.", bottle.address), "bad-host"),
        (format!("[::{}]", bottle.address), "host"),
        (format!("[64:ff9b::{}]", bottle.address), "host"),
        ("localhost".into(), "host"),
        ("[::1]".into(), "host"),
        ("0.0.0.0".into(), "host"),
        ("169.254.169.254".into(), "host"),
    ] {
        let answer =
            client.ask(&format!("CONNECT {host}:8443 HTTP/1.1\r\nhost: {host}:8443\r\n\r\n"));
        assert_eq!(answer.denied(), Some(reason), "{host}: {answer:?}");
    }
    assert_eq!(origin.accepted(), 0);
    // Mapped IPv6 is another spelling of the address that the rule names, and is read as that one.
    let mapped = format!("[::ffff:{}]:8443", bottle.address);
    let mut client = Client::connect(&bottle, &mapped).tls(&bottle, &bottle.address.to_string());
    assert_eq!(client.get("/x", &mapped).body, "in");
}

#[test]
fn name_that_leads_to_a_closed_address_is_refused_after_resolution() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    for addresses in [
        vec![IpAddr::from(bottle.address)],
        vec!["::1".parse().unwrap()],
        vec!["169.254.169.254".parse().unwrap(), "10.201.0.9".parse().unwrap()],
        vec![bottle.address.to_ipv6_mapped().into()],
        vec!["64:ff9b::7f00:1".parse().unwrap()],
    ] {
        // Each under a name of its own kind would do; one name and no cache is what a rebinder has.
        bottle.names.set("closed.test", &addresses);
        crate::support::until("the old answer is forgotten", || {
            let mut client = bottle.tunnel("closed.test:8443");
            let answer = client.get("/", "closed.test:8443");
            assert_eq!(answer.denied(), Some("address"), "{addresses:?}: {answer:?}");
            answer.body.contains(&format!("is at {}, which is", addresses[0])).then_some(())
        });
    }
    assert_eq!(origin.accepted(), 0);
    // The same address, the same origin, under a name whose rule opens it.
    assert_eq!(bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443").body, "in");
}

#[test]
fn rebound_name_is_checked_again() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.answer("in");
        e.close = true;
    });
    assert_eq!(bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443").body, "in");
    // From a loopback address, which the rule opens, to the bottles' own pool, which is closed.
    bottle.names.set("origin.test", &["10.201.0.7".parse().unwrap()]);
    crate::support::until("the old answer is forgotten", || {
        let answer = bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443");
        (answer.denied() == Some("address")).then_some(())
    });
    drop(origin);
}

#[test]
fn other_addresses_of_a_name_are_tried_when_one_is_dead() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let dead = std::net::Ipv4Addr::new(127, 255, 255, 253);
    // The closed one is passed over, the dead one refuses.
    let closed = std::net::Ipv4Addr::new(10, 201, 0, 9);
    bottle.names.set("origin.test", &[closed.into(), dead.into(), bottle.address.into()]);
    assert_eq!(bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443").body, "in");
    assert_eq!(bottle.decisions(1)[0].address, Some(bottle.address.into()));
}

#[test]
fn what_is_denied_is_neither_resolved_nor_dialled() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.plain();
    for host in ["evil.test:8443", "origin.test:22", "closed.test:80"] {
        let answer = client.ask(&format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 403);
    }
    assert_eq!(
        bottle.tunnel("secret-data.evil.test:443").get("/", "secret-data.evil.test").status,
        403
    );
    assert_eq!(bottle.tunnel("origin.test:8443").get("/secret", "origin.test:8443").status, 403);
    assert_eq!((bottle.names.asked(), origin.accepted()), (0, 0));
    assert_eq!(bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443").status, 200);
    assert!(bottle.names.asked() > 0 && origin.accepted() == 1);
}
