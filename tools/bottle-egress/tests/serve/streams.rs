//! Bodies pass as they come, connections are kept.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustls::{ClientConnection, HandshakeKind, StreamOwned};

use crate::client::{Client, trusting};
use crate::support::{Bottle, until};

#[test]
fn events_arrive_as_they_are_sent() {
    let bottle = Bottle::start();
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let _origin = bottle.tls_origin(move |e| {
        e.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for event in ["one", "two", "three"] {
            e.send(&format!("e\r\ndata: {event:5}!\n\n\r\n"));
            // The next one is sent only when the client has this one.
            gone.lock().unwrap().recv().unwrap();
        }
        e.send("0\r\n\r\n");
    });
    let mut client = bottle.tunnel("origin.test:8443");
    let head = client.ask_head("GET /ok/events HTTP/1.1\r\nhost: origin.test:8443\r\n\r\n");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    for event in ["one", "two", "three"] {
        assert_eq!(client.chunk().unwrap(), format!("data: {event:5}!\n\n").as_bytes());
        go.send(()).unwrap();
    }
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn uploads_arrive_as_they_are_sent() {
    let bottle = Bottle::start();
    let (told, heard) = channel::<Vec<u8>>();
    let told = Mutex::new(told);
    let _origin = bottle.tls_origin(move |e| {
        while let Some(chunk) = e.chunk() {
            told.lock().unwrap().send(chunk.clone()).unwrap();
            if chunk.is_empty() {
                break;
            }
        }
        e.answer("all");
    });
    let mut client = bottle.tunnel("origin.test:8443");
    client.send("POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n\r\n");
    for part in ["first", "second"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        assert_eq!(heard.recv().unwrap(), part.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer(false).unwrap().body, "all");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    for _ in 0..6 {
        let mut client = bottle.tunnel("origin.test:8443");
        for _ in 0..3 {
            assert_eq!(client.get("/x", "origin.test:8443").body, "in");
        }
    }
    // Each of the two threads that serve keeps its own.
    assert_eq!((origin.seen().len(), origin.accepted()), (18, 2));
}

#[test]
fn connection_that_the_server_has_closed_is_not_felt() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.answer("in");
        // Without saying so.
        e.close = true;
    });
    let mut client = bottle.tunnel("origin.test:8443");
    for _ in 0..5 {
        assert_eq!(client.get("/x", "origin.test:8443").body, "in");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(origin.accepted(), 5);
}

#[test]
fn answer_before_the_end_of_an_upload_blocks_nobody() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        if e.seen.line.starts_with("POST") {
            e.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n");
            // Reads on, and keeps the connection.
            while e.chunk().is_some_and(|chunk| !chunk.is_empty()) {}
        } else {
            e.answer("in");
        }
    });
    let mut first = bottle.tunnel("origin.test:8443");
    first.send("POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n\r\n1\r\nz\r\n");
    assert_eq!(first.answer(false).unwrap().status, 413);
    // The upload is still open, and so is its connection.
    let mut second = bottle.tunnel("origin.test:8443");
    assert_eq!(second.get("/x", "origin.test:8443").body, "in");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn sessions_of_tls_are_resumed() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let config = trusting(&bottle);
    let kinds: Vec<_> = (0..2)
        .map(|_| {
            let session = ClientConnection::new(config.clone(), "origin.test".try_into().unwrap());
            let stream = Client::connect(&bottle, "origin.test:8443").into_inner();
            let mut stream = StreamOwned::new(session.unwrap(), stream);
            stream
                .write_all(b"GET /x HTTP/1.1\r\nhost: origin.test\r\nconnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("\r\n\r\nin"), "{answer}");
            stream.conn.handshake_kind().unwrap()
        })
        .collect();
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[test]
fn server_that_breaks_off_breaks_off_the_answer() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        e.close = true;
    });
    let mut client = bottle.tunnel("origin.test:8443");
    let head = client.ask_head("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\n\r\n");
    assert_eq!(head.header("content-length"), Some("100"));
    assert_eq!(client.read_exact(4), b"half");
    assert!(client.ended());
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn client_that_goes_ends_the_servers_work() {
    let bottle = Bottle::start();
    let (told, heard) = channel::<()>();
    let told = Mutex::new(told);
    let _origin = bottle.plain_origin(move |e| {
        e.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut byte = [0];
        // The end of the connection, while the answer is still going on.
        let _ = std::io::Read::read(e.stream, &mut byte);
        told.lock().unwrap().send(()).unwrap();
        e.close = true;
    });
    let mut client = bottle.plain();
    client.ask_head("GET http://origin.test:8080/x HTTP/1.1\r\nhost: origin.test:8080\r\n\r\n");
    drop(client);
    heard.recv_timeout(crate::support::PATIENCE).unwrap();
}

#[test]
fn large_bodies_pass_whole_in_both_directions() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| {
        let body = String::from_utf8(e.body().unwrap()).unwrap();
        e.answer(&body);
    });
    let sent: String = (0..400_000_u32).fold(String::new(), |sent, n| sent + &n.to_string() + " ");
    let file = bottle.folder.join("sent");
    std::fs::write(&file, &sent).unwrap();
    let file = format!("@{}", file.display());
    for header in ["content-type: text/plain", "transfer-encoding: chunked"] {
        let args = ["--data-binary", &file, "-H", header, "https://origin.test:8443/x"];
        let output = bottle.curl(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == sent.as_bytes(), "{} bytes came back", output.stdout.len());
    }
}

#[test]
fn idle_clients_do_not_keep_others_out() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let _idle: Vec<_> = (0..200).map(|_| bottle.plain()).collect();
    until("a request passes", || {
        (bottle.tunnel("origin.test:8443").get("/x", "origin.test:8443").status == 200)
            .then_some(())
    });
}
