//! The scan as a whole: every rule by its own samples, secrets in every form, encodings in one
//! another, bytes in pieces, and bytes that mean nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rules::{self, RULES};
use super::*;

fn lens_of(secrets: &[(&str, &str)], private: bool) -> Lens {
    let secrets: BTreeMap<String, Vec<u8>> = secrets
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let engine = Arc::new(Engine::new(&secrets, private));
    Lens::new(engine, Vec::new(), "api.example.com".to_owned())
}

fn lens() -> Lens {
    lens_of(&[], false)
}

fn names_of(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|finding| &*finding.rule).collect()
}

fn body(lens: &Lens, bytes: &[u8]) -> Vec<String> {
    scan_slice(lens, Place::Body, bytes).into_iter().map(|finding| finding.rule).collect()
}

/// Numbers that are the same in every run: xorshift64.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.throw(256)).unwrap()).collect()
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut whole = [0; 3];
        whole[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, whole[0], whole[1], whole[2]]);
        for at in 0..4_usize {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn written(bytes: &[u8], form: impl Fn(u8) -> String) -> String {
    bytes.iter().map(|byte| form(*byte)).collect()
}

fn hex(bytes: &[u8]) -> String {
    written(bytes, |byte| format!("{byte:02x}"))
}

fn percent(bytes: &[u8]) -> String {
    written(bytes, |byte| format!("%{byte:02X}"))
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(bytes, 6)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    out.extend(b"name\0");
    out.extend(compressed(bytes));
    out.extend([0; 8]);
    out
}

/// A token that is none but for its form.
fn token() -> String {
    ["gh", "p_FAKE0FAKE1FAKE2FAKE3FAKE4FAKE52nfc85"].concat()
}

#[test]
fn rules_are_read_and_every_expression_compiles() {
    let rules = rules::read().unwrap();
    for rule in &rules {
        if let Some(regex) = &rule.regex {
            let size = rules::compile(regex).unwrap().memory_usage();
            assert!(size < 128 << 10, "{} takes {size} bytes", rule.name);
        }
    }
    assert_eq!(RULES.len(), rules.len());
}

#[test]
fn rules_have_the_names_that_manifests_may_use() {
    let mut names = names();
    names.sort_unstable();
    assert_eq!(names, bottle::policy::SCAN_RULES);
    let page = include_str!("../../../man/src/bottle-manifest.5");
    let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".B ")).collect();
    let untold: Vec<_> = names.iter().filter(|name| !told.contains(name)).collect();
    assert!(untold.is_empty(), "bottle-manifest(5) does not know {untold:?}");
}

#[test]
fn every_rule_finds_its_leaks_and_nothing_else_of_its_own() {
    let lens = lens_of(&[], true);
    let mut wrong = Vec::new();
    for rule in RULES.iter() {
        let judge = |sample: &str| {
            let text = sample.replace("{}", "");
            let found = match rule.at[..] {
                [Place::Url] => url(&lens, &text),
                [Place::Host] => host(&lens, &text),
                _ => scan_slice(&lens, Place::Body, text.as_bytes()),
            };
            found.iter().any(|finding| finding.rule == rule.name)
        };
        wrong.extend(
            rule.leaks
                .iter()
                .filter(|it| !judge(it))
                .map(|it| format!("missed {}: {it}", rule.name)),
        );
        wrong.extend(
            rule.fine
                .iter()
                .filter(|it| judge(it))
                .map(|it| format!("taken for {}: {it}", rule.name)),
        );
        assert!(!rule.leaks.is_empty() || rule.name == "decode-limit", "{} has no leak", rule.name);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_held_is_judged_before_it_is_passed_on_and_the_search_goes_on() {
    let coded = base64(format!("a {} b", token()).as_bytes());
    for text in [token(), format!("x={coded}"), percent(token().as_bytes())] {
        let mut scanner = Scanner::new(&lens(), Place::Body, None);
        let (most, rest) = text.as_bytes().split_at(text.len() - 8);
        scanner.feed(most);
        assert!(scanner.held() > 0);
        scanner.settle();
        // Part of a token is none.
        assert_eq!(names_of(scanner.found()), [""; 0], "{text}");
        scanner.feed(rest);
        scanner.settle();
        assert_eq!(names_of(scanner.found()), ["github-token"], "{text}");
    }
}

#[test]
fn secret_is_found_in_every_form() {
    let secret = "hunter2/\"but+longer";
    let lens = lens_of(&[("db", secret)], false);
    let bytes = secret.as_bytes();
    for before in ["", "a", "ab", "abc"] {
        let shifted = [before.as_bytes(), bytes, b"!"].concat();
        let coded = base64(&shifted);
        let forms = [
            [before, secret].concat(),
            coded.clone(),
            coded.replace('+', "-").replace('/', "_"),
            hex(&shifted),
            hex(&shifted).to_uppercase(),
            percent(&shifted),
            before.to_owned() + "hunter2%2F%22but%2Blonger",
            before.to_owned() + "hunter2%2f%22but%2blonger",
            before.to_owned() + "hunter2/\\\"but+longer",
        ];
        for form in forms {
            let found = body(&lens, format!("x={form}&y=1").as_bytes());
            assert_eq!(found, ["secret:db"], "{form}");
            let found = url(&lens, &format!("/a?x={}", form.replace('"', "%22")));
            assert_eq!(names_of(&found)[0], "secret:db", "{form}");
        }
    }
    assert!(body(&lens, b"hunter2/ but+longer hunter2").is_empty());
}

#[test]
fn part_of_a_long_secret_is_a_leak_too() {
    let secret: String = (b'!'..=b'z').cycle().take(400).map(char::from).collect();
    let lens = lens_of(&[("long", &secret)], false);
    assert_eq!(body(&lens, secret.as_bytes()), ["secret:long"]);
    assert_eq!(body(&lens, &secret.as_bytes()[100..220]), ["secret:long"]);
}

#[test]
fn short_secrets_are_not_looked_for() {
    assert!(body(&lens_of(&[("pin", "1234567")], false), b"1234567").is_empty());
    assert_eq!(body(&lens_of(&[("pin", "12345678")], false), b"12345678"), ["secret:pin"]);
}

#[test]
fn exempt_finding_is_none_and_another_one_stays() {
    let engine = lens_of(&[("db", "correct horse")], false).0.engine.clone();
    let but = |names: &[&str]| {
        let exempt = names.iter().map(|name| (*name).to_owned()).collect();
        Lens::new(engine.clone(), exempt, String::new())
    };
    let text = format!("{} correct horse", token());
    assert_eq!(body(&but(&["github-token"]), text.as_bytes()), ["secret:db"]);
    assert!(body(&but(&["github-token", "secret:db"]), text.as_bytes()).is_empty());
}

#[test]
fn providers_own_key_in_a_header_to_the_provider_is_no_leak_and_anywhere_else_it_is() {
    let to = |host: &str, place, sample: &str| {
        let lens = lens().to(host);
        names_of(&scan_slice(&lens, place, sample.as_bytes())).join(",")
    };
    let mut tried = 0;
    for rule in RULES.iter() {
        for own in &rule.own {
            let host = own.replacen("*.", "api.", 1);
            for leak in &rule.leaks {
                let sample = leak.replace("{}", "");
                assert_eq!(to(&host, Place::Header, &sample), "", "{sample} to {host}");
                assert_eq!(to(&host, Place::Body, &sample), rule.name, "{sample} to {host}");
                for other in
                    ["api.example.com", &format!("{host}.example.com"), &format!("x{host}")]
                {
                    // "*.x.com" covers what "x" before it makes of a longer host.
                    let fine = own.starts_with('*') && other.starts_with('x');
                    let found = if fine { "" } else { &rule.name };
                    assert_eq!(to(other, Place::Header, &sample), found, "{sample} to {other}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn encodings_are_undone_in_one_another() {
    let lens = lens();
    let text = format!("some words before the token {} and some after it", token());
    let plain = text.as_bytes();
    let zip = [
        &b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0a.b"[..],
        &compressed(plain),
    ]
    .concat();
    for bytes in [
        plain.to_vec(),
        base64(plain).into_bytes(),
        base64(base64(plain).as_bytes()).into_bytes(),
        base64(base64(base64(plain).as_bytes()).as_bytes()).into_bytes(),
        hex(plain).into_bytes(),
        hex(base64(plain).as_bytes()).into_bytes(),
        percent(plain).into_bytes(),
        percent(percent(plain).as_bytes()).into_bytes(),
        gzip(plain),
        gzip(&gzip(plain)),
        base64(&gzip(plain)).into_bytes(),
        gzip(base64(plain).as_bytes()),
        zip,
        [&gzip(b"first"), &gzip(plain)[..]].concat(),
        base64(plain).as_bytes().chunks(60).collect::<Vec<_>>().join(&b"\r\n"[..]),
        base64(plain).as_bytes().chunks(60).collect::<Vec<_>>().join(&b"\\n"[..]),
        written(plain, |byte| format!("\\u{byte:04x}")).into_bytes(),
    ] {
        for prefix in ["", "x", "xy ", "{\"a\":\"", "/usr/lib/"] {
            let whole = [prefix.as_bytes(), &bytes, b"\"}"].concat();
            assert_eq!(
                body(&lens, &whole),
                ["github-token"],
                "{}",
                String::from_utf8_lossy(&whole)
            );
            // And in pieces of every size.
            for size in [1, 7, 64] {
                let mut scanner = Scanner::new(&lens, Place::Body, None);
                whole.chunks(size).for_each(|piece| scanner.feed(piece));
                assert_eq!(names_of(scanner.end()), ["github-token"], "in pieces of {size}");
            }
        }
    }
}

#[test]
fn content_coding_is_undone() {
    let lens = lens();
    let text = token();
    let zlib = miniz_oxide::deflate::compress_to_vec_zlib(text.as_bytes(), 6);
    for (coding, bytes) in [
        (Coding::Gzip, gzip(text.as_bytes())),
        (Coding::Deflate, zlib),
        (Coding::Deflate, compressed(text.as_bytes())),
    ] {
        for size in [1, 10, 1000] {
            let mut scanner = Scanner::new(&lens, Place::Body, Some(coding));
            bytes.chunks(size).for_each(|piece| scanner.feed(piece));
            assert_eq!(names_of(scanner.end()), ["github-token"]);
        }
    }
}

#[test]
fn objects_of_a_git_push_are_looked_into() {
    let blob = |text: &str| {
        let length = text.len();
        // Type 3, and the length in 4 and 7 bits.
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        let head = [0xb0 | (low & 15), low >> 4 | high << 4];
        [&head[..], &miniz_oxide::deflate::compress_to_vec_zlib(text.as_bytes(), 1)].concat()
    };
    let clean = "fn main() {}\n".repeat(20);
    let dirty = format!("TOKEN={}\n", token());
    let pack = [
        &b"0094\0PACK\0\0\0\x02\0\0\0\x03"[..],
        &blob(&clean),
        &blob("x"),
        &blob(&dirty),
        &[7; 20],
    ]
    .concat();
    for size in [1, 13, 4096] {
        let mut scanner = Scanner::new(&lens(), Place::Body, None);
        pack.chunks(size).for_each(|piece| scanner.feed(piece));
        assert_eq!(names_of(scanner.end()), ["github-token"], "in pieces of {size}");
    }
}

#[test]
fn last_bytes_of_a_token_are_held_until_it_is_judged() {
    let lens = lens_of(&[("db", "correct horse battery")], false);
    for (text, least) in [
        (format!("a=1&token={}", token()), 36),
        ("password=correct horse battery".to_owned(), 13),
        (base64(format!("padding {} and more", token()).as_bytes()), 40),
        (percent(token().as_bytes()), 100),
    ] {
        let mut scanner = Scanner::new(&lens, Place::Body, None);
        let mut sent = 0;
        let found = text.bytes().enumerate().find(|(at, byte)| {
            scanner.feed(&[*byte]);
            if scanner.found().is_empty() {
                sent = at + 1 - scanner.held();
            }
            !scanner.found().is_empty()
        });
        let end = found.map_or(text.len(), |(at, _)| at + 1);
        assert!(!scanner.end().is_empty(), "nothing found in {text}");
        assert!(end - sent >= least, "{text}: {sent} of {end} were sent");
    }
    // What begins like nothing is not held.
    let mut scanner = Scanner::new(&lens, Place::Body, None);
    scanner.feed(b"{\"stream\": true, \"text\": \"the ghp_ prefix, an AKIA and a correct horse\"}");
    assert_eq!(scanner.held(), 0);
    assert!(scanner.end().is_empty());
}

#[test]
fn bombs_are_given_up_with_a_finding() {
    let lens = lens();
    let zeros = vec![0; 64 << 20];
    assert_eq!(body(&lens, &gzip(&zeros)), ["decode-limit"]);
    let exempt = Lens::new(lens.0.engine.clone(), vec!["decode-limit".to_owned()], String::new());
    assert!(body(&exempt, &gzip(&zeros)).is_empty());
    // The same bytes, not compressed, are many and no bomb.
    assert!(body(&lens, &zeros).is_empty());
}

#[test]
fn memory_is_bounded_by_no_length() {
    let lens = lens_of(&[("db", "correct horse battery")], true);
    let mut dice = Dice(7);
    let mut noise = dice.bytes(64 << 10);
    noise.extend(base64(&dice.bytes(64 << 10)).into_bytes());
    noise.extend(percent(&dice.bytes(4 << 10)).into_bytes());
    let mut scanner = Scanner::new(&lens, Place::Body, None);
    let mut most = 0;
    for _ in 0..20 {
        for piece in noise.chunks(10_000) {
            scanner.feed(piece);
            most = most.max(scanner.top.size());
        }
    }
    assert!(most < 512 << 10, "{most}");
}

#[test]
fn noise_never_panics_and_pieces_say_what_the_whole_says() {
    let lens = lens_of(&[("db", "correct horse battery")], true);
    let token = token();
    let coded = base64(token.as_bytes());
    let zipped = gzip(token.as_bytes());
    let parts: [&[u8]; 16] = [
        b"ghp_",
        b"-----BEGIN ",
        b"eyJhbGciOiJIUzI1NiJ9.",
        b"://u:",
        b"%",
        b"%4",
        b"\\u00",
        b"\\",
        b"PACK\0\0\0\x02",
        b"\x78\x9c",
        b"correct horse",
        b"\r\n",
        b"AKIA",
        &zipped,
        coded.as_bytes(),
        token.as_bytes(),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..150 {
        let mut text = Vec::new();
        // A stream that only begins like one may hide another, and where it does depends on pieces.
        let astray = dice.throw(4) == 0;
        if astray {
            text.extend([&b"\x1f\x8b\x08\x1f"[..], b"PK\x03\x04"][dice.throw(2)]);
        }
        for _ in 0..dice.throw(12) {
            match dice.throw(4) {
                0 => {
                    let count = dice.throw(60);
                    text.extend(dice.bytes(count));
                }
                1 => {
                    let count = dice.throw(60);
                    text.extend(base64(&dice.bytes(count)).into_bytes());
                }
                _ => text.extend(parts[dice.throw(parts.len())]),
            }
        }
        match dice.throw(6) {
            0 => text = base64(&text).into_bytes(),
            1 => text = gzip(&text),
            2 => text = percent(&text).into_bytes(),
            _ => {}
        }
        for at in 0..dice.throw(3) {
            if !text.is_empty() && at == 1 {
                let place = dice.throw(text.len());
                text[place] ^= 1 << dice.throw(8);
            }
        }
        let mut whole = body(&lens, &text);
        let coding = [None, Some(Coding::Gzip), Some(Coding::Deflate)][dice.throw(3)];
        let mut scanner = Scanner::new(&lens, Place::Body, coding);
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + dice.throw(rest.len()));
            scanner.feed(piece);
            assert!(scanner.held() <= Scanner::HELD);
            rest = after;
        }
        let mut pieces: Vec<String> = scanner.end().iter().map(|f| f.rule.clone()).collect();
        whole.sort();
        pieces.sort();
        if coding.is_none() && !astray {
            assert_eq!(whole, pieces, "round {round}: {}", String::from_utf8_lossy(&text));
        }
        let text = String::from_utf8_lossy(&text);
        let _ = (url(&lens, &text), host(&lens, &text));
    }
}

#[test]
fn token_may_lie_anywhere_in_what_is_looked_at_in_one_go() {
    let lens = lens();
    let token = token();
    let noise = "the quick brown fox jumps over a lazy dog; ".repeat(1000);
    for at in (16_300..16_420).chain([0, 1, 40_000]) {
        let mut text = noise.clone();
        text.insert_str(at, &format!(" {token} "));
        assert_eq!(body(&lens, text.as_bytes()), ["github-token"], "at {at}");
        let coded = base64(&text.as_bytes()[at.saturating_sub(90)..]);
        assert_eq!(body(&lens, coded.as_bytes()), ["github-token"], "coded at {at}");
    }
}

#[test]
fn host_is_looked_at_as_it_is_named() {
    let lens = lens_of(&[("db", "correct horse battery")], false);
    let name = format!("{}.t.example.com", hex(b"correct horse battery"));
    assert_eq!(names_of(&host(&lens, &name))[0], "secret:db");
    assert!(host(&lens, "api.example.com").is_empty());
}
