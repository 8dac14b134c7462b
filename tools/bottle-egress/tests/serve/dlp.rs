//! What must not leave does not, in no place, no encoding and no number of pieces; what may, does.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::{Answer, Client};
use crate::origin::Origin;
use crate::support::{Bottle, PATIENCE, run};

/// A token that is none but for its form.
fn token() -> String {
    ["gh", "p_FAKE0FAKE1FAKE2FAKE3FAKE4FAKE52nfc85"].concat()
}

/// A bottle whose only rule ends with these words, and an origin that keeps all bytes of bodies.
fn bottle(words: &str) -> (Bottle, Origin, Arc<Mutex<Vec<u8>>>) {
    let rule = format!(
        "\n- {{host: origin.test, kind: name, ports: [8080, 8443], addresses: [127.0.0.0/8]{words}}}\n"
    );
    let bottle = Bottle::with_rules(&rule);
    let got = Arc::<Mutex<Vec<u8>>>::default();
    let theirs = got.clone();
    let origin = bottle.tls_origin(move |e| {
        let all = |bytes: &[u8]| theirs.lock().unwrap().extend(bytes);
        if e.seen.header("transfer-encoding").is_some() {
            loop {
                // A client that went has sent no last chunk.
                let Some(chunk) = e.chunk() else { return e.close = true };
                if chunk.is_empty() {
                    break;
                }
                all(&chunk);
            }
        } else if let Some(body) = e.body() {
            all(&body);
        } else {
            return e.close = true;
        }
        e.answer("taken");
    });
    (bottle, origin, got)
}

fn get(bottle: &Bottle, path: &str, headers: &str) -> Answer {
    let mut client = bottle.tunnel("origin.test:8443");
    client.ask(&format!("GET {path} HTTP/1.1\r\nhost: origin.test:8443\r\n{headers}\r\n"))
}

/// Sends a body in pieces, of which a chunk each is made.
fn post(bottle: &Bottle, headers: &str, pieces: &[&[u8]]) -> Option<Answer> {
    let mut client = bottle.tunnel("origin.test:8443");
    client.send(format!(
        "POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
    ));
    for piece in pieces {
        chunk(&mut client, piece);
    }
    client.send("0\r\n\r\n");
    client.answer(false)
}

fn chunk(client: &mut Client, bytes: &[u8]) {
    client.send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
}

fn compressed(bottle: &Bottle, text: &str) -> Vec<u8> {
    let path = bottle.folder.join("text");
    std::fs::write(&path, text).unwrap();
    run(std::process::Command::new("gzip").arg("-c").arg(path)).stdout
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn token_in_a_url_or_a_header_does_not_leave() {
    let (bottle, origin, _) = bottle("");
    let token = token();
    let escaped = token.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
    for (path, headers) in [
        (format!("/a?d={token}"), String::new()),
        (format!("/a/{token}"), String::new()),
        (format!("/a?d={escaped}"), String::new()),
        ("/a".to_owned(), format!("x-data: {token}\r\n")),
        ("/a".to_owned(), format!("authorization: Bearer {token}\r\n")),
        ("/a".to_owned(), format!("cookie: a=b; c={token}\r\n")),
    ] {
        let answer = get(&bottle, &path, &headers);
        assert_eq!(answer.denied(), Some("dlp"), "{path} {headers}");
        assert!(answer.body.contains("github-token in "), "{}", answer.body);
        assert!(!answer.body.contains(&token[8..30]), "{}", answer.body);
    }
    assert!(origin.seen().is_empty());
    // The control: the same requests with what only looks like it.
    let other = token.replace("2nfc85", "2nfc86");
    assert_eq!(get(&bottle, &format!("/a?d={other}"), "").status, 200);
    assert_eq!(get(&bottle, "/a", &format!("authorization: Bearer {other}\r\n")).status, 200);
}

#[test]
fn smuggled_data_and_urls_that_lead_inside_do_not_leave() {
    let (bottle, origin, _) = bottle("");
    let answer = get(&bottle, "/fetch?url=http://169.254.169.254/latest/meta-data/", "");
    assert!(answer.denied() == Some("dlp") && answer.body.contains("ssrf-target in url"));
    let data = "Zk9xQ2pWb0w3dHJTYU5lMWhHdUlwMEtjWTRtVHpCOHZSNnhKMmZEOXNMcVdpT24zRWFVNWdDdFBoWXlM";
    let answer = get(&bottle, &format!("/c?d={data}"), "");
    assert!(answer.body.contains("high-entropy-url in url"), "{}", answer.body);
    assert!(origin.seen().is_empty());
    assert_eq!(get(&bottle, "/fetch?url=https://example.com/latest/meta-data/", "").status, 200);
    assert_eq!(get(&bottle, &format!("/c?d={}", &data[..40]), "").status, 200);
}

#[test]
fn token_in_a_body_does_not_leave_however_it_is_cut_or_encoded() {
    let (bottle, _origin, got) = bottle("");
    let token = token();
    let text = format!("{{\"some\": \"words\", \"token\": \"{token}\", \"and\": \"more\"}}");
    let base64 = run(std::process::Command::new("sh").args([
        "-c",
        "printf %s \"$1\" | base64 -w 76",
        "sh",
        &text,
    ]))
    .stdout;
    let gzip = compressed(&bottle, &text);
    let coded = "content-encoding: gzip\r\n";
    for (headers, body, part) in [
        ("", text.as_bytes(), &token.as_bytes()[4..]),
        ("", &base64, &base64[base64.len() - 80..base64.len() - 20]),
        (coded, &gzip, &gzip[..]),
        ("", &gzip, &gzip[..]),
    ] {
        for size in [body.len(), 50, 7, 1] {
            got.lock().unwrap().clear();
            let pieces: Vec<_> = body.chunks(size).collect();
            let answer = post(&bottle, headers, &pieces).expect("an answer");
            assert_eq!(answer.denied(), Some("dlp"), "in pieces of {size}");
            assert!(answer.body.contains("github-token in body"), "{}", answer.body);
            let got = got.lock().unwrap();
            assert!(!holds(&got, part), "{}", String::from_utf8_lossy(&got));
        }
    }
    // Of the plain one no byte after its prefix was sent.
    got.lock().unwrap().clear();
    let pieces: Vec<_> = text.as_bytes().chunks(1).collect();
    post(&bottle, "", &pieces).unwrap();
    assert!(!holds(&got.lock().unwrap(), &token.as_bytes()[..8]));
    // The control: the same body with what only looks like a token passes whole. To another server, for
    // what was broken off may still be on its way to this one.
    let (bottle, _origin, got) = self::bottle("");
    let other = text.replace("2nfc85", "2nfc86");
    for size in [other.len(), 7, 1] {
        got.lock().unwrap().clear();
        let pieces: Vec<_> = other.as_bytes().chunks(size).collect();
        assert_eq!(post(&bottle, "", &pieces).unwrap().status, 200);
        assert_eq!(*got.lock().unwrap(), other.as_bytes());
    }
    let gzip = compressed(&bottle, &other);
    got.lock().unwrap().clear();
    assert_eq!(post(&bottle, coded, &[&gzip]).unwrap().status, 200);
    assert_eq!(*got.lock().unwrap(), gzip);
}

#[test]
fn body_of_a_known_length_is_broken_off_too() {
    let (bottle, _origin, got) = bottle("");
    let body = format!("{}{}", "x".repeat(100_000), token());
    let mut client = bottle.tunnel("origin.test:8443");
    let answer = client.ask(&format!(
        "POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.denied(), Some("dlp"));
    assert!(got.lock().unwrap().is_empty(), "a whole body has come");
}

#[test]
fn rule_that_is_off_or_exempt_lets_the_same_bytes_pass() {
    let token = token();
    let text = format!("a {token} b");
    for words in [", dlp: off", ", dlp_exempt: [github-token]", ", dlp: warn"] {
        let (bottle, origin, got) = bottle(words);
        assert_eq!(post(&bottle, "", &[text.as_bytes()]).unwrap().status, 200, "{words}");
        assert_eq!(*got.lock().unwrap(), text.as_bytes());
        let path = format!("/a?d={token}");
        assert_eq!(get(&bottle, &path, "").status, 200, "{words}");
        assert!(origin.seen()[1].line.contains(&path));
        let found: Vec<_> = bottle.decisions(2).into_iter().flat_map(|line| line.found).collect();
        let told: &[&str] = if words.contains("warn") {
            &["github-token in body", "github-token in url"]
        } else {
            &[]
        };
        assert_eq!(found, told, "{words}");
    }
}

#[test]
fn decision_says_what_was_found_and_never_the_text() {
    let (bottle, _origin, _) = bottle("");
    let token = token();
    get(&bottle, &format!("/a?d={token}"), "");
    post(&bottle, "", &[b"x ", token.as_bytes(), b" y"]);
    let lines = bottle.decisions(2);
    let told: Vec<_> = lines
        .iter()
        .filter_map(|line| line.reason.map(|reason| (reason.as_str(), line.found.join(","))))
        .collect();
    assert_eq!(
        told,
        [("dlp", "github-token in url".into()), ("dlp", "github-token in body".into())]
    );
    let text = std::fs::read_to_string(bottle.folder.join("run/decisions.jsonl")).unwrap();
    assert!(!text.contains(&token[8..30]) && !bottle.stderr().contains(&token[8..30]));
}

#[test]
fn what_only_begins_like_a_token_does_not_wait_for_ever() {
    let (told, heard) = mpsc::channel();
    let rule = "\n- {host: origin.test, kind: name, ports: [8443], addresses: [127.0.0.0/8]}\n";
    let bottle = Bottle::with_rules(rule);
    let told = Mutex::new(told);
    let _origin = bottle.tls_origin(move |e| {
        while let Some(chunk) = e.chunk().filter(|chunk| !chunk.is_empty()) {
            told.lock().unwrap().send(chunk).unwrap();
        }
        e.answer("taken");
    });
    let mut client = bottle.tunnel("origin.test:8443");
    client.send("POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n\r\n");
    // What is nothing passes at once, what may be something after a while.
    chunk(&mut client, b"hello ");
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"hello ");
    let begin = &token().into_bytes()[..20];
    chunk(&mut client, begin);
    assert!(heard.recv_timeout(Duration::from_millis(50)).is_err());
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), begin);
    client.send("0\r\n\r\n");
    assert_eq!(client.answer(false).unwrap().status, 200);
}

#[test]
fn large_upload_is_looked_at_in_constant_memory() {
    let (bottle, _origin, _) = bottle("");
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", bottle.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(post(&bottle, "", &[b"warm up"]).unwrap().status, 200);
    let before = peak();
    let plain = "a line of a text, as there are many\n".repeat(1700);
    let piece = plain + "Zk9xQ2pWb0w3dHJTYU5lMWhHdUlwMEtjWTRtVHpCOHZSNnhK in it and %41\n";
    let mut client = bottle.tunnel("origin.test:8443");
    client.send("POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..128 {
        chunk(&mut client, piece.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer(false).unwrap().status, 200);
    assert!(peak() < before + (4 << 10), "{before} kB became {} kB", peak());
}

#[test]
fn secret_of_the_plan_does_not_leave_by_the_agent_in_any_form() {
    let (bottle, origin, got) = bottle("");
    let secret = "hunter2-but-longer";
    let forms = [
        "hunter2-but-longer",
        "eGh1bnRlcjItYnV0LWxvbmdlcg",
        "68756e746572322d6275742d6c6f6e676572",
    ];
    // The control: before it is a secret it passes.
    for form in forms {
        assert_eq!(post(&bottle, "", &[form.as_bytes()]).unwrap().status, 200);
        assert_eq!(get(&bottle, &format!("/a?d={form}"), "").status, 200);
    }
    bottle.give(1, &[("db", secret)]);
    origin.take();
    for form in forms {
        got.lock().unwrap().clear();
        let pieces: Vec<_> = form.as_bytes().chunks(1).collect();
        let answer = post(&bottle, "", &pieces).unwrap();
        assert!(answer.body.contains("found secret:db in body"), "{}", answer.body);
        assert!(got.lock().unwrap().len() <= form.len() / 2, "{form}");
        for (path, headers) in
            [(format!("/a?d={form}"), String::new()), ("/a".to_owned(), format!("x: {form}\r\n"))]
        {
            let answer = get(&bottle, &path, &headers);
            assert!(answer.body.contains("found secret:db in "), "{}", answer.body);
            assert!(!answer.body.contains(form));
        }
    }
    assert!(origin.take().iter().all(|seen| seen.line.starts_with("POST /x ")));
    // A new value is looked for in place of the old one.
    bottle.give(2, &[("db", "another one")]);
    assert_eq!(get(&bottle, &format!("/a?d={secret}"), "").status, 200);
    assert_eq!(get(&bottle, "/a?d=another%20one", "").denied(), Some("dlp"));
}
