//! Heads: what passes, what stays on its hop, and shapes that smuggle.

use crate::support::{Bottle, until};

#[test]
fn headers_of_one_hop_stay_there() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 200 OK\r\nconnection: x-theirs, keep-alive\r\nx-theirs: 1\r\nx-end: 2\r\nkeep-alive: 5\r\ncontent-length: 0\r\n\r\n");
    });
    let answer = bottle.tunnel("origin.test:8443").ask(
        "GET /x HTTP/1.1\r\nhost: origin.test:8443\r\nconnection: x-mine, keep-alive\r\nx-mine: 1\r\nx-end: 2\r\n\
         proxy-authorization: Basic c2VjcmV0\r\nproxy-connection: keep-alive\r\nte: trailers, deflate\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n",
    );
    assert_eq!(
        (answer.header("x-end"), answer.header("x-theirs"), answer.header("keep-alive")),
        (Some("2"), None, None)
    );
    let mut names: Vec<_> = origin.seen()[0].headers.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    assert_eq!(names, ["host", "http2-settings", "x-end"]);
}

#[test]
fn answers_without_a_body_have_none() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| match e.seen.line.split(' ').nth(1).unwrap() {
        "/ok/head" => e.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\netag: \"a\"\r\n\r\n"),
        "/ok/204" => e.send("HTTP/1.1 204 No Content\r\n\r\n"),
        "/ok/304" => {
            e.send("HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\netag: \"a\"\r\n\r\n");
        }
        _ => e.answer("body"),
    });
    let mut client = bottle.tunnel("origin.test:8443");
    let ask = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: origin.test:8443\r\n\r\n")
    };
    let head = client.ask(&ask("HEAD", "/ok/head"));
    assert_eq!((head.status, head.header("content-length")), (200, Some("1234")));
    assert_eq!(client.ask(&ask("GET", "/ok/204")).status, 204);
    let unmodified = client.ask(&ask("GET", "/ok/304"));
    assert_eq!((unmodified.status, unmodified.header("etag")), (304, Some("\"a\"")));
    assert_eq!(client.ask(&ask("GET", "/x")).body, "body");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn trailers_pass() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| {
        assert_eq!(e.seen.header("te"), Some("trailers"));
        e.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
    });
    let mut client = bottle.tunnel("origin.test:8443");
    let head = client.ask_head("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\nte: trailers\r\n\r\n");
    assert_eq!(head.header("trailer"), Some("x-sum"));
    assert_eq!(client.chunk().unwrap(), b"hi");
    assert_eq!(client.chunk().unwrap(), b"");
    assert_eq!(client.line().unwrap(), "x-sum: 7");
}

#[test]
fn client_that_waits_for_continue_gets_it() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = e.body().unwrap();
        e.answer(&format!("{} bytes", body.len()));
    });
    let mut client = bottle.tunnel("origin.test:8443");
    let head = "POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    let first = client.ask_head(head);
    assert_eq!(first.line, "HTTP/1.1 100 Continue");
    client.send("body");
    assert_eq!(client.answer(false).unwrap().body, "4 bytes");
    assert_eq!(origin.seen()[0].header("expect"), Some("100-continue"));
    // One that is denied is told before it sends anything.
    let mut client = bottle.tunnel("origin.test:8443");
    let answer = client.ask(&head.replace("/x", "/secret"));
    assert_eq!(answer.denied(), Some("path"));
}

#[test]
fn server_decides_whether_a_body_is_sent() {
    let bottle = Bottle::start();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = bottle.tls_origin(move |e| match e.seen.line.split(' ').nth(1).unwrap() {
        "/ok/refused" => {
            e.send("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\ncontent-length: 2\r\n\r\nno");
            // A body would come now; what comes is the end.
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(e.stream, &mut rest);
            assert_eq!(rest, b"");
            e.close = true;
        }
        "/ok/silent" => {
            let body = e.body().unwrap();
            e.answer(&format!("{} bytes", body.len()));
        }
        _ => {
            gone.lock().unwrap().recv().unwrap();
            e.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = e.body().unwrap();
            e.answer(&format!("{} bytes", body.len()));
        }
    });
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: origin.test:8443\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = bottle.tunnel("origin.test:8443");
    let answer = client.ask(&head("/ok/refused"));
    assert_eq!((answer.status, &*answer.body), (401, "no"));
    assert_eq!(answer.header("www-authenticate"), Some("Basic"));
    // A server that says nothing is not waited for without end.
    let mut client = bottle.tunnel("origin.test:8443");
    assert_eq!(client.ask_head(&head("/ok/silent")).line, "HTTP/1.1 100 Continue");
    client.send("body");
    assert_eq!(client.answer(false).unwrap().body, "4 bytes");
    // One that thinks about it is heard before the client is told to go on.
    client.send(head("/ok/slow"));
    until("it is asked", || (origin.seen().len() == 3).then_some(()));
    go.send(()).unwrap();
    assert_eq!(client.ask_head("").line, "HTTP/1.1 100 Continue");
    client.send("body");
    assert_eq!(client.answer(false).unwrap().body, "4 bytes");
}

#[test]
fn compressed_answers_pass_as_they_are() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x0b\x08\x01");
    });
    let answer = bottle
        .tunnel("origin.test:8443")
        .ask("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\naccept-encoding: gzip, zstd\r\n\r\n");
    assert_eq!(
        (answer.header("content-encoding"), &*answer.body),
        (Some("gzip"), "\x1f\x0b\x08\x01")
    );
    assert_eq!(origin.seen()[0].header("accept-encoding"), Some("gzip, zstd"));
}

#[test]
fn one_request_is_never_two() {
    let bottle = Bottle::start();
    let origin = bottle.plain_origin(|e| {
        e.body();
        e.answer("in");
    });
    let smuggled = "GET /secret HTTP/1.1\r\nhost: origin.test\r\n\r\n";
    for (head, body) in [
        ("content-length: 4\r\ntransfer-encoding: chunked", format!("0\r\n\r\n{smuggled}")),
        ("transfer-encoding: chunked\r\ncontent-length: 4", format!("0\r\n\r\n{smuggled}")),
        ("content-length: 0\r\ncontent-length: 44", smuggled.to_owned()),
        ("content-length: 0, 44", smuggled.to_owned()),
        ("content-length: +0", smuggled.to_owned()),
        ("transfer-encoding: xchunked", format!("0\r\n\r\n{smuggled}")),
        ("transfer-encoding : chunked", format!("0\r\n\r\n{smuggled}")),
        ("transfer-encoding: chunked, identity", format!("0\r\n\r\n{smuggled}")),
        ("x: y\r\n transfer-encoding: chunked", format!("0\r\n\r\n{smuggled}")),
        ("transfer-encoding: chunked", format!("0;x\n\r\n{smuggled}")),
        ("transfer-encoding: chunked", format!("fffffffffffffffff0\r\n\r\n{smuggled}")),
        ("x: a\rtransfer-encoding: chunked", format!("0\r\n\r\n{smuggled}")),
        ("x: a\0b", smuggled.to_owned()),
    ] {
        let mut client = bottle.plain();
        client.send(format!(
            "POST http://origin.test:8080/x HTTP/1.1\r\nhost: origin.test:8080\r\n{head}\r\n\r\n{body}"
        ));
        while client.answer(false).is_some_and(|answer| answer.status == 200) {}
        for seen in origin.seen() {
            assert_eq!(seen.line, "POST /x HTTP/1.1", "{head:?}");
            let framed =
                ["content-length", "transfer-encoding"].map(|name| seen.header(name).is_some());
            assert_ne!(framed, [true, true], "{head:?}: {seen:?}");
        }
    }
    // The control: two plain requests in one go are two.
    let mut client = bottle.plain();
    let one = "POST http://origin.test:8080/x HTTP/1.1\r\nhost: origin.test:8080\r\ncontent-length: 1\r\n\r\nz";
    client.send(format!("{one}{one}"));
    assert_eq!(client.answer(false).unwrap().body, "in");
    assert_eq!(client.answer(false).unwrap().body, "in");
}

#[test]
fn heads_without_end_are_cut_off() {
    let bottle = Bottle::start();
    let mut client = bottle.plain();
    client.send("GET http://origin.test:8080/x HTTP/1.1\r\n");
    for _ in 0..200 {
        client.send(format!("x: {}\r\n", "y".repeat(4000)));
    }
    client.send("\r\n");
    assert!(client.answer(false).is_none_or(|answer| answer.status == 431));
    let mut client = bottle.plain();
    assert_eq!(client.get("http://evil.test/", "evil.test").status, 403);
}

#[test]
fn old_clients_are_served() {
    let bottle = Bottle::start();
    let _origin = bottle.plain_origin(|e| {
        e.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    });
    let mut client = bottle.plain();
    client.send("GET http://origin.test:8080/x HTTP/1.0\r\n\r\n");
    let answer = client.answer(false).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "hi"));
}
