//! A host is read in one way only: what is taken is in normal form, and stays what it is.
#![no_main]

use bottle::host::{self, Host};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(host) = host::request_host(text) {
        let written = host.to_string();
        let again = host::request_host(&written).expect("a normal form is a host");
        assert_eq!(again, host, "{text:?}");
        if let Host::Name(name) = &host {
            assert!(!name.ends_with('.') && !name.bytes().any(|b| b.is_ascii_uppercase()));
            assert!(name.parse::<std::net::IpAddr>().is_err(), "{text:?} is an address");
        }
    }
    if let Ok((host, port)) = host::authority(text) {
        let written = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        assert_eq!(host::authority(&written), Ok((host.clone(), port)), "{text:?}");
    }
    if let Ok((normal, kind)) = host::normalise(text) {
        let again = host::normalise(&normal).expect("a normal form is a host of a rule");
        assert_eq!(again, (normal, kind), "{text:?}");
    }
});
