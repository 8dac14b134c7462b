//! The scan of what leaves: no bytes make it panic or hold more than it says, in pieces or at once.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bottle_egress::dlp::{Coding, Engine, Lens, Place, Scanner, host, scan_slice, url};
use libfuzzer_sys::fuzz_target;

static LENS: LazyLock<Lens> = LazyLock::new(|| {
    let secrets = BTreeMap::from([("db".to_owned(), b"correct horse".to_vec())]);
    let engine = Arc::new(Engine::new(&secrets, true));
    Lens::new(engine, Vec::new(), "a.example".to_owned())
});

fuzz_target!(|input: (u8, &[u8])| {
    let (how, bytes) = input;
    let coding = match how & 3 {
        0 => Some(Coding::Gzip),
        1 => Some(Coding::Deflate),
        _ => None,
    };
    let mut scanner = Scanner::new(&LENS, Place::Body, coding);
    for piece in bytes.chunks(usize::from(how >> 2) + 1) {
        scanner.feed(piece);
        assert!(scanner.held() <= Scanner::HELD);
    }
    scanner.end();
    assert_eq!(scanner.held(), 0);
    let _ = scan_slice(&LENS, Place::Body, bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = (url(&LENS, &text), host(&LENS, &text));
});
