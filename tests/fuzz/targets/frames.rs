//! What passes the filter of the keys is one of three requests, whole, and nothing behind it.
#![no_main]

use bottle_ssh_agent::frame::{self, REQUEST, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((head, _)) = bytes.split_first_chunk::<4>() {
        assert!(frame::length(*head, REQUEST).is_none_or(|length| (1..=REQUEST).contains(&length)));
    }
    if frame::judge(bytes) == Verdict::Refuse {
        return;
    }
    assert!(matches!(bytes[0], 11 | 13 | 27), "{bytes:?}");
    assert!(bytes[0] != 11 || bytes.len() == 1);
    assert!(bytes[0] != 27 || bytes[5..].starts_with(b"session-bind@openssh.com"));
    // Cut or longer, it is another one, or none.
    assert_eq!(frame::judge(&bytes[..bytes.len() - 1]), Verdict::Refuse);
    assert_eq!(frame::judge(&[bytes, &[0]].concat()), Verdict::Refuse);
});
