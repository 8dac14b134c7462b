//! Requests of HTTP/1, however they are cut: what reaches a server is what was judged and allowed, and
//! what a careful reader reads in it; no connection outlives its client.
#![no_main]

use std::sync::LazyLock;

use bottle_egress::trial::{Trial, Way};
use libfuzzer_sys::fuzz_target;

static TRIAL: LazyLock<std::sync::Mutex<Trial>> =
    LazyLock::new(|| Trial::new().expect("make an egress").into());

fuzz_target!(|input: &[u8]| {
    // The first byte says where the request comes, and where it is cut. A tunnel stands for most.
    let Some((how, bytes)) = input.split_first() else { return };
    let way = if how & 3 == 0 { Way::Proxy } else { Way::Tunnel };
    let cut = match how >> 2 {
        0 => bytes.len(),
        by => bytes.len() * usize::from(by) / 64,
    };
    let (first, rest) = bytes.split_at(cut);
    let trial = TRIAL.lock().expect("nothing panics");
    if let Err(why) = trial.holds(way, &[first, rest]) {
        panic!("{why}");
    }
});
