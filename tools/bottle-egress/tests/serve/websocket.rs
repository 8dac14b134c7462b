//! Web sockets: judged as requests, tunnelled, and looked into where the rule wants that.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::client::Client;
use crate::origin::Origin;
use crate::support::{Bottle, RULES, run, until};

/// A frame without a mask, its first byte given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => frame.extend(&length.to_be_bytes()[1..]),
        Ok(length) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// The same with a mask, as clients send it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0xc3, 0x01, 0xf0];
    let mut frame = frame(first, payload);
    let head = frame.len() - payload.len();
    frame[1] |= 0x80;
    let body: Vec<u8> =
        frame.drain(head..).zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    [frame, MASK.to_vec(), body].concat()
}

/// A token that is none but for its form.
fn token() -> String {
    ["gh", "p_FAKE0FAKE1FAKE2FAKE3FAKE4FAKE52nfc85"].concat()
}

#[test]
fn websocket_passes_where_the_request_is_allowed() {
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: abc\r\n\r\n");
        let mut bytes = [0; 6];
        while e.stream.read_exact(&mut bytes).is_ok() {
            e.send(std::str::from_utf8(&bytes[2..]).unwrap());
        }
        e.close = true;
    });
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: origin.test:8443\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n"
        )
    };
    let mut client = bottle.tunnel("origin.test:8443");
    let head = client.ask_head(&ask("/x"));
    assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.header("sec-websocket-accept"), Some("abc"));
    for text in ["ping", "pong"] {
        client.send(frame(0x81, text.as_bytes()));
        assert_eq!(client.read_exact(4), text.as_bytes());
    }
    assert_eq!(bottle.tunnel("origin.test:8443").ask(&ask("/secret")).denied(), Some("path"));
    assert_eq!(origin.seen()[0].header("upgrade"), Some("websocket"));
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn websocket_ends_with_its_rule_and_not_before() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| {
        e.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        );
        let mut bytes = [0; 6];
        while e.stream.read_exact(&mut bytes).is_ok() {
            e.send(std::str::from_utf8(&bytes[2..]).unwrap());
        }
        e.close = true;
    });
    let mut client = bottle.tunnel("origin.test:8443");
    client.ask_head("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    for (generation, rules) in [
        (2, RULES.replace("- {host: gone.test", "- {host: other.test")),
        (3, RULES.replace(", /x]", "]")),
    ] {
        client.send(frame(0x81, b"ping"));
        assert_eq!(client.read_exact(4), b"ping");
        bottle.replace("routes.yaml", &bottle.rules(generation, &rules));
        until("it is in force", || {
            bottle.loaded().filter(|loaded| loaded.generation == generation)
        });
    }
    assert!(client.ended());
}

#[test]
fn websocket_ends_each_direction_for_itself() {
    let bottle = Bottle::start();
    let origin = bottle.plain_origin(|e| {
        e.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        );
        let mut all = Vec::new();
        e.stream.read_to_end(&mut all).unwrap();
        // The client has ended its side, and still hears.
        e.send(&format!("{} heard", all.len()));
        e.close = true;
    });
    let mut stream = std::net::TcpStream::connect(bottle.proxy()).unwrap();
    stream
        .write_all(b"GET http://origin.test:8080/x HTTP/1.1\r\nhost: origin.test:8080\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream.write_all(&frame(0x81, b"bytes")).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "7 heard");
    assert_eq!(origin.seen().len(), 1);
}

/// A socket by a rule that ends with these words, and all that reaches the server in it.
fn socket(words: &str) -> (Bottle, Origin, Client, Arc<Mutex<Vec<u8>>>) {
    let rule = format!(
        "\n- {{host: origin.test, kind: name, ports: [8080], addresses: [127.0.0.0/8]{words}}}\n"
    );
    let bottle = Bottle::with_rules(&rule);
    let got = Arc::<Mutex<Vec<u8>>>::default();
    let theirs = got.clone();
    let origin = bottle.plain_origin(move |e| {
        e.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        );
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = e.stream.read(&mut bytes) {
            theirs.lock().unwrap().extend(&bytes[..read]);
        }
        // Only where the client has ended in peace.
        e.send("bye");
        e.close = true;
    });
    let mut client = bottle.plain();
    let head = client.ask_head("GET http://origin.test:8080/x HTTP/1.1\r\nhost: origin.test:8080\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n");
    assert!(head.line.contains(" 101 "), "{head:?}");
    (bottle, origin, client, got)
}

/// Waits until the server has all of these bytes.
fn has(got: &Mutex<Vec<u8>>, bytes: &[u8]) {
    until("the server has it", || (got.lock().unwrap().ends_with(bytes)).then_some(()));
}

/// The close frame that comes: its code and its text.
fn closed(client: &mut Client) -> (u16, String) {
    let head = client.read_exact(4);
    assert_eq!(head[0], 0x88, "{head:x?}");
    let text = client.read_exact(usize::from(head[1]) - 2);
    assert!(client.ended());
    (u16::from_be_bytes([head[2], head[3]]), String::from_utf8(text).unwrap())
}

#[test]
fn token_in_a_websocket_does_not_leave_however_it_is_cut() {
    let token = token();
    let (first, last) = token.split_at(17);
    let whole = masked(0x81, format!("{{\"key\":\"{token}\"}}").as_bytes());
    let long = format!("{} {token} ", "plain words ".repeat(9000));
    let parts: &[Vec<u8>] = &[
        whole.clone(),
        frame(0x81, token.as_bytes()),
        // Two frames of a message, with a ping between them.
        [masked(0x01, first.as_bytes()), masked(0x89, b"p"), masked(0x80, last.as_bytes())]
            .concat(),
        [masked(0x02, first.as_bytes()), masked(0x00, b""), masked(0x80, last.as_bytes())].concat(),
        // All of it in a message that has not ended, and a ping that has.
        [frame(0x01, token.as_bytes()), masked(0x89, b"p"), frame(0x80, b"")].concat(),
        [frame(0x02, token.as_bytes()), masked(0x89, b"p"), frame(0x80, b"")].concat(),
        masked(0x82, long.as_bytes()),
        masked(0x89, token.as_bytes()),
    ];
    for bytes in parts {
        for by_byte in [false, true] {
            if by_byte && bytes.len() > 1000 {
                continue;
            }
            let (bottle, _origin, mut client, got) = socket("");
            client.send(masked(0x81, b"hello"));
            has(&got, &masked(0x81, b"hello"));
            if by_byte {
                for byte in bytes {
                    client.send([*byte]);
                }
            } else {
                client.send(bytes);
            }
            let (code, text) = closed(&mut client);
            assert_eq!(code, 1008);
            assert!(text.contains("github-token"), "{text}");
            let line = bottle.decisions(1).remove(0);
            assert_eq!(line.reason.map(|reason| reason.to_string()), Some("dlp".to_owned()));
            assert_eq!(line.found, ["github-token in body"]);
            let got = got.lock().unwrap().clone();
            for end in [&bytes[bytes.len() - 12..], &token.as_bytes()[28..]] {
                assert!(!got.windows(12).any(|part| part == end), "the end of it left");
            }
        }
    }
    // Where the rule says so it leaves, and is noted or not.
    for (words, found) in [(", dlp: warn", 1), (", dlp: off", 0)] {
        let (bottle, _origin, mut client, got) = socket(words);
        client.send(&whole);
        has(&got, &whole);
        drop(client);
        assert_eq!(bottle.decisions(1)[0].found.len(), found, "{words}");
    }
}

#[test]
fn ping_does_not_let_go_what_its_message_holds() {
    for kind in [0x01, 0x02] {
        let (_bottle, _origin, mut client, got) = socket("");
        client.send([frame(kind, token().as_bytes()), masked(0x89, b"p")].concat());
        // Less than what is held may wait.
        std::thread::sleep(std::time::Duration::from_millis(100));
        client.send(frame(0x80, b""));
        assert_eq!(closed(&mut client).0, 1008);
        let got = got.lock().unwrap().clone();
        assert!(!got.windows(12).any(|part| part == &token().as_bytes()[28..]), "it left");
    }
}

#[test]
fn what_is_harmless_in_a_websocket_leaves_untouched_and_at_once() {
    let (bottle, _origin, mut client, got) = socket("");
    let mut sent = Vec::new();
    let long = "0123456789 abcdefghij ".repeat(10_000);
    for bytes in [
        masked(0x81, b"hello"),
        // What only begins like a token waits for the end of its message, and no longer.
        masked(0x81, b"token: ghp_FAKE0"),
        masked(0x8a, b""),
        masked(0x82, long.as_bytes()),
        [masked(0x02, b"a"), masked(0x80, b"b")].concat(),
    ] {
        client.send(&bytes);
        sent.extend(bytes);
        has(&got, &sent);
    }
    // Half of a message waits for a moment only.
    client.send(masked(0x01, b"token: ghp_FAKE0"));
    sent.extend(masked(0x01, b"token: ghp_FAKE0"));
    has(&got, &sent);
    drop(client);
    let line = bottle.decisions(1).remove(0);
    assert_eq!((line.sent, line.found.len()), (sent.len() as u64, 0));
}

#[test]
fn what_cannot_be_looked_into_is_no_websocket() {
    for bytes in [masked(0xc1, b"compressed"), masked(0x83, b"unknown"), b"GET / HTTP/1.1".to_vec()]
    {
        let (bottle, _origin, mut client, got) = socket("");
        client.send(&bytes);
        assert_eq!(closed(&mut client).0, 1002);
        assert_eq!(bottle.decisions(1)[0].reason.map(|it| it.to_string()), Some("framing".into()));
        assert!(got.lock().unwrap().is_empty());
        let (_bottle, _origin, mut client, got) = socket(", dlp: off");
        client.send(&bytes);
        has(&got, &bytes);
    }
}

#[test]
fn compression_is_offered_only_where_nothing_looks() {
    for (words, offered) in [("", None), (", dlp: off", Some("permessage-deflate"))] {
        let (_bottle, origin, _client, _) = socket(words);
        assert_eq!(origin.seen()[0].header("sec-websocket-extensions"), offered);
    }
}

/// Says words to a server that says them again, and prints what comes back, or how it ended.
const PYTHON: &str = r#"
import asyncio, socket, sys, websockets
host, proxy, words = sys.argv[1], sys.argv[2], sys.argv[3:]

async def echo(ws, path=None):
    async for text in ws:
        await ws.send(text)

async def main():
    server = await websockets.serve(echo, host, 8080)
    sock = socket.create_connection((proxy, 3128))
    sock.sendall(b"CONNECT origin.test:8080 HTTP/1.1\r\nhost: origin.test:8080\r\n\r\n")
    assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    async with websockets.connect("ws://origin.test:8080/x", sock=sock) as ws:
        print([extension.name for extension in ws.extensions])
        for word in words:
            try:
                await ws.send(word)
                print(await ws.recv())
            except websockets.ConnectionClosed as closed:
                print(closed.rcvd.code, closed.rcvd.reason[:41])
    server.close()

asyncio.run(main())
"#;

/// A Python that has the library: Debian's own, or the first on PATH.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let tried = Command::new(python).args(["-c", "import websockets"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    ["/usr/bin/python3", "python3"].into_iter().find(has)
}

#[test]
fn pythons_websockets_are_looked_into() {
    let Some(python) = python() else {
        let required = std::env::var_os("BOTTLE_TEST_REQUIRE_ENGINE");
        assert!(required.is_none_or(|it| it != "1"), "python3-websockets is not there");
        return eprintln!("SKIPPED: python3-websockets is not there");
    };
    let long = "many words ".repeat(20_000);
    for (words, extensions, last) in [
        ("", "[]", "1008 denied by bottle-egress (dlp): the scan o"),
        (", dlp: off", "['permessage-deflate']", &*token()),
    ] {
        let rule = format!(
            "\n- {{host: origin.test, kind: name, ports: [8080], addresses: [127.0.0.0/8]{words}}}\n"
        );
        let bottle = Bottle::with_rules(&rule);
        let address = bottle.address.to_string();
        let output = run(Command::new(python).args(["-c", PYTHON, &address, &address]).args([
            "hello",
            &long[..100_000],
            &token(),
        ]));
        let told = String::from_utf8(output.stdout).unwrap();
        let told: Vec<_> = told.lines().collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told, [extensions, "hello", &long[..100_000], last], "{errors}");
    }
}
