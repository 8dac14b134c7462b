//! The first message of a TLS client: read in one way, however it is cut into records.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "a part of it is what is tried")]
#[path = "../../../tools/bottle-egress/hello.rs"]
mod hello;

fuzz_target!(|bytes: &[u8]| {
    let whole = hello::read(bytes);
    // What is known of a part stays true of the whole: refused stays refused, and read stays read.
    for cut in 0..bytes.len() {
        match hello::read(&bytes[..cut]) {
            Ok(None) => {}
            Ok(Some(known)) => assert!(
                whole.is_err() || whole == Ok(Some(known.clone())),
                "{known:?} became {whole:?}"
            ),
            Err(_) => assert!(whole.is_err(), "refused at {cut}, then {whole:?}"),
        }
    }
    // A message in one record says the same in two.
    if let (Ok(Some(read)), [22, 3, 1, high, low, message @ ..]) = (&whole, bytes)
        && message.len() == usize::from(u16::from_be_bytes([*high, *low]))
        && message.len() > 1
    {
        let (first, second) = message.split_at(message.len() / 2);
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).expect("a record").to_be_bytes();
            [&[22, 3, 1][..], &length, part].concat()
        };
        let cut = [record(first), record(second)].concat();
        assert_eq!(hello::read(&cut), Ok(Some(read.clone())));
    }
});
