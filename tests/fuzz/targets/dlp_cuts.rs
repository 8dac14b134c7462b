//! The scan of what leaves: what it finds does not depend on how the bytes are cut, and a secret that
//! is there in plain is found whatever stands round it.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bottle_egress::dlp::{self, Coding, Engine, Lens, Place, Scanner};
use libfuzzer_sys::fuzz_target;

const SECRET: &[u8] = b"kept-0f-4ll-7hings";

fn lens() -> &'static Lens {
    static LENS: OnceLock<Lens> = OnceLock::new();
    LENS.get_or_init(|| {
        let secrets = BTreeMap::from([("kept".to_owned(), SECRET.to_vec())]);
        let engine = Arc::new(Engine::new(&secrets, true));
        Lens::new(engine, Vec::new(), "api.example.com".to_owned())
    })
}

fn found(parts: &[&[u8]], coding: Option<Coding>) -> BTreeSet<String> {
    let mut scanner = Scanner::new(lens(), Place::Body, coding);
    for part in parts {
        scanner.feed(part);
        assert!(scanner.held() <= Scanner::HELD);
    }
    scanner.end();
    scanner.found().iter().map(|finding| finding.rule.clone()).collect()
}

fuzz_target!(|input: (u8, Vec<u8>, &[u8], &[u8])| {
    let (choice, cuts, before, after) = input;
    let coding = match choice % 4 {
        0 => Some(Coding::Gzip),
        1 => Some(Coding::Deflate),
        _ => None,
    };
    let bytes = if choice & 4 == 0 { before.to_vec() } else { [before, SECRET, after].concat() };
    let whole = found(&[&bytes], coding);
    let (mut parts, mut rest) = (Vec::new(), &bytes[..]);
    for cut in cuts {
        let (part, more) = rest.split_at(rest.len().min(cut.into()));
        parts.push(part);
        rest = more;
    }
    parts.push(rest);
    assert_eq!(found(&parts, coding), whole, "cut into {parts:?}");
    if choice & 4 != 0 && coding.is_none() {
        assert!(whole.contains("secret:kept"), "{whole:?}");
    }
    if let Ok(text) = std::str::from_utf8(before) {
        let _ = dlp::url(lens(), text);
        let _ = dlp::host(lens(), text);
    }
});
