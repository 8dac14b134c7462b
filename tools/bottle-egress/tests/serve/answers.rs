//! What egress says itself: denials, failures, and what it writes down.

use crate::client::Client;
use crate::support::Bottle;

#[test]
fn denial_says_who_why_which_rule_and_how_to_ask() {
    let bottle = Bottle::start();
    let answer = bottle.tunnel("origin.test:8443").get("/secret?token=s3cret", "origin.test:8443");
    assert_eq!(answer.denied(), Some("path"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(
        answer.body,
        "bottle-egress denied this request (path): no rule covers the path '/secret'\n\
         request: GET https://origin.test:8443/secret\n\
         nearest rule: 0: GET,HEAD,POST *://origin.test:{8080,8443}{/ok/**,/x} at 127.0.0.0/8\n\
         to allow it, the owner of bottle 'demo' adds to 'egress.routes' of its manifest:\n\
         - host: origin.test\n\x20 ports:\n\x20   - 8443\n\x20 methods:\n\x20   - GET\n\x20 paths:\n\x20   - /secret\n"
    );
}

#[test]
fn denial_is_json_for_those_who_ask_for_json() {
    let bottle = Bottle::start();
    let answer = bottle.plain().ask(
        "GET http://evil.test/ HTTP/1.1\r\nhost: evil.test\r\naccept: application/json, */*\r\n\r\n",
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["denied_by"], "bottle-egress");
    assert_eq!(body["reason"], "host");
    assert_eq!(body["request"], "GET http://evil.test:80/");
}

#[test]
fn denied_tls_host_is_told_inside_tls_and_other_ports_on_the_connect() {
    let bottle = Bottle::start();
    let answer = bottle.tunnel("evil.test:443").get("/x", "evil.test");
    assert_eq!(answer.denied(), Some("host"));
    let answer =
        bottle.plain().ask("CONNECT evil.test:8443 HTTP/1.1\r\nhost: evil.test:8443\r\n\r\n");
    assert_eq!(answer.denied(), Some("host"));
    assert_eq!(
        bottle.told(2),
        ["http GET evil.test /x: Deny host 403", "connect CONNECT evil.test: Deny host 403"]
    );
}

#[test]
fn failure_of_the_world_is_told_apart_from_a_denial() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    for (host, kind) in [
        // The origin cannot prove to be that host.
        ("untrusted.test:8443", "tls"),
        ("gone.test:8444", "connect"),
        ("nowhere.test:8443", "resolve"),
    ] {
        let answer = bottle.tunnel(host).get("/x", host);
        assert_eq!(
            (answer.status, answer.header("x-bottle-error")),
            (502, Some(kind)),
            "{answer:?}"
        );
        assert!(answer.body.contains("this is not a denial"), "{}", answer.body);
        assert_eq!(answer.denied(), None);
    }
    assert_eq!(bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443").status, 200);
}

#[test]
fn server_with_a_certificate_of_nobody_is_not_trusted() {
    let bottle = Bottle::start();
    let stranger = crate::origin::Pki::new("a stranger");
    let address = (bottle.address, crate::support::TLS).into();
    let origin =
        crate::origin::Origin::serve(address, Some(stranger.server(&["origin.test"])), |e| {
            e.answer("in");
        });
    let mut client = bottle.tunnel("origin.test:8443");
    let answer = client.get("/x", "origin.test:8443");
    assert_eq!((answer.status, answer.header("x-bottle-error")), (502, Some("tls")));
    assert!(answer.body.contains("'egress.ca_certificates' of the manifest"), "{}", answer.body);
    assert!(origin.seen().is_empty());
    // The same origin, once its authority is among the roots.
    bottle.replace("roots.pem", &stranger.root_pem());
    crate::support::until("the new roots are in force", || {
        (client.get("/x", "origin.test:8443").status == 200).then_some(())
    });
}

#[test]
fn every_decision_is_one_line() {
    let mut bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.tunnel("origin.test:8443");
    client.get("/x?secret=1", "origin.test:8443");
    client.get("/no%0a", "origin.test:8443");
    client.get("/no", "origin.test:8443");
    drop(client);
    let mut client = bottle.plain();
    client.get("http://evil.test/%1b[2J", "evil.test");
    // SIGTERM right after the last decision: nothing is lost.
    assert_eq!(bottle.end(), Some(0));
    assert_eq!(
        bottle.told(4),
        [
            "http GET origin.test /x: Allow 200",
            "http GET origin.test /no%0a: Deny bad-path 403",
            "http GET origin.test /no: Deny path 403",
            "http GET evil.test /%1b[2J: Deny bad-path 403",
        ]
    );
    let lines = bottle.decisions(4);
    assert_eq!(lines[0].rule, Some(0));
    assert_eq!(lines[0].address, Some(bottle.address.into()));
    assert_eq!((lines[2].rule, lines[2].nearest, lines[2].generation), (None, Some(0), 1));
    assert!(lines.iter().all(|line| line.client.is_loopback()));
}

#[test]
fn exchange_under_way_is_recorded_when_it_ends_or_egress_does() {
    let mut bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nz\r\n");
    });
    let ask = "GET /x HTTP/1.1\r\nhost: origin.test:8443\r\n\r\n";
    let (mut first, mut second) =
        (bottle.tunnel("origin.test:8443"), bottle.tunnel("origin.test:8443"));
    for client in [&mut first, &mut second] {
        client.ask_head(ask);
        assert_eq!(client.chunk().unwrap(), b"z");
    }
    bottle.told(0);
    drop(first);
    assert_eq!(bottle.told(1), ["http GET origin.test /x: Allow 200"]);
    assert_eq!(bottle.end(), Some(0));
    bottle.told(2);
}

#[test]
fn tunnel_that_no_request_came_of_is_recorded() {
    let bottle = Bottle::start();
    // A client that does not trust the CA breaks off at this point.
    drop(Client::connect(&bottle, "origin.test:8443"));
    let mut client = Client::connect(&bottle, "evil.test:443");
    client.send(b"\x00\x01\x02");
    assert!(client.ended());
    let mut told = bottle.told(2);
    told.sort();
    assert_eq!(
        told,
        ["connect CONNECT evil.test: Deny not-http", "connect CONNECT origin.test: Allow"]
    );
}

#[test]
fn what_is_no_proxy_request_is_told_so() {
    let bottle = Bottle::start();
    for request in [
        "GET / HTTP/1.1\r\nhost: origin.test\r\n\r\n",
        "GET https://origin.test:8443/ HTTP/1.1\r\nhost: origin.test:8443\r\n\r\n",
        "CONNECT origin.test HTTP/1.1\r\nhost: origin.test\r\n\r\n",
    ] {
        let answer = bottle.plain().ask(request);
        assert_eq!(answer.status, 400, "{request}");
    }
}

#[test]
fn plain_http_in_a_tunnel_is_judged_as_such() {
    let bottle = Bottle::start();
    let origin = bottle.plain_origin(|e| e.answer("in"));
    let mut client = Client::connect(&bottle, "origin.test:8080");
    assert_eq!(client.get("/x", "origin.test:8080").body, "in");
    assert_eq!(client.get("/secret", "origin.test:8080").denied(), Some("path"));
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn interim_answers_do_no_harm() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        e.answer("in");
    });
    let mut client = bottle.tunnel("origin.test:8443");
    for _ in 0..3 {
        let answer = client.get("/x", "origin.test:8443");
        assert_eq!((answer.status, &*answer.body, answer.header("link")), (200, "in", None));
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(bottle.told(3), ["http GET origin.test /x: Allow 200"; 3]);
}
