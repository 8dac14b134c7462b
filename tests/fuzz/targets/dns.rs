//! DNS messages, of an agent and of a name server.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "a part of it is what is tried")]
#[path = "../../../tools/bottle-egress/dns/wire.rs"]
mod wire;

fuzz_target!(|packets: (&[u8], &[u8])| {
    let (first, second) = packets;
    if let Ok(question) = wire::question(first) {
        assert!(question.name.is_ascii());
        let reply = wire::reply(first, Some(&question), wire::NOERROR, Some([10, 0, 0, 2].into()));
        // A reply is never replied to.
        assert_eq!(wire::question(&reply), Err(None));
        if let Some(answer) = wire::answer(first, &reply) {
            assert!(answer.addresses.len() <= 1);
        }
    }
    let _ = wire::answer(first, second);
    let name = String::from_utf8_lossy(second);
    if let Some(query) = wire::query(7, &name, wire::A) {
        let _ = wire::question(&query);
        let _ = wire::answer(&query, first);
    }
});
