//! Containment of globs is sound: what a contained pattern matches, the containing one matches too.
#![no_main]

use bottle::policy::{Glob, normal_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str, &str)| {
    let (outer, inner, path) = texts;
    let (Ok(outer), Ok(inner)) = (Glob::parse(outer), Glob::parse(inner)) else { return };
    let Ok(path) = normal_path(path) else { return };
    assert!(outer.covers(&outer));
    if outer.covers(&inner) && inner.matches(path.as_str()) {
        assert!(outer.matches(path.as_str()), "{texts:?}");
    }
});
